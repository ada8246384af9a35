"""Where the model fails, in reports: the worst rows and columns, or why they are not known."""

from pathlib import Path

import numpy as np
import pytest
from support.matrices import low_rank
from support.reports import Outline, report_of

from dask_nmf import Run, nmf
from dask_nmf.results.residuals import residuals
from dask_nmf.updates import update


@pytest.mark.usefixtures("undrawn")
def test_the_worst_rows_and_columns_are_named_if_v_is_given(run: Path, tmp_path: Path) -> None:
    assert "The rows with the largest residuals" in report_of(run, tmp_path)
    V = low_rank(40, 12, 2)
    V[5] = 0
    text = " ".join(Outline(report_of(run, tmp_path, residuals=V, overwrite=True)).text)
    assert "The rows with the largest residuals" in text
    assert "Heat map of 40 blocks of rows by 12 blocks of columns" in text


@pytest.mark.usefixtures("undrawn")
def test_a_report_says_why_residuals_are_not_known(tmp_path: Path) -> None:
    V, run = low_rank(40, 12, 2), tmp_path / "run.zarr"
    nmf(V[:30], 2, max_iter=1, store=run)
    update(run, V[30:])
    assert "This is not known: rows were added or taken out since the fit. Write" in report_of(run, tmp_path)
    known = report_of(run, tmp_path, residuals=V, overwrite=True)
    assert "This is not known" not in known
    assert "Residuals by blocks of rows and columns" in known


@pytest.mark.usefixtures("undrawn")
def test_a_report_says_that_losses_are_beyond_float64(tmp_path: Path) -> None:
    V, run = low_rank(40, 12, 2).astype(float) * 1e110, tmp_path / "run.zarr"  # their cubes are 1e330
    result = nmf(V, 2, solver="mu", beta_loss=3.0, max_iter=1, store=run)
    with pytest.raises(ValueError, match=r"entries of V are beyond float64; factorise V times a number$"):
        result.plot.residuals()
    assert "entries are beyond float64; factorise V times a number.<" in report_of(run, tmp_path)
    with pytest.raises(ValueError, match="entries are beyond float64; leave V out"):
        residuals(Run.load_result(run), V)


@pytest.mark.usefixtures("undrawn")
def test_a_report_advises_no_read_of_v_that_weights_rule_out(tmp_path: Path) -> None:
    V, run = low_rank(40, 12, 2), tmp_path / "run.zarr"
    weights = np.ones(V.shape)
    nmf(V[:30], 2, max_iter=1, weights=weights[:30], store=run)
    update(run, V[30:], weights=weights[30:])
    html = report_of(run, tmp_path)
    assert "This is not known: rows were added or taken out since the fit.<" in html
