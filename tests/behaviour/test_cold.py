"""Rows and columns of which a fit observed nothing: means stand in for them, and are told from the model."""

from __future__ import annotations

import pickle
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import dask.array as da
import numpy as np
import pytest
import scipy.sparse
import zarr
from distributed import Client
from hypothesis import given
from hypothesis import strategies as st
from support.command import Forks, assert_refused
from support.matrices import Array, dask_csr

from dask_nmf import NMF, Means, Result, nmf, predict, recommend, rng, transform
from dask_nmf.errors import DataError, InvalidRunError
from dask_nmf.inference.predict import predict_to
from dask_nmf.inference.recommend import _marked, _unpacked, recommend_to
from dask_nmf.inference.transform import transform_to
from dask_nmf.kernels.summary.means import SOURCES, divided
from dask_nmf.runs.run import Run

pytestmark = pytest.mark.usefixtures("several_panels")
SHAPES = {"tall": (60, 25), "wide": (25, 60)}
COLD_ROWS, COLD_COLUMN = [5, 9], 7
OPTIONS: dict[str, Any] = {"n_components": 3, "missing": "nan", "alpha_W": 0.05, "max_iter": 4}
shapes = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)


class Ratings(NamedTuple):
    """Ratings from 0.5 to 5, of which some are known; none of some rows, and of a column."""

    values: Array
    known: Array

    @property
    def v(self) -> Array:
        return np.where(self.known, self.values, np.nan)

    def means(self, known: Array) -> tuple[Array, Array, float]:
        """Of rows, of columns and of all, as NumPy has them."""
        seen = np.ma.masked_array(self.values.astype(np.float64), ~known)
        sides = (seen.mean(axis=axis).filled(np.nan) for axis in (1, 0))
        return *sides, float(seen.mean())  # type: ignore[return-value]

    def predicted(self, wh: Array, known: Array) -> Array:
        """What is to be predicted for every cell."""
        rows, columns, everything = self.means(known)
        filled = wh.astype(np.float64)
        cold = np.isnan(columns)
        filled[:, cold] = rows[:, None]
        filled[np.isnan(rows)] = np.where(cold, everything, columns)
        return filled


def ratings(shape: tuple[int, int]) -> Ratings:
    random = np.random.default_rng(0)
    values = random.gamma(2, size=(shape[0], 3)) @ random.gamma(2, size=(3, shape[1])) / 4
    known = random.random(shape) < 0.4
    known[COLD_ROWS], known[:, COLD_COLUMN] = False, False
    return Ratings(np.clip(values, 0.5, 5).astype(np.float32), known)


def everywhere(shape: tuple[int, int]) -> tuple[Array, Array]:
    """The rows and columns of all cells."""
    rows, columns = np.indices(shape)
    return rows.ravel(), columns.ravel()


def product(result: Result) -> Array:
    return np.asarray(result.W) @ np.asarray(result.H)


def assert_means(found: Means | None, expected: tuple[Array, Array, float]) -> None:
    assert found is not None
    np.testing.assert_allclose(found.rows, expected[0], rtol=1e-6)
    np.testing.assert_allclose(found.columns, expected[1], rtol=1e-6)
    assert found.overall == pytest.approx(expected[2], rel=1e-6)


@shapes
@pytest.mark.parametrize("solver", ["hals", "mu", "sgd"])
@pytest.mark.parametrize("stored", [False, True], ids=["in memory", "in a run"])
def test_a_mean_stands_in_for_what_was_not_observed(
    shape: tuple[int, int], solver: str, stored: bool, tmp_path: Path
) -> None:
    given_v = ratings(shape)
    store = tmp_path / "run.zarr" if stored else None
    result = nmf(given_v.v, solver=solver, store=store, **OPTIONS)
    assert_means(result.means, given_v.means(given_v.known))
    expected = given_v.predicted(product(result), given_v.known)
    found = predict(result.W, result.H, *everywhere(shape), means=result.means).reshape(shape)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    clipped = predict(result.W, result.H, *everywhere(shape), means=result.means, clip=(1, 3))
    np.testing.assert_allclose(clipped.reshape(shape), np.clip(expected, 1, 3), rtol=1e-5)


UNSTORED = {
    "csr": scipy.sparse.csr_array,
    "dask csr": lambda v: dask_csr(v, scipy.sparse.csr_array),
}


@shapes
@pytest.mark.parametrize("kind", UNSTORED)
def test_what_a_sparse_v_does_not_store_is_not_observed(shape: tuple[int, int], kind: str) -> None:
    given_v = ratings(shape)
    v = UNSTORED[kind](np.where(given_v.known, given_v.values, 0))
    result = nmf(v, **{**OPTIONS, "missing": "unstored"})
    assert_means(result.means, given_v.means(given_v.known))


@shapes
def test_what_is_held_out_is_not_observed(shape: tuple[int, int], tmp_path: Path) -> None:
    given_v = ratings(shape)
    held = rng.of_entries(0, rng.HELD_OUT, *everywhere(shape)).reshape(shape) < 0.5
    alone = int(np.flatnonzero((held & given_v.known).any(axis=1))[0])
    given_v.known[alone] &= held[alone]  # what this row has is held out: for the fit it is cold
    result = nmf(given_v.v, validation_fraction=0.5, store=tmp_path / "run.zarr", **OPTIONS)
    observed = given_v.known & ~held
    assert not observed[alone].any()
    assert_means(result.means, given_v.means(observed))
    found = predict(result.W, result.H, *everywhere(shape), means=result.means).reshape(shape)
    np.testing.assert_allclose(found, given_v.predicted(product(result), observed), rtol=1e-5)


@shapes
def test_means_have_the_weights_of_the_entries_and_weight_0_is_not_observed(shape: tuple[int, int]) -> None:
    given_v = ratings(shape)
    weights = np.where(given_v.known, np.random.default_rng(1).integers(1, 4, shape), 0).astype(float)
    values = given_v.values.astype(np.float64)
    result = nmf(values, 3, weights=weights, max_iter=2)
    assert result.means is not None
    totals, masses = (weights * values), weights
    np.testing.assert_allclose(result.means.rows, divided(totals.sum(axis=1), masses.sum(axis=1)))
    np.testing.assert_allclose(result.means.columns, divided(totals.sum(axis=0), masses.sum(axis=0)))
    assert result.means.overall == pytest.approx(np.average(values, weights=weights))


def test_a_factor_that_a_penalty_made_zero_is_the_answer_of_the_model() -> None:
    given_v = ratings((60, 25))
    result = nmf(given_v.v, 3, missing="nan", alpha_W=1e4, l1_ratio=1.0, max_iter=2)
    assert not np.asarray(result.W).any()
    found = predict(result.W, result.H, [0, COLD_ROWS[0]], [0, 0], means=result.means)
    assert found.tolist() == pytest.approx([0, given_v.means(given_v.known)[1][0]], rel=1e-6)


def test_a_fit_that_observes_everything_has_no_means(tmp_path: Path) -> None:
    result = nmf(ratings((60, 25)).values, 3, max_iter=1, store=tmp_path / "run.zarr")
    assert result.means is None
    assert "row_mean" not in zarr.open_group(tmp_path / "run.zarr", mode="r")


def test_unseen_users_and_items_cost_no_more_than_their_means(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    values = np.clip(random.gamma(2, size=(300, 2)) @ random.gamma(2, size=(2, 60)) / 3, 0.5, 5)
    known, test = random.random((300, 60)) < 0.3, random.random((300, 60)) < 0.1
    known[:30], known[:, :6] = False, False  # a tenth of the users and of the items are new
    test &= ~known
    v = np.where(known, values, np.nan)
    result = nmf(v, 2, missing="nan", alpha_W=0.02)
    rows, columns = np.nonzero(test)

    def error(**options: Any) -> float:
        found = predict(result.W, result.H, rows, columns, **options)
        return float(np.sqrt(np.mean((found - values[test]) ** 2)))

    model = product(result)
    expected = Ratings(values, known).predicted(model, known)
    assert error(means=result.means) == pytest.approx(
        np.sqrt(np.mean((expected - values)[test] ** 2)), rel=1e-9
    )
    with pytest.warns(UserWarning, match=r"0 throughout for \d+ of \d+ cells, first for row 0"):
        blind = error()
    assert error(means=result.means) < 0.7 * blind


def best_of(given_v: Ratings, wh: Array, count: int) -> tuple[Array, Array]:
    """The best columns of each row by a sort of all values: none that are cold, nor what V has."""
    values = given_v.predicted(wh, given_v.known)
    values[given_v.known] = -1
    values[:, COLD_COLUMN] = -1
    order = np.argsort(-values, axis=1, kind="stable")[:, :count]
    best = np.take_along_axis(values, order, axis=1)
    return np.where(best < 0, -1, order), np.where(best < 0, np.nan, best)


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
    marks = _marked((np.array(part, np.int64) for part in parts), size)
    first, last = sorted(data.draw(st.tuples(st.integers(0, size), st.integers(0, size))))
    everything = np.isin(np.arange(size), [row for part in parts for row in part])
    np.testing.assert_array_equal(_unpacked(marks, first, last), everything[first:last])


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


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with v.zarr, its run, and pairs.csv."""
    given_v = ratings((60, 25))
    stored = zarr.create_array(tmp_path / "v.zarr", shape=(60, 25), chunks=(20, 25), dtype=np.float32)
    stored[:] = given_v.v
    nmf(str(tmp_path / "v.zarr"), store=tmp_path / "run.zarr", **OPTIONS)
    (tmp_path / "pairs.csv").write_text(f"column,row\n0,0\n0,5\n{COLD_COLUMN},0\n{COLD_COLUMN},5\n")
    return tmp_path


def lines(path: Path) -> list[tuple[int, int, float, str]]:
    head, *rest = (line.split(",") for line in path.read_text().splitlines())
    assert head == ["row", "column", "value", "source"]
    return [(int(row), int(column), float(value), source) for row, column, value, source in rest]


def test_the_command_predicts_and_recommends_marked_means(folder: Path, forks: Forks) -> None:
    done = forks.call(["predict", "run.zarr", "pairs.csv", "--output", "out.csv", "--clip", 1, 3], folder)
    assert done.returncode == 0, done.stderr
    given_v = ratings((60, 25))
    run = zarr.open_group(folder / "run.zarr", mode="r")
    wh = run["W"][:] @ run["H"][:]
    expected = np.clip(given_v.predicted(wh, given_v.known), 1, 3)
    found = lines(folder / "out.csv")
    cells = [(0, 0), (5, 0), (0, COLD_COLUMN), (5, COLD_COLUMN)]
    assert [line[:2] for line in found] == cells
    assert [line[2] for line in found] == pytest.approx([expected[cell] for cell in cells], rel=1e-5)
    assert (
        [line[3] for line in found]
        == ["model", "column_mean", "row_mean", "overall_mean"]
        == [SOURCES[number] for number in (0, 2, 1, 3)]
    )

    (folder / "rows.csv").write_text("name\tROW\nx\t9\ny\t3\nz\t9\n")
    words = ["recommend", "run.zarr", "v.zarr", "--top", 4, "--output", "out.csv", "--overwrite", "--rows"]
    done = forks.call((*words, "rows.csv", "--workers", 1), folder)
    assert (done.returncode, done.stdout) == (0, "out.csv: 8 values\n"), done.stderr
    columns, values = best_of(given_v, wh, 4)
    found = lines(folder / "out.csv")
    assert [line[0] for line in found] == [3] * 4 + [9] * 4
    assert [line[1] for line in found] == [*columns[3], *columns[9]]
    assert [line[2] for line in found] == pytest.approx([*values[3], *values[9]], rel=1e-5)
    assert [line[3] for line in found] == ["model"] * 4 + ["column_mean"] * 4

    left = {path.name for path in folder.iterdir()}
    for text, told in (
        ("3\n60\n", "line 2: row 60 is outside"),
        ("user\n3\n", "line 1: 'user' does not name row"),
    ):
        (folder / "rows.csv").write_text(text)
        refused = forks.call((*words, "rows.csv", "--workers", 1), folder)
        assert_refused(refused, 3, told, folder=folder, left=left)
    refused = forks.call((*words[:-1], "--clip", 5, 1), folder)
    assert_refused(refused, 2, "clip is 5 to 1", folder=folder, left=left)


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
    recommend_to(str(tmp_path / "run.zarr"), v, 2, str(output), False, lambda _: nullcontext(), clip)
    table = np.loadtxt(output, delimiter=",", skiprows=1)
    np.testing.assert_array_equal(table[:, 1], found.columns[found.columns >= 0])


def test_predict_without_means_warns_of_rows_and_columns_that_are_0() -> None:
    result = nmf(ratings((60, 25)).v, **OPTIONS)
    for row, column in ((COLD_ROWS[0], 0), (0, COLD_COLUMN)):
        told = f"0 throughout for 1 of 2 cells, first for row {row}, column {column}.*means=result.means"
        with pytest.warns(UserWarning, match=told) as warned:
            found = predict(result.W, result.H, [0, row], [0, column])
        assert found[1] == 0
        assert warned[0].filename == __file__
    assert predict(result.W, result.H, [0], [0])[0] > 0
    disjoint = predict(np.eye(2), np.eye(2), [0], [1])  # of rows and columns that are known
    assert disjoint.tolist() == [0]


@shapes
@pytest.mark.parametrize("stored", [False, True], ids=["in memory", "in a run"])
def test_an_estimator_has_the_means_of_its_fit(shape: tuple[int, int], stored: bool, tmp_path: Path) -> None:
    given_v, store = ratings(shape), tmp_path / "run.zarr" if stored else None
    model = NMF(3, missing="nan", max_iter=4, tol=0, random_state=0, store=store)
    w = model.fit_transform(given_v.v)
    models = [model, pickle.loads(pickle.dumps(model)), *([NMF.load(store)] if stored else [])]
    for one in models:
        assert_means(one.means_, given_v.means(given_v.known))
        found = predict(w, one.components_, *everywhere(shape), means=one.means_)
        expected = given_v.predicted(w @ one.components_, given_v.known)
        np.testing.assert_allclose(found.reshape(shape), expected, rtol=1e-5)
        best = recommend(given_v.v, w, one.components_, 3, "nan", means=one.means_)
        np.testing.assert_array_equal(best.columns, best_of(given_v, w @ one.components_, 3)[0])
    assert model.inverse_transform(w)[COLD_ROWS[0]].tolist() == [0] * shape[1]  # it is W H
    assert model.partial_fit(given_v.v).means_ is None
    assert NMF(2, random_state=0).fit(given_v.values).means_ is None


def test_an_estimator_has_the_means_of_weighted_entries() -> None:
    given_v = ratings((60, 25))
    model = NMF(2, max_iter=9, tol=0, random_state=0).fit(given_v.values, weights=given_v.known)
    assert_means(model.means_, given_v.means(given_v.known))


@pytest.mark.parametrize("by_columns", [False, True])
def test_transform_gives_the_means_of_new_rows_beside_those_of_the_fit(by_columns: bool) -> None:
    fitted, new = ratings((60, 25)), ratings((40, 25))
    result = nmf(fitted.v, **OPTIONS)
    v = da.from_array(new.v, chunks=(40, 5)) if by_columns else new.v
    assert result.means is not None
    found = transform(v, result.H, missing="nan", alpha_W=0.05, means=result.means)
    assert isinstance(found, tuple)
    w, means = found
    np.testing.assert_array_equal(w, transform(v, result.H, missing="nan", alpha_W=0.05))
    rows, columns = new.means(new.known)[0], fitted.means(fitted.known)[1]
    assert_means(means, (rows, columns, result.means.overall))
    value = predict(w, result.H, [COLD_ROWS[0]], [0], means=means)
    np.testing.assert_allclose(value, columns[:1], rtol=1e-6)
    with pytest.raises(ValueError, match="every entry of V counts"):
        transform(new.values, result.H, means=result.means)
    with pytest.raises(ValueError, match=r"means are of \(40,\) columns and V has 25"):
        transform(new.v, result.H, missing="nan", means=Means(columns, rows, 1.0))


def test_lost_means_are_missed(folder: Path) -> None:
    (lost,) = (folder / "run.zarr" / "data").glob("answer-*/row_mean/c/0")
    lost.unlink()
    with pytest.raises(InvalidRunError, match=r"damaged: .*row_mean"):
        predict_to(*(str(folder / name) for name in ("run.zarr", "pairs.csv", "out.csv")), False)


@pytest.mark.parametrize("by_columns", [False, True])
def test_transform_tells_which_new_rows_are_cold(by_columns: bool, folder: Path) -> None:
    given_v = ratings((40, 25))
    v: Any = np.asfortranarray(given_v.v) if by_columns else given_v.v
    if by_columns:
        v = da.from_array(given_v.v, chunks=(40, 5))
    transform_to(str(folder / "run.zarr"), v, str(folder / "w.zarr"), False, lambda _: nullcontext())
    group = zarr.open_group(folder / "w.zarr", mode="r")
    means = np.asarray(group["row_mean"])
    np.testing.assert_allclose(means, given_v.means(given_v.known)[0], rtol=1e-6)
    assert np.flatnonzero(np.isnan(means)).tolist() == COLD_ROWS
    run = Run.load_answer(str(folder / "run.zarr"))
    np.testing.assert_allclose(
        group["W"], transform(v, run.read("H"), missing="nan", alpha_W=0.05), atol=1e-6
    )
    assert run.means is not None
    known = Means(means, run.means.columns, run.means.overall)
    value = predict(group["W"], run.factors[1], [COLD_ROWS[0]], [0], means=known)
    np.testing.assert_allclose(value, run.means.columns[:1])


def test_a_table_of_rows_has_one_number_a_line(folder: Path) -> None:
    (folder / "rows.csv").write_text("1,2\n")
    with pytest.raises(DataError, match="'1,2' is no integer; write row, counted from 0"):
        recommend_to(
            str(folder / "run.zarr"), str(folder / "v.zarr"), 2, str(folder / "out.csv"), False,
            lambda _: nullcontext(), rows=str(folder / "rows.csv"),
        )  # fmt: skip
