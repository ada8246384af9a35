"""New rows get the columns of the largest means, and some rows what they get among all."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import scipy.sparse
from distributed import Client
from hypothesis import given
from hypothesis import strategies as st
from support.cold import COLD_COLUMN, COLD_ROWS, OPTIONS, best_of, product, ratings, shapes

from dask_nmf import Means, nmf, recommend
from dask_nmf.inference.recommend import ListOptions, recommend_to
from dask_nmf.inference.topk import row_marks
from dask_nmf.storage.locations import locate, locate_file

pytestmark = pytest.mark.usefixtures("several_panels")


@shapes
@pytest.mark.parametrize("stored", [False, True], ids=["in memory", "in a run"])
def test_new_rows_get_the_columns_of_the_largest_means_and_nobody_a_new_column(
    shape: tuple[int, int], stored: bool, tmp_path: Path
) -> None:
    given_v = ratings(shape)
    result = nmf(given_v.v, store=tmp_path / "run.zarr" if stored else None, **OPTIONS)
    factors = result.W, result.H, shape[1], "nan"
    found = recommend(given_v.v, *factors, means=result.means)
    columns, values = best_of(given_v, product(result), shape[1])
    np.testing.assert_allclose(found.values, values, rtol=1e-5)
    np.testing.assert_array_equal(found.columns[COLD_ROWS], columns[COLD_ROWS])
    assert COLD_COLUMN not in found.columns
    clipped = recommend(given_v.v, *factors, means=result.means, clip=(1, 2))
    np.testing.assert_array_equal(clipped.columns, found.columns)
    np.testing.assert_allclose(clipped.values, np.clip(found.values, 1, 2))


@shapes
def test_some_rows_of_a_fit_on_a_cluster(client: Client, shape: tuple[int, int]) -> None:
    given_v = ratings(shape)
    result = nmf(da.from_array(given_v.v, chunks=(20, 20)), **OPTIONS)
    rows = [COLD_ROWS[0], 0, shape[0] - 1]
    found = recommend(given_v.v, result.W, result.H, 3, "nan", means=result.means, rows=rows)
    columns, values = best_of(given_v, product(result), 3)
    np.testing.assert_array_equal(found.columns, columns[rows])
    np.testing.assert_allclose(found.values, values[rows], rtol=1e-5)


@given(data=st.data(), size=st.integers(1, 40))
def test_marks_are_those_of_a_set(data: Any, size: int) -> None:
    parts = data.draw(st.lists(st.lists(st.integers(0, size - 1))))
    marks = row_marks.mark_rows((np.array(part, np.int64) for part in parts), size)
    first, last = sorted(data.draw(st.tuples(st.integers(0, size), st.integers(0, size))))
    everything = np.isin(np.arange(size), [row for part in parts for row in part])
    np.testing.assert_array_equal(row_marks.unpack(marks, first, last), everything[first:last])


@shapes
@pytest.mark.parametrize("kind", ["dense", "csr"])
def test_rows_that_are_asked_for_get_what_they_get_among_all(shape: tuple[int, int], kind: str) -> None:
    random = np.random.default_rng(0)
    v = np.where(random.random(shape) < 0.5, random.random(shape), 0)
    w, h = random.random((shape[0], 3)), random.random((3, shape[1]))
    source = da.from_array(v, chunks=(7, 9)) if kind == "dense" else scipy.sparse.csr_array(v)
    everything = recommend(source, w, h, 4)
    for rows in ([9, 3, 9, 0], [], [shape[0] - 1]):
        found = recommend(source, w, h, 4, rows=rows)
        np.testing.assert_array_equal(found.columns, everything.columns[rows])
        np.testing.assert_allclose(found.values, everything.values[rows], rtol=1e-12)


BAD: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "clip turned": ({"clip": (5, 1)}, ValueError, "clip is 5 to 1; give the lower bound first"),
    "clip of NaN": ({"clip": (float("nan"), 1)}, ValueError, "clip is nan to 1"),
    "means of another fit": ({"means": Means(np.ones(3), np.ones(8), 1.0)}, ValueError, "means are of"),
    "a row outside": ({"rows": [0, 30]}, IndexError, "row 30 is outside of W H, 30 x 8"),
    "rows that are no integers": ({"rows": [0.5]}, ValueError, "float64 of shape"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_does_not_fit_is_refused(case: str) -> None:
    options, kind, words = BAD[case]
    with pytest.raises(kind, match=words):
        recommend(np.ones((30, 8)), np.ones((30, 2)), np.ones((2, 8)), 3, **options)


@shapes
@pytest.mark.parametrize("clip", [None, (0.5, 5.0)])
def test_a_row_of_which_nothing_is_known_gets_no_column_at_any_door(
    shape: tuple[int, int], clip: tuple[float, float] | None, tmp_path: Path
) -> None:
    v = ratings(shape).values * (np.random.default_rng(0).random(shape) < 0.3)
    v[4] = 0
    result = nmf(v, 3, max_iter=1, store=tmp_path / "run.zarr")
    found = recommend(v, result.W, result.H, 2, clip=clip)
    assert found.columns[4].tolist() == [-1, -1]
    assert np.isnan(found.values[4]).all()
    assert (found.columns[[3, 5]] >= 0).all()
    np.testing.assert_array_equal(
        recommend(v, *result, 2, clip=clip, rows=[4, 5]).columns, found.columns[4:6]
    )
    output = tmp_path / "out.csv"
    recommend_to(
        locate(tmp_path / "run.zarr"),
        v,
        ListOptions(2, clip),
        locate_file(output),
        False,
        lambda _: nullcontext(),
    )
    table = np.loadtxt(output, delimiter=",", skiprows=1)
    np.testing.assert_array_equal(table[:, 1], found.columns[found.columns >= 0])
