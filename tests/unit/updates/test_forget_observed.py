"""Rows taken out of a run whose V has missing or held-out entries."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.changed_runs import RANK, V, factors, fitted
from support.observed import entries, ratings

from dask_nmf import Run, nmf
from dask_nmf.errors import RunMismatch
from dask_nmf.results import verify
from dask_nmf.updates import forget, update

GONE = [7, 150, 3, 55, 56]
KEPT = np.setdiff1d(np.arange(200), GONE)


@pytest.mark.parametrize("beta", [2, 1])
@pytest.mark.parametrize("form", [np.asarray, entries])
def test_the_error_is_that_of_a_fit_without_the_rows(
    beta: int, form: Callable[[np.ndarray], Any], tmp_path: Path
) -> None:
    v, options = ratings((200, 20)), {"missing": "unstored" if form is entries else "nan", "beta_loss": beta}
    run = fitted(tmp_path / "run", form(v), tol=1e-6, max_iter=100, **options)
    found = forget(run, GONE, form(v))
    without = nmf(form(v[KEPT]), RANK, random_state=0, tol=1e-6, max_iter=100, **options)
    assert found.relative_error == pytest.approx(without.relative_error, rel=2e-3)
    assert [check for check in verify(run, form(v[KEPT])) if check.passed is False] == []
    forget(run, [0], form(v[KEPT]))
    assert [check for check in verify(run, form(v[KEPT[1:]])) if check.passed is False] == []


def test_means_and_weights_are_those_of_the_rows_that_are_left(tmp_path: Path) -> None:
    """A column of which all ratings are taken out has no H."""
    v = ratings((200, 20))
    v[KEPT, 4] = np.nan
    v[GONE, 4] = 2
    run = fitted(tmp_path / "run", v[:190], missing="nan")
    update(run, v[190:])
    forget(run, GONE, v)
    result, left = Run.load_result(run), v[KEPT]
    there = ~np.isnan(left)
    np.testing.assert_array_equal(result.read("column_weight"), there.sum(axis=0))
    seen = np.arange(20) != 4
    np.testing.assert_allclose(result.read("column_mean")[seen], np.nanmean(left[:, seen], axis=0))
    np.testing.assert_allclose(result.read("row_mean"), np.nanmean(left, axis=1))
    assert not factors(run)[1][:, 4].any()
    assert result.record["measures"]["unobserved_columns"] == 1
    assert result.record["measures"]["mean"] == pytest.approx(np.nanmean(left))


def test_a_wrong_v_and_rows_alone_are_refused(tmp_path: Path) -> None:
    v = ratings((200, 20))
    run = fitted(tmp_path / "run", v, missing="nan")
    other = v.copy()
    other[5, np.isnan(v[5])] = 0
    with pytest.raises(RunMismatch, match="V is not the same in row 5"):
        forget(run, GONE, other)
    with pytest.raises(ValueError, match="because entries are missing; give all 200 rows"):
        forget(run, GONE, v[GONE])
    forget(run, GONE, v)
    with pytest.raises(RunMismatch, match="relative error"):
        forget(run, [0], v[KEPT[::-1]])


def test_held_out_entries_are_refused(tmp_path: Path) -> None:
    run = fitted(tmp_path / "run", V, validation_fraction=0.1)
    with pytest.raises(ValueError, match=r"with held-out entries, .* fit these rows anew") as refusal:
        forget(run, GONE, V)
    assert "\n" not in str(refusal.value)
