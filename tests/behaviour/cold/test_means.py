"""Cold rows and columns: means stand in for what was not observed."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import scipy.sparse
import zarr
from support.cold import COLD_COLUMN, COLD_ROWS, OPTIONS, SHAPES, Ratings, best_of, product, ratings, shapes
from support.grids import pairwise
from support.matrices import Array, dask_csr
from support.observed import held_out_entries

from dask_nmf import NMF, Means, nmf, predict, recommend, transform
from dask_nmf.kernels.summary.means import safe_divide

pytestmark = pytest.mark.usefixtures("several_panels")


def everywhere(shape: tuple[int, int]) -> tuple[Array, Array]:
    """The rows and columns of all cells."""
    rows, columns = np.indices(shape)
    return rows.ravel(), columns.ravel()


def assert_means(found: Means | None, expected: tuple[Array, Array, float]) -> None:
    assert found is not None
    np.testing.assert_allclose(found.rows, expected[0], rtol=1e-6)
    np.testing.assert_allclose(found.columns, expected[1], rtol=1e-6)
    assert found.overall == pytest.approx(expected[2], rel=1e-6)


@pairwise(
    {
        "solver": ["hals", "mu", "sgd"],
        "stored": {"in memory": False, "in a run": True},
        "shape": SHAPES,
    }
)
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
    held = held_out_entries(shape, 0, 0.5)
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
    np.testing.assert_allclose(result.means.rows, safe_divide(totals.sum(axis=1), masses.sum(axis=1)))
    np.testing.assert_allclose(result.means.columns, safe_divide(totals.sum(axis=0), masses.sum(axis=0)))
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
