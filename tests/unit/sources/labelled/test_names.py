"""Names of partitions, and of stacked dimensions, which go into runs."""

from __future__ import annotations

from pathlib import Path

import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
import xarray
from support.matrices import low_rank
from support.runs import Crash, crash_after

from dask_nmf import NMF, Run, nmf, select_rank
from dask_nmf.errors import RunMismatch
from dask_nmf.sources.labelled.registry import form_of
from dask_nmf.sources.labels.names import Labels
from dask_nmf.storage.locations import locate

M, N = 12, 6
V = low_rank(M, N, 2)
INDEX = [f"row {number:02}" for number in range(M)]
FRAME = pd.DataFrame(V, INDEX)
DAYS = pd.date_range("2020-01-01", periods=M)
MOVIE = xarray.DataArray(V.reshape(M, 2, 3), {"time": DAYS, "y": [1.5, 2.5]}, ("time", "y", "x"))
TIMES = [f"2020-01-{day:02}" for day in range(1, M + 1)]
PIXELS = [f"y={y}, x={x}" for y in (1.5, 2.5) for x in range(3)]
Names = list[str] | None


def texts(labels: Labels) -> list[Names]:
    """Return the names of rows and columns."""
    return [None if side is None else list(side.read(0, len(side))) for side in (labels.rows, labels.columns)]


@pytest.mark.parametrize("fit", ["nmf", "NMF", "select_rank"])
def test_a_run_has_the_names(fit: str, tmp_path: Path) -> None:
    run = tmp_path / "run.zarr"
    if fit == "nmf":
        nmf(MOVIE.chunk(time=5), 2, max_iter=1, store=run)
    elif fit == "NMF":
        NMF(2, max_iter=1, tol=0, store=run).fit(MOVIE)
    else:
        select_rank(MOVIE, [2], n_init=1, holdout=0.2, max_iter=1, store=run)
        run = run / "fit"
    assert texts(Run.load_result(locate(run)).labels) == [TIMES, PIXELS]


def test_names_of_partitions_are_read_in_ranges() -> None:
    frame = dd.from_pandas(FRAME, npartitions=4)
    names = form_of(frame)[1].labels.rows  # type: ignore[union-attr]
    assert names is not None
    for first in range(M):
        for last in range(first + 1, M + 1):
            np.testing.assert_array_equal(names.read(first, last), INDEX[first:last])


@pytest.mark.parametrize("max_iter", [1, 3])
def test_a_run_of_the_same_values_with_other_names_is_refused(max_iter: int, tmp_path: Path) -> None:
    def fit(frame: object, **options: object) -> None:
        nmf(frame, 2, max_iter=3, tol=0, store=tmp_path / "run.zarr", **options)  # type: ignore[arg-type]

    if max_iter == 3:
        fit(FRAME)
    else:
        with pytest.raises(Crash):
            fit(FRAME, callback=crash_after(max_iter))
    renamed = FRAME.rename({"row 03": "another"})
    words = "other names: row 3 is 'another' in the index, and 'row 03' in the run; give another output"
    with pytest.raises(RunMismatch, match=words):
        fit(renamed)
    fit(FRAME)
    fit(V)  # without names nothing is compared
    fit(renamed, overwrite=True)
    assert texts(Run.load_result(tmp_path / "run.zarr").labels)[0] == list(renamed.index)


def test_a_selection_of_the_same_values_with_other_names_answers_with_these(tmp_path: Path) -> None:
    renamed = FRAME.rename({"row 03": "another"})
    for frame in (FRAME, renamed):
        select_rank(frame, [2], n_init=1, holdout=0.2, max_iter=1, store=tmp_path / "ranks.zarr")
    assert texts(Run.load_result(tmp_path / "ranks.zarr").labels)[0] == list(renamed.index)


@pytest.mark.parametrize(
    ("index", "expected"),
    [
        (["a", np.nan, None, pd.NA, b"b"], ["a", "", "", "", "b"]),
        (pd.DatetimeIndex(["2020-01-01", pd.NaT]), ["2020-01-01", ""]),
        (pd.Index([0.5, np.nan]), ["0.5", ""]),
        (pd.CategoricalIndex(["x", None]), ["x", ""]),
        (pd.MultiIndex.from_arrays([["a", "b"], [1.5, np.nan]]), ["a, 1.5", "b, "]),
    ],
)
def test_a_name_that_is_missing_is_empty(index: list[object] | pd.Index, expected: list[str]) -> None:
    frame = pd.DataFrame(np.ones((len(index), 2)), index=index)
    assert texts(form_of(frame)[1].labels)[0] == expected  # type: ignore[union-attr]
