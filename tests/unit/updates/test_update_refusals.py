"""Rows that `update` does not add to a run, and fits that are refused after it."""

from pathlib import Path

import numpy as np
import pytest
from support.changed_runs import NEW, OLD, RANK, V, factors, fitted

from dask_nmf import Run, nmf
from dask_nmf.errors import DataError, RunMismatch
from dask_nmf.results import verify
from dask_nmf.updates import update

REFUSED = {
    "columns": ({}, V[:5, :19], "^V has 19 columns and"),
    "weights": ({"weights": np.ones(OLD.shape)}, NEW, "with weights"),
    "loss": ({"beta_loss": 0.5, "solver": "mu", "max_iter": 2}, NEW, "beta_loss 0.5"),
    "normalised": ({"normalize": "l1", "alpha_W": 0.1}, NEW, "no longer balances"),
    "negative": ({}, -NEW, "NMF takes entries >= 0"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_added_is_refused_with_one_line(case: str, tmp_path: Path) -> None:
    options, rows, text = REFUSED[case]
    run = fitted(tmp_path / "run", **options)
    before = factors(run)
    with pytest.raises(ValueError, match=text) as refusal:
        update(run, rows)
    assert "\n" not in str(refusal.value)
    assert isinstance(refusal.value, DataError) == (case == "negative")
    for mine, theirs in zip(factors(run), before, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_an_unfinished_fit_is_refused(tmp_path: Path) -> None:
    nmf(OLD, RANK, store=tmp_path / "run", time_limit=1e-9)
    with pytest.raises(ValueError, match="is not finished; finish it with dask-nmf fit"):
        update(tmp_path / "run", NEW)


def test_a_fit_does_not_go_on_in_a_run_of_other_rows(tmp_path: Path) -> None:
    run = fitted(tmp_path / "run")
    update(run, NEW)
    with pytest.raises(RunMismatch, match=r"rows of .* were changed since its fit"):
        fitted(run)
    fitted(run, overwrite=True)
    assert factors(run)[0].shape == (190, RANK)
    assert "lineage" not in Run.load(run).summary()


@pytest.mark.parametrize("size", [1e160, 1e300])
def test_rows_whose_squares_are_infinite_are_refused(size: float, tmp_path: Path) -> None:
    run = fitted(tmp_path / "run")
    with pytest.raises(DataError, match=r"has entries so large that .* give rows in the units of the V"):
        update(run, np.full((2, 20), size))
    assert all(check.passed for check in verify(run, OLD))
