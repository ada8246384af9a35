"""Kernels on the cells that count, against loops over the cells."""

from itertools import product
from typing import Any

import numpy as np
import pytest
import scipy.optimize
from hypothesis import given
from hypothesis import strategies as st
from support.matrices import Array
from support.strategies import seeds

from dask_nmf.kernels import least_squares, row_sums
from dask_nmf.kernels.blocks import masked, row_batches
from dask_nmf.kernels.blocks.masked import Cells
from dask_nmf.kernels.linalg import gram_matrices, packed_grams

K = 3
TYPES = {np.float32: 1e-4, np.float64: 1e-11}  # and their rounding
types = pytest.mark.parametrize("dtype", TYPES)
weightings = pytest.mark.parametrize("weighted", [False, True], ids=["alike", "weighted"])
# Few and most of the columns: gram matrices are summed, or what is missing is taken off the whole.
densities = pytest.mark.parametrize("density", [0.2, 0.9])


def some_cells(v: Array, weights: Array, weighted: bool) -> Cells:
    """Those of positive weight."""
    counts = weights > 0
    indptr = np.concatenate([[0], np.cumsum(counts.sum(axis=1))])
    indices = np.nonzero(counts)[1].astype(np.int32)
    return Cells(v[counts], weights[counts][: None if weighted else 0], indices, indptr, v.shape[1])


def problem(
    density: float, weighted: bool, dtype: Any = np.float64, seed: int = 0
) -> tuple[Array, Array, Cells]:
    """V, the weights of its entries (0: not there) and its cells. The first row has none, the second all."""
    random = np.random.default_rng(seed)
    v = random.exponential(size=(14, 11))
    weights = (random.random(v.shape) < density).astype(float)
    weights[0], weights[1] = 0, 1
    if weighted:
        weights *= random.integers(1, 5, v.shape) / 2
    v, weights = v.astype(dtype), weights.astype(dtype)
    return v, weights, some_cells(v, weights, weighted)


def factors(dtype: Any = np.float64) -> tuple[Array, Array]:
    random = np.random.default_rng(5)
    return random.random((14, K)).astype(dtype), random.random((K, 11)).astype(dtype)


def packed(squares: Array) -> Array:
    """The lower triangles of (rows, k, k)."""
    return squares[:, *np.tril_indices(squares.shape[1])]


def loops(v: Array, weights: Array, factor: Array) -> tuple[Array, Array]:
    """The equations of each row: Σ ω v f, (rows, k), and Σ ω f fᵀ, (rows, k, k)."""
    v, weights, factor = (part.astype(np.float64) for part in (v, weights, factor))
    num = np.zeros((len(v), factor.shape[1]))
    gram = np.zeros((len(v), factor.shape[1], factor.shape[1]))
    for i, j in zip(*np.nonzero(weights), strict=True):
        num[i] += weights[i, j] * v[i, j] * factor[j]
        gram[i] += weights[i, j] * np.outer(factor[j], factor[j])
    return num, gram


@types
@weightings
@densities
@given(seed=seeds)
def test_equations_are_sums_over_the_cells(density: float, weighted: bool, dtype: Any, seed: int) -> None:
    v, weights, some = problem(density, weighted, dtype, seed)
    _, h = factors(dtype)
    num, gram = masked.normal_equations(some, h.T)
    expected = loops(v, weights, h.T)
    assert num.dtype == gram.dtype == np.float64
    np.testing.assert_allclose(num, expected[0], rtol=1e-10)
    np.testing.assert_allclose(gram, packed(expected[1]), rtol=1e-9, atol=1e-12)
    ridge = least_squares.normal_equations(some, h, 0.5)[1] - gram
    np.testing.assert_allclose(
        ridge, packed(0.5 * some.row_weight[:, None, None] * np.eye(K)), rtol=1e-6, atol=1e-12
    )


@pytest.fixture(params=list(product([0.2, 0.9], [False, True], TYPES)), ids=str)
def case(request: pytest.FixtureRequest) -> tuple[Array, Array, Cells, Array, Array]:
    """V, its weights and cells, W and H: of each density and type, with weights that are alike or not."""
    density, weighted, dtype = request.param
    return *problem(density, weighted, dtype), *factors(dtype)


def test_sums_are_those_of_the_columns(case: Any) -> None:
    v, weights, some, w, h = case
    totals = row_sums.block_sums(some, w, h)
    num, gram = loops(v.T, weights.T, w)
    np.testing.assert_allclose(totals.num, num.T, rtol=1e-10)
    np.testing.assert_allclose(totals.gram, packed(gram), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(totals.column_weight, weights.astype(np.float64).sum(axis=0), rtol=1e-12)
    wide = (part.astype(np.float64) for part in (v, w, h))
    rest = next(wide) - next(wide) @ next(wide)
    direct = float((weights * rest**2).sum())
    assert totals.residual == masked.residual(some, w, h) == pytest.approx(direct, rel=1e-10)


def test_weights_are_those_of_scipy(case: Any) -> None:
    v, weights, some, _, h = case
    w = least_squares.solve_w(some, h, 1e-12)
    assert w.dtype == h.dtype
    for row, ours, weight in zip(v, w, weights, strict=True):
        root = np.sqrt(weight.astype(np.float64))[:, None]
        theirs = scipy.optimize.nnls(root * h.T, root[:, 0] * row)[0]
        off, best = (np.linalg.norm(root * (row[:, None] - h.T @ x[:, None])) for x in (ours, theirs))
        assert off <= best + 1e3 * TYPES[w.dtype.type]  # a row of few cells has many solutions
    np.testing.assert_array_equal(w[0], 0)


@given(seed=seeds, sweeps=st.integers(1, 5))
def test_descent_never_raises_the_objective(seed: int, sweeps: int) -> None:
    v, weights, some = problem(0.4, True, seed=seed)
    w, h = factors()
    num, squares = loops(v, weights, h.T)

    def objective(x: Array) -> Array:
        return 0.5 * np.einsum("ij,ijk,ik->i", x, squares, x) - np.einsum("ij,ij->i", x, num)

    x = packed_grams.descend(w, *masked.normal_equations(some, h.T), 1e-2, sweeps)
    assert x.min() >= 0
    assert np.all(objective(x) <= objective(w) + 1e-12)


@types
def test_the_guess_is_the_least_squares_solution_clipped(dtype: Any) -> None:
    v, weights, _ = problem(0.8, True)
    num, squares = loops(v - 1, weights, factors()[1].T)
    squares[0] = 0
    expected = np.linalg.solve(squares[1:], num[1:, :, None])[..., 0]
    found = packed_grams.clipped_lstsq(num.astype(dtype), packed(squares), 1e-13)
    assert found.dtype == dtype
    assert expected.min() < 0
    np.testing.assert_allclose(found[1:], np.maximum(expected, 0), rtol=1e3 * TYPES[dtype], atol=1e-4)
    np.testing.assert_array_equal(found[0], 0)


@types
def test_apply_is_a_product_of_each_row(dtype: Any) -> None:
    squares = loops(*problem(0.6, True)[:2], factors()[1].T)[1]
    w = factors(dtype)[0]
    expected = np.einsum("ij,ijk->ik", w.astype(np.float64), squares)
    np.testing.assert_allclose(packed_grams.apply_packed_gram(packed(squares), w), expected, rtol=1e-12)
    assert gram_matrices.apply_gram(w, packed(squares)).dtype == dtype
    np.testing.assert_array_equal(
        packed(squares)[:, packed_grams.packed_diagonal(K)], np.einsum("ijj->ij", squares)
    )


def test_multiply_leaves_zero_where_nothing_counts() -> None:
    num, squares = loops(*problem(0.5, False)[:2], factors()[1].T)
    found = least_squares.mu_update(factors()[0], num, packed(squares), 0.0, 2)
    assert np.isfinite(found).all()
    np.testing.assert_array_equal(found[0], 0)


@weightings
@given(seed=seeds)
def test_turned_and_chosen_cells_are_those_of_the_matrix(weighted: bool, seed: int) -> None:
    v, weights, some = problem(0.5, weighted, seed=seed)
    turned = some.transpose()
    for ours, theirs in zip(turned, some_cells(v.T, weights.T, weighted), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_allclose(some.row_weight, weights.sum(axis=1), rtol=1e-12)
    keep = np.random.default_rng(seed % 99).random(v.shape) < 0.5
    first = keep[weights > 0]
    edges = np.append(0, np.cumsum(first))[some.indptr]
    for part, own in zip(row_batches.parted(some, first, edges), (keep, ~keep), strict=True):
        for ours, theirs in zip(part, some_cells(v, weights * own, weighted), strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_a_small_row_is_not_lost_after_a_large_one() -> None:
    weights = np.array([[1e20, 1e20], [1e-6, 2e-6], [0, 3.0]])
    np.testing.assert_array_equal(some_cells(np.ones((3, 2)), weights, True).row_weight, [2e20, 3e-6, 3])


@pytest.mark.parametrize("heavy", [1.0, 1e4, 1e8, 1e12])
@pytest.mark.parametrize("missing", [[0], [4], [1, 7], [0, 1, 2, 3, 4]])
def test_the_gram_of_a_row_without_a_heavy_column_does_not_cancel(missing: list[int], heavy: float) -> None:
    v, weights = np.ones((3, 11)), np.ones((3, 11))
    weights[1, missing] = 0
    h = np.random.default_rng(0).random((K, 11)) + 0.1
    h[:, missing[0]] *= heavy
    h[1, missing[-1]] *= heavy  # of one component alone
    gram = masked.normal_equations(some_cells(v, weights, False), h.T)[1]
    np.testing.assert_allclose(gram, packed(loops(v, weights, h.T)[1]), rtol=1e-13)


@pytest.mark.parametrize("heavy", [1e4, 1e9])
def test_a_heavy_row_that_a_column_lacks_leaves_its_solution(heavy: float) -> None:
    v, weights = problem(1.0, False)[0], np.ones((14, 11))
    weights[3, 5:] = 0
    w = factors()[0]
    w[3] *= heavy
    totals = row_sums.block_sums(some_cells(v, weights, False), w)
    num, gram = loops(v.T, weights.T, w)
    np.testing.assert_allclose(totals.gram[5:], packed(gram[5:]), rtol=1e-12)
    np.testing.assert_allclose(totals.num[:, 5:], num[5:].T, rtol=1e-12)


def separable(dtype: Any) -> Cells:
    """All cells of a matrix, with weights that are known by row and column."""
    random = np.random.default_rng(3)
    v, by_row, by_column = random.random((14, 11)), random.random(14) + 0.5, random.random(11) + 0.5
    weights = np.outer(by_row, by_column).astype(dtype)
    some = some_cells(v.astype(dtype), weights, True)
    return some._replace(by_row=by_row, by_column=by_column)


@types
def test_weights_by_row_and_column_are_weights(dtype: Any) -> None:
    some = separable(dtype)
    apart = some._replace(by_row=masked.EMPTY, by_column=masked.EMPTY)
    w, h = factors(dtype)
    rounding = 100 * TYPES[dtype]
    for ours, theirs in zip(row_sums.block_sums(some, w, h), row_sums.block_sums(apart, w, h), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=rounding, atol=1e-12)
    for ours, theirs in zip(
        least_squares.normal_equations(some, h, 0.5),
        least_squares.normal_equations(apart, h, 0.5),
        strict=True,
    ):
        np.testing.assert_allclose(ours, theirs, rtol=rounding)
    for alpha, lasso in (0.0, 0.0), (0.1, 0.05):
        exact = least_squares.exact_w(apart, h, alpha, lasso)
        np.testing.assert_allclose(least_squares.exact_w(some, h, alpha, lasso), exact, atol=rounding)
        np.testing.assert_allclose(
            least_squares.solve_w(some, h, 1e-9, alpha, lasso), exact, atol=max(rounding, 1e-6)
        )


def test_pieces_are_the_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masked, "PIECE_GRAMS", 4 * packed_grams.packed_size(K))
    for some in problem(0.5, True)[2], problem(1.0, False)[2], separable(np.float64):
        pieces = [least_squares.normal_equations(piece, factors()[1]) for _, piece in some.split_rows(K)]
        assert len(pieces) == 4
        for ours, theirs in zip(
            zip(*pieces, strict=True), least_squares.normal_equations(some, factors()[1]), strict=True
        ):
            np.testing.assert_allclose(np.concatenate(ours), theirs, rtol=1e-12)
