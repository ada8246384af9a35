"""Rows added to a run whose V has missing or held-out entries."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.changed_runs import RANK, factors, fitted
from support.observed import entries, ratings

from dask_nmf import Run, nmf, transform
from dask_nmf.results import verify
from dask_nmf.runs.record.contents import new_record
from dask_nmf.updates import update
from dask_nmf.updates.fitted import open_fitted

CASES: dict[str, tuple[dict[str, Any], Callable[[np.ndarray], Any], tuple[int, int]]] = {
    "not a number": ({"missing": "nan"}, np.asarray, (400, 20)),
    "not stored": ({"missing": "unstored"}, entries, (400, 20)),
    "wide": ({"missing": "nan", "alpha_W": 0.1, "alpha_H": 0.1}, np.asarray, (150, 180)),
    "divergence": ({"missing": "nan", "beta_loss": 1}, np.asarray, (400, 20)),
    "held out": ({"validation_fraction": 0.1}, np.nan_to_num, (400, 20)),
    "held out, divergence": ({"validation_fraction": 0.1, "beta_loss": 1}, np.nan_to_num, (400, 20)),
    "both": ({"missing": "nan", "validation_fraction": 0.1}, np.asarray, (400, 20)),
}


@pytest.mark.parametrize("case", CASES)
def test_the_error_is_that_of_a_fit_of_all_rows(case: str, tmp_path: Path) -> None:
    """The loss is within 1 % of it for these few rows; see docs/measurements.md for real matrices."""
    options, form, shape = CASES[case]
    v = ratings(shape)
    old = len(v) * 19 // 20
    run = fitted(tmp_path / "run", form(v[:old]), **options)
    found = update(run, form(v[old:]))
    whole = nmf(form(v), RANK, random_state=0, **options)
    assert found.relative_error**2 < 1.01 * whole.relative_error**2
    assert [check for check in verify(run, form(v)) if check.passed is False] == []
    assert Run.load_result(run).record["estimated"] is True


@pytest.mark.parametrize("beta", [2, 1])
def test_rows_of_h_are_better_than_the_h_before(beta: int, tmp_path: Path) -> None:
    """With missing entries too, H moves towards the new rows, by less than it would for them alone."""
    v = ratings((200, 20), noise=2)
    errors = []
    for keep in (True, False):
        run = fitted(tmp_path / str(keep), v[:150], missing="nan", beta_loss=beta)
        update(run, v[150:], keep_h=keep)
        (error,) = (check.text for check in verify(run, v) if check.name == "error")
        errors.append(float(error.split()[2]))
    assert errors[1] < errors[0]


def test_means_and_weights_are_those_of_all_rows(tmp_path: Path, several_panels: None) -> None:
    """Also of a column that no old row had, which then gets an H."""
    v = ratings((200, 20))
    v[:180, 4] = np.nan
    v[185, :] = np.nan
    run = fitted(tmp_path / "run", v[:180], missing="nan")
    assert not factors(run)[1][:, 4].any()
    update(run, v[180:190])
    update(run, v[190:])
    result = Run.load_result(run)
    there = ~np.isnan(v)
    np.testing.assert_array_equal(result.read("column_weight"), there.sum(axis=0))
    np.testing.assert_allclose(result.read("column_mean"), np.nanmean(v, axis=0))
    rows = np.delete(np.arange(200), 185)
    np.testing.assert_allclose(result.read("row_mean")[rows], np.nanmean(v[rows], axis=1))
    assert np.isnan(result.read("row_mean")[185])
    measures = result.record["measures"]
    assert measures["mean"] == pytest.approx(np.nanmean(v))
    assert (measures["unobserved_rows"], measures["unobserved_columns"]) == (1, 0)
    W, H = factors(run)
    there[185, 4] = False
    new = there[180:, 4]
    assert np.abs((W @ H)[180:, 4][new] - v[180:, 4][new]).mean() < 0.7 * np.nanstd(v[180:, 4])


def test_w_of_new_rows_is_that_of_transform_and_the_error_with_a_kept_h_is_known(tmp_path: Path) -> None:
    v = ratings((200, 20))
    run = fitted(tmp_path / "run", v[:190], missing="nan")
    found = update(run, v[190:], keep_h=True)
    W, H = factors(run)
    np.testing.assert_allclose(W[190:], transform(v[190:], H, missing="nan").compute(), rtol=1e-6)
    there = ~np.isnan(v)
    error = np.linalg.norm((v - W @ H)[there]) / np.linalg.norm(v[there])
    assert found.relative_error == pytest.approx(error, rel=1e-6)
    assert not Run.load_result(run).record["estimated"]


@pytest.mark.parametrize("keep_h", [False, True])
def test_the_error_of_held_out_entries_is_that_of_the_h_of_the_run(keep_h: bool, tmp_path: Path) -> None:
    v = np.nan_to_num(ratings((200, 20)))
    run = fitted(tmp_path / "run", v[:190], validation_fraction=0.1)
    before = Run.load(run).summary()["validation_error"]
    assert before > 0
    update(run, v[190:], keep_h=keep_h)
    assert Run.load(run).summary()["validation_error"] == (before if keep_h else None)


def test_the_sums_of_columns_are_near_those_of_v(tmp_path: Path) -> None:
    """Of 1000 rows that are missing at random, the WᵀW of a column is near its share of that of all rows."""
    v = ratings((1000, 20))
    run = fitted(tmp_path / "run", v, missing="nan")
    rows, (left, _) = open_fitted(Run.load(run)).rows, open_fitted(Run.load(run)).units
    W = factors(run)[0] / left
    lower = np.tril_indices(RANK)
    for column in range(20):
        own = W[~np.isnan(v[:, column])]
        np.testing.assert_allclose(rows.gram[column], (own.T @ own)[lower], rtol=0.3)


def test_a_run_of_an_earlier_version_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def without(*given: Any) -> dict[str, Any]:
        return {**new_record(*given), "weighs_columns": False}

    monkeypatch.setattr("dask_nmf.runs.record.contents.new_record", without)
    v = ratings((50, 8))
    run = fitted(tmp_path / "run", v[:40], missing="nan")
    with pytest.raises(ValueError, match=r"by an earlier version, .* fit all rows anew"):
        update(run, v[40:])
