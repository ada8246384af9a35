"""Missing entries: every solver and kind of source against masked loops in NumPy."""

from functools import cache
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
import scipy.optimize
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st
from support.grids import pairwise
from support.matrices import SOURCES, Array, dask_csr, low_rank
from support.observed import (
    HOLDERS,
    ONES,
    RANK,
    SHAPES,
    arrays,
    assert_close,
    entries,
    factors,
    how,
    ratings,
    solvers,
    squares,
)
from support.strategies import chunkings, few

from dask_nmf import Result, Run, nmf
from dask_nmf.errors import DataError
from dask_nmf.kernels.blocks import masked, row_batches
from dask_nmf.sources.registry import open_matrix

CHUNKED: dict[str, Any] = {"max_iter": 3, "random_state": 5, "validation_fraction": 0.1, "alpha_W": 0.01}
pytestmark = pytest.mark.usefixtures("several_panels")


def turns_taken(first: int) -> list[Any]:
    """Return every kind with one of the shapes, in turns."""
    both = list(SHAPES)
    return [
        pytest.param(kind, SHAPES[both[number % 2]], id=f"{kind}-{both[number % 2]}")
        for number, kind in enumerate(HOLDERS, first)
    ]


def masked_mu(v: Array, W: Array, H: Array, passes: int, alphas: tuple[float, float]) -> Any:
    """Lee & Seung's steps where a mask is on V and on W H, with L2 penalties."""
    there, w, h = ~np.isnan(v), W, H
    v = np.nan_to_num(v)
    for _ in range(passes):
        w = w * (v @ h.T) / ((there * (w @ h)) @ h.T + alphas[0] * there.sum(axis=1)[:, None] * w)
        h = h * (w.T @ v) / (w.T @ (there * (w @ h)) + alphas[1] * there.sum(axis=0) * h)
    return w, h


@pytest.mark.parametrize(("kind", "shape"), turns_taken(0))
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


@pytest.mark.parametrize(("kind", "shape"), turns_taken(1))
def test_hals_is_the_same_from_every_source(shape: tuple[int, int], kind: str, tmp_path: Path) -> None:
    v = ratings(shape)
    matrix = open_matrix(HOLDERS[kind](v, tmp_path / "v"))
    result = nmf(matrix, RANK, missing=how(kind), max_iter=4)
    same = open_matrix(v, orientation=matrix.orientation)
    assert_close(nmf(same, RANK, missing="nan", max_iter=4), result)
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


@pairwise({"missing": ["nan", "unstored"], "solver": ["hals", "mu"], "shape": SHAPES})
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


@pytest.mark.parametrize(("solver", "passes"), [("hals", 100), ("mu", 100)])
def test_a_planted_matrix_is_found_with_60_percent_missing(solver: str, passes: int) -> None:
    true = low_rank(120, 50, RANK, noise=0)
    v = np.where(np.random.default_rng(1).random(true.shape) < 0.6, np.nan, true)
    more = {"inner_iter": 10} if solver == "mu" else {}
    w, h = arrays(nmf(v, RANK, solver=solver, missing="nan", max_iter=passes, tol=1e-7, **more))
    assert np.linalg.norm(w @ h - true) < 1e-2 * np.linalg.norm(true)


@pairwise({"factor": [1e-4, 1e4], "solver": ["hals", "mu"], "shape": SHAPES})
def test_scale_of_v_is_only_a_scale(factor: float, solver: str, shape: tuple[int, int]) -> None:
    v, alpha = ratings(shape), 0.02
    asked: dict[str, Any] = {"solver": solver, "missing": "nan", "max_iter": 4}
    one, scaled = (nmf(c * v, RANK, alpha_W=c * alpha, alpha_H=c * alpha / 2, **asked) for c in (1, factor))
    np.testing.assert_allclose(scaled.error_history, one.error_history, rtol=1e-6)
    products = [w @ h for w, h in (arrays(one), arrays(scaled))]
    np.testing.assert_allclose(products[1] / factor, products[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "solver", "shape"),
    [
        ("numpy", "hals", SHAPES["tall"]),
        ("numpy", "mu", SHAPES["wide"]),
        ("csr in zarr", "hals", SHAPES["wide"]),
        ("csc in zarr", "mu", SHAPES["tall"]),
    ],
)
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
    told = Run.load(store).summary()
    assert (told["unobserved_rows"], told["unobserved_columns"]) == (3, 2)


def test_weights_stored_the_other_way_are_refused(tmp_path: Path) -> None:
    weights = SOURCES["csc in zarr"](ONES, tmp_path / "weights")
    with pytest.raises(DataError, match=r"weights.*cut the other way; store it as a csr_matrix"):
        nmf(ONES, RANK, weights=weights)


def test_strips_are_no_smaller_for_a_higher_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    turned = masked.Cells.transpose

    def counted(self: Any) -> Any:
        calls.append(len(self.values))
        return turned(self)

    monkeypatch.setattr(masked.Cells, "transpose", counted)
    monkeypatch.setattr(masked, "PIECE_GRAMS", 100)
    monkeypatch.setattr(row_batches, "STRIP_CELLS", 10_000)
    nmf(entries(ratings((60, 25))), 8, missing="unstored", max_iter=1, tol=0, init="random", random_state=1)
    assert max(calls) > 100  # cells whose columns are looked at together: a panel, whatever the rank
