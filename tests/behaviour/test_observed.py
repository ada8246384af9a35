"""Missing and weighted entries: every solver and kind of source against masked loops in NumPy."""

from functools import cache
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
import scipy.optimize
import scipy.sparse
from distributed import Client
from hypothesis import given
from hypothesis import strategies as st
from support.matrices import SOURCES, Array, dask_csr, low_rank
from support.observed import HOLDERS, RANK, entries, how, ratings
from support.strategies import chunkings, few

from dask_nmf import Result, Run, nmf, transform
from dask_nmf.errors import DataError, InvalidEntryError
from dask_nmf.kernels.blocks import masked, masking
from dask_nmf.sources.registry import open_matrix

SHAPES = {"tall": (60, 25), "wide": (25, 60)}
CHUNKED: dict[str, Any] = {"max_iter": 3, "random_state": 5, "validation_fraction": 0.1, "alpha_W": 0.01}

pytestmark = pytest.mark.usefixtures("several_panels")
shapes = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
solvers = pytest.mark.parametrize("solver", ["hals", "mu"])


@pytest.fixture(autouse=True)
def several_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    """A panel is looked at in several strips."""
    monkeypatch.setattr(masking, "STRIP_CELLS", 500)


kinds = pytest.mark.parametrize("kind", HOLDERS)


def factors(shape: tuple[int, int]) -> dict[str, Array]:
    random = np.random.default_rng(1)
    return {"W": random.random((shape[0], RANK)) + 0.1, "H": random.random((RANK, shape[1])) + 0.1}


def arrays(result: Result) -> tuple[Array, Array]:
    return dask.compute(result.W, result.H)


def assert_close(one: Result, other: Result, rounding: float = 1e-6) -> None:
    for mine, theirs in zip(arrays(one), arrays(other), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=rounding, atol=1e-9)


def squares(v: Array, w: Array, h: Array, weights: Array | float = 1.0) -> Array:
    """ω (v − w h)² of every entry, 0 where it is missing."""
    return np.nan_to_num(weights * (v - w @ h) ** 2)


def masked_mu(v: Array, W: Array, H: Array, passes: int, alphas: tuple[float, float]) -> Any:
    """Lee & Seung's steps where a mask is on V and on W H, with L2 penalties."""
    there, w, h = ~np.isnan(v), W, H
    v = np.nan_to_num(v)
    for _ in range(passes):
        w = w * (v @ h.T) / ((there * (w @ h)) @ h.T + alphas[0] * there.sum(axis=1)[:, None] * w)
        h = h * (w.T @ v) / (w.T @ (there * (w @ h)) + alphas[1] * there.sum(axis=0) * h)
    return w, h


@kinds
@shapes
def test_mu_follows_the_masked_loop(shape: tuple[int, int], kind: str, tmp_path: Path) -> None:
    v, start, alphas = ratings(shape), factors(shape), (0.02, 0.01)
    result = nmf(
        HOLDERS[kind](v, tmp_path / "v"),
        RANK,
        solver="mu",
        init="custom",
        missing=how(kind),
        alpha_W=alphas[0],
        alpha_H=alphas[1],
        max_iter=3,
        tol=0,
        **start,
    )
    for mine, theirs in zip(arrays(result), masked_mu(v, **start, passes=3, alphas=alphas), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-10)


@kinds
@shapes
def test_hals_is_the_same_from_every_source(shape: tuple[int, int], kind: str, tmp_path: Path) -> None:
    v = ratings(shape)
    matrix = open_matrix(HOLDERS[kind](v, tmp_path / "v"))
    result = nmf(matrix, RANK, missing=how(kind), max_iter=4)
    assert_close(nmf(open_matrix(v, transposed=matrix.transposed), RANK, missing="nan", max_iter=4), result)
    w, h = arrays(result)
    assert min(w.min(), h.min()) >= 0
    assert result.reconstruction_err == pytest.approx(np.sqrt(squares(v, w, h).sum()), rel=1e-9)
    assert result.relative_error == pytest.approx(
        result.reconstruction_err / np.sqrt(np.nansum(v**2)), rel=1e-9
    )
    assert np.all(np.diff(result.error_history) <= 1e-9)
    assert result.relative_error <= result.error_history[-1] * (1 + 1e-9)


def test_each_row_of_w_is_the_masked_least_squares_solution() -> None:
    v = ratings((60, 25))
    w, h = arrays(nmf(v, RANK, missing="nan", max_iter=2))
    for row, ours in zip(v, w, strict=True):
        there = ~np.isnan(row)
        np.testing.assert_allclose(ours, scipy.optimize.nnls(h[:, there].T, row[there])[0], atol=1e-4)


@pytest.mark.parametrize("kind", ["numpy", "csr_array"])
@solvers
def test_float32_is_nearly_float64(solver: str, kind: str, tmp_path: Path) -> None:
    v = ratings((60, 25))
    narrow, wide = (
        nmf(HOLDERS[kind](v, tmp_path), RANK, solver=solver, missing=how(kind), dtype=dtype, max_iter=3)
        for dtype in ("float32", "float64")
    )
    assert narrow.W.dtype == narrow.H.dtype == np.float32
    np.testing.assert_allclose(narrow.error_history, wide.error_history, rtol=1e-3)


@cache
def whole_fit(solver: str, shape: tuple[int, int], missing: str) -> Result:
    v, weights = ratings(shape), np.random.default_rng(2).random(shape)
    held = v if missing == "nan" else entries(v)
    return nmf(held, RANK, weights=weights, solver=solver, missing=missing, **CHUNKED)


@pytest.mark.parametrize("missing", ["nan", "unstored"])
@shapes
@solvers
@few
@given(data=st.data())
def test_result_does_not_depend_on_chunking(
    missing: str, solver: str, shape: tuple[int, int], data: st.DataObject
) -> None:
    v = ratings(shape)
    weights = np.random.default_rng(2).random(shape)
    chunks = [data.draw(chunkings(shape)) for _ in "vw"]
    cut = da.from_array(v, chunks=chunks[0]) if missing == "nan" else dask_csr(v, entries, chunks[0])
    cut_weights = da.from_array(weights, chunks=chunks[1])
    result = nmf(cut, RANK, weights=cut_weights, solver=solver, missing=missing, **CHUNKED)
    whole = whole_fit(solver, shape, missing)
    assert_close(result, whole)
    assert result.validation_error == pytest.approx(whole.validation_error, rel=1e-6)


@solvers
def test_result_does_not_depend_on_the_scheduler(solver: str, request: pytest.FixtureRequest) -> None:
    v, weights = ratings((60, 25)), np.random.default_rng(2).random((60, 25))
    asked: dict[str, Any] = {"solver": solver, "missing": "nan", "max_iter": 4, "validation_fraction": 0.1}
    with dask.config.set(scheduler="synchronous"):
        here = nmf(v, RANK, weights=weights, **asked)
    request.getfixturevalue("client")
    assert_close(nmf(v, RANK, weights=weights, **asked), here, 1e-7)
    sparse = nmf(entries(v), RANK, weights=weights, **{**asked, "missing": "unstored"})
    assert_close(sparse, here, 1e-7)


@pytest.mark.parametrize("make", [np.asarray, scipy.sparse.csr_array], ids=["dense", "csr"])
@shapes
@solvers
def test_weight_zero_is_missing(solver: str, shape: tuple[int, int], make: Any) -> None:
    v = ratings(shape)
    there = make((~np.isnan(v)).astype(float))
    asked: dict[str, Any] = {"solver": solver, "max_iter": 4, "alpha_W": 0.01}
    assert_close(
        nmf(np.nan_to_num(v, nan=99.0), RANK, weights=there, **asked), nmf(v, RANK, missing="nan", **asked)
    )


@shapes
@solvers
def test_a_constant_weight_changes_only_the_loss(solver: str, shape: tuple[int, int]) -> None:
    v, weights = ratings(shape), np.random.default_rng(2).random(shape)
    asked: dict[str, Any] = {"solver": solver, "missing": "nan", "max_iter": 4, "alpha_W": 0.01}
    one, four = (nmf(v, RANK, weights=factor * weights, **asked) for factor in (1, 4))
    assert_close(one, four)
    np.testing.assert_allclose(one.error_history, four.error_history, rtol=1e-9)
    assert four.reconstruction_err == pytest.approx(2 * one.reconstruction_err, rel=1e-9)
    w, h = arrays(one)
    assert one.reconstruction_err == pytest.approx(np.sqrt(squares(v, w, h, weights).sum()), rel=1e-9)


@solvers
def test_the_weight_of_a_row_is_how_often_it_is_there(solver: str) -> None:
    v, start = low_rank(60, 25, RANK, noise=1), factors((60, 25))
    often = np.random.default_rng(3).integers(0, 4, 60)
    asked: dict[str, Any] = {"solver": solver, "init": "custom", "max_iter": 3, "tol": 0}
    weighted = nmf(v, RANK, weights=np.tile(often[:, None], (1, 25)), H=start["H"], **asked)
    repeated = nmf(np.repeat(v, often, axis=0), RANK, H=start["H"], **asked)
    np.testing.assert_allclose(weighted.H, repeated.H, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(weighted.error_history, repeated.error_history, rtol=1e-9)
    np.testing.assert_array_equal(weighted.W.compute()[often == 0], 0)


@pytest.mark.parametrize(("solver", "passes"), [("hals", 100), ("mu", 100)])
def test_a_planted_matrix_is_found_with_60_percent_missing(solver: str, passes: int) -> None:
    true = low_rank(120, 50, RANK, noise=0)
    v = np.where(np.random.default_rng(1).random(true.shape) < 0.6, np.nan, true)
    more = {"inner_iter": 10} if solver == "mu" else {}
    w, h = arrays(nmf(v, RANK, solver=solver, missing="nan", max_iter=passes, tol=1e-7, **more))
    assert np.linalg.norm(w @ h - true) < 1e-2 * np.linalg.norm(true)


@shapes
@solvers
@pytest.mark.parametrize("factor", [1e-4, 1e4])
def test_scale_of_v_is_only_a_scale(factor: float, solver: str, shape: tuple[int, int]) -> None:
    v, alpha = ratings(shape), 0.02
    asked: dict[str, Any] = {"solver": solver, "missing": "nan", "max_iter": 4}
    one, scaled = (nmf(c * v, RANK, alpha_W=c * alpha, alpha_H=c * alpha / 2, **asked) for c in (1, factor))
    np.testing.assert_allclose(scaled.error_history, one.error_history, rtol=1e-6)
    products = [w @ h for w, h in (arrays(one), arrays(scaled))]
    np.testing.assert_allclose(products[1] / factor, products[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "solver"), [("numpy", "hals"), ("numpy", "mu"), ("csr in zarr", "hals"), ("csc in zarr", "mu")]
)
@shapes
def test_what_is_not_observed_gets_zero_factors(
    solver: str, shape: tuple[int, int], kind: str, tmp_path: Path
) -> None:
    v = ratings(shape)
    v[[3, -1, 8]], v[:, [5, -2]] = np.nan, np.nan
    store = tmp_path / "run.zarr"
    result = nmf(
        HOLDERS[kind](v, tmp_path / "v"),
        RANK,
        solver=solver,
        missing=how(kind),
        alpha_W=0.01,
        max_iter=4,
        store=store,
    )
    w, h = arrays(result)
    np.testing.assert_array_equal(np.flatnonzero(~w.any(axis=1)), [3, 8, shape[0] - 1])
    np.testing.assert_array_equal(np.flatnonzero(~h.any(axis=0)), [5, shape[1] - 2])
    told = Run.load(str(store)).summary()
    assert (told["unobserved_rows"], told["unobserved_columns"]) == (3, 2)


@pytest.mark.parametrize("kind", ["numpy", "dask of csr", "csr in zarr", "csc in zarr"])
@shapes
def test_new_rows_with_missing_entries(shape: tuple[int, int], kind: str, tmp_path: Path) -> None:
    v, h = ratings(shape), factors(shape)["H"]
    w = transform(HOLDERS[kind](v, tmp_path / "v"), h, missing=how(kind), alpha_W=0.05)
    assert w is not None
    for row, ours in zip(v, w.compute(), strict=True):
        there = ~np.isnan(row)
        ridge = np.sqrt(0.05 * there.sum()) * np.eye(RANK)
        theirs = scipy.optimize.nnls(
            np.vstack([h[:, there].T, ridge]), np.concatenate([row[there], np.zeros(RANK)])
        )[0]
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_weights_of_new_rows() -> None:
    v, h = ratings((60, 25)), factors((60, 25))["H"]
    there = ~np.isnan(v)
    by_weight = transform(np.nan_to_num(v), h, weights=there.astype(float))
    assert by_weight is not None
    np.testing.assert_allclose(by_weight, transform(v, h, missing="nan"), rtol=1e-5, atol=1e-7)


def bad(value: float, at: tuple[int, int] = (21, 17), shape: tuple[int, int] = (60, 25)) -> Array:
    v = ratings(shape)
    v[at] = value
    return v


@pytest.mark.parametrize("kind", ["numpy", "dask", "csr_array", "csc in zarr"])
@pytest.mark.parametrize("value", [np.inf, -0.25])
@shapes
def test_a_bad_entry_among_missing_ones_is_named(
    shape: tuple[int, int], value: float, kind: str, tmp_path: Path
) -> None:
    held = HOLDERS[kind](bad(value, shape=shape), tmp_path / "v")
    with pytest.raises(InvalidEntryError, match=f"V has {value} at row 21, column 17"):
        nmf(held, RANK, missing=how(kind), store=tmp_path / "run.zarr")
    assert not (tmp_path / "run.zarr").exists()
    with pytest.raises(InvalidEntryError, match="row 21, column 17"):
        transform(held, factors(shape)["H"], missing=how(kind))


@pytest.mark.parametrize("make", [np.asarray, scipy.sparse.csr_array], ids=["dense", "csr"])
@pytest.mark.parametrize("value", [-0.5, np.nan, np.inf])
@shapes
def test_a_bad_weight_is_named(shape: tuple[int, int], value: float, make: Any) -> None:
    weights = np.ones(shape)
    weights[21, 17] = value
    with pytest.raises(DataError, match=f"weights has {value} at row 21, column 17.*finite and ≥ 0"):
        nmf(low_rank(*shape, RANK), RANK, weights=make(weights))


ONES = np.ones((60, 25))
REFUSED: dict[str, tuple[Any, dict[str, Any], str]] = {
    "NaN": (bad(np.nan), {}, "V has nan at row"),
    "NaN that is stored": (entries(ONES) * np.nan, {"missing": "unstored"}, "V has nan at row 0, column 0"),
    "dense and unstored": (ONES, {"missing": "unstored"}, "V is dense; give a sparse V, or missing='nan'"),
    "all missing": (ONES * np.nan, {"missing": "nan"}, "no entry that counts"),
    "nothing stored": (scipy.sparse.csr_array((60, 25)), {"missing": "unstored"}, "no entry that counts"),
    "all of weight 0": (ONES, {"weights": 0 * ONES}, "no entry that counts"),
    "weights of another shape": (ONES, {"weights": ONES.T}, r"weights has shape \(25, 60\) and V \(60, 25\)"),
    "another word": (ONES, {"missing": "zero"}, "missing is 'zero'.*nan, unstored"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_refused(case: str, tmp_path: Path) -> None:
    v, options, words = REFUSED[case]
    with pytest.raises(ValueError, match=words):
        nmf(v, RANK, store=tmp_path / "run.zarr", **options)
    assert not list(tmp_path.iterdir())


def test_weights_stored_the_other_way_are_refused(tmp_path: Path) -> None:
    weights = SOURCES["csc in zarr"](ONES, tmp_path / "weights")
    with pytest.raises(DataError, match=r"weights.*cut the other way; store it as a csr_matrix"):
        nmf(ONES, RANK, weights=weights)


def test_a_cluster_takes_new_rows_with_missing_entries(client: Client) -> None:
    v, h = ratings((60, 25)), factors((60, 25))["H"]
    ours = transform(da.from_array(v, chunks=(7, 9)), h, missing="nan")
    assert ours is not None
    with dask.config.set(scheduler="synchronous"):
        theirs = transform(v, h, missing="nan")
    np.testing.assert_allclose(ours.compute(), theirs, rtol=1e-7, atol=1e-12)


WEIGHTS = {
    "ones": np.ones((60, 25)),
    "one number": np.full((60, 25), 3.0),
    "rows": np.repeat(np.arange(1.0, 61)[:, None], 25, axis=1),
    "rows and columns": np.outer(np.arange(1.0, 61), np.arange(25, 0.0, -1)),
}


@pytest.mark.parametrize("weights", WEIGHTS.values(), ids=WEIGHTS)
@solvers
def test_weights_that_are_products_are_found_and_count_as_any(solver: str, weights: Array) -> None:
    v = low_rank(60, 25, RANK)
    rule = masking.Rule(weighted=True)
    (strip, *_) = masking.strips(masking.Observed(v, weights, np.arange(60), rule))
    assert strip.cells.separable
    uneven = weights.copy()
    uneven[0, 0] *= 1 + 1e-9  # of no account, but they are products no more
    ours, theirs = (
        nmf(v, RANK, weights=own, solver=solver, max_iter=3, tol=0, alpha_W=0.01, random_state=3)
        for own in (weights, uneven)
    )
    assert_close(ours, theirs, 1e-5)
    assert ours.reconstruction_err == pytest.approx(theirs.reconstruction_err, rel=1e-6)


def test_strips_are_no_smaller_for_a_higher_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    turned = masking.Cells.transpose

    def counted(self: Any) -> Any:
        calls.append(len(self.values))
        return turned(self)

    monkeypatch.setattr(masking.Cells, "turned", counted)
    monkeypatch.setattr(masked, "PIECE_GRAMS", 100)
    monkeypatch.setattr(masking, "STRIP_CELLS", 10_000)
    nmf(entries(ratings((60, 25))), 8, missing="unstored", max_iter=1, tol=0, init="random", random_state=1)
    assert max(calls) > 100  # cells whose columns are looked at together: a panel, whatever the rank
