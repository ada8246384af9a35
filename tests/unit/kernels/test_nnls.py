"""Exact solutions against SciPy's, whatever the condition, the weights of the equations and the start."""

from typing import Any

import numpy as np
import pytest
import scipy.optimize
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st
from support.matrices import Array
from support.strategies import seeds

from dask_nmf import nmf, transform
from dask_nmf.inference import transform as transform_module
from dask_nmf.kernels import least_squares
from dask_nmf.kernels.blocks.masked import Cells
from dask_nmf.kernels.linalg import householder, nnls

KINDS: dict[str, Any] = {"dense": np.asarray, "csr": scipy.sparse.csr_array}
kinds = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)


def best(v: Array, h: Array) -> Array:
    """W of SciPy, of columns scaled to norm 1, (r, k)."""
    size = np.linalg.norm(h, axis=1)
    return np.array([scipy.optimize.nnls((h / size[:, None]).T, row)[0] for row in v]) / size


def problem(rows: int, k: int, n: int, seed: int) -> tuple[Array, Array]:
    """V and H for which a part of W is zero."""
    random = np.random.default_rng(seed)
    h = random.random((k, n)) * (random.random((k, n)) < 0.7) + 0.01
    return random.random((rows, n)) * (random.random((rows, n)) < 0.5), h


@given(seed=seeds, rows=st.integers(1, 30), k=st.integers(1, 9))
def test_every_start_leads_to_the_solution(seed: int, rows: int, k: int) -> None:
    v, h = problem(rows, k, 15, seed)
    expected = best(v, h)
    factor = householder.pivoted_qr(h)
    for start in np.zeros_like(expected), expected, np.ones_like(expected):
        by_equations, by_factor = start.copy(), start.copy()
        nnls.solve_equations(by_equations, v @ h.T, h @ h.T)
        nnls.solve_qr(by_factor, factor.upper, v @ factor.basis)
        np.testing.assert_allclose(by_equations, expected, atol=1e-11)
        np.testing.assert_allclose(by_factor, expected, atol=1e-11)


@kinds
@pytest.mark.parametrize("heavy", [1e3, 1e5, 1e8, 1e12])
@pytest.mark.parametrize("which", ["a column", "two columns", "components"])
def test_w_is_found_at_any_scale_of_columns_and_components(which: str, heavy: float, kind: Any) -> None:
    random = np.random.default_rng(0)
    h, w = random.random((5, 30)), random.random((40, 5)) * (random.random((40, 5)) < 0.6)
    scale = np.logspace(0, np.log10(heavy), 5) if which == "components" else np.ones(5)
    h, w = h * scale[:, None], w / scale
    if which != "components":
        h[:, 7] *= heavy
        h[:, 12] *= heavy if which == "two columns" else 1
    found = np.asarray(transform(kind(w @ h), h))
    np.testing.assert_allclose(found * scale, w * scale, atol=1e-10)


@kinds
@pytest.mark.parametrize("condition", [1e2, 1e4, 1e6, 1e9, 1e12])
def test_w_is_that_of_scipy_at_any_condition(condition: float, kind: Any) -> None:
    random = np.random.default_rng(1)
    alike = random.random((1, 25)) + np.logspace(0, -np.log10(condition), 6)[:, None] * random.random((6, 25))
    v = random.random((40, 25))
    expected, found = best(v, alike), np.asarray(transform(kind(v), alike))
    assert np.linalg.cond(alike) > condition / 100
    np.testing.assert_allclose(found, expected, atol=1e-10 * expected.max())
    w = random.random((40, 6)) * (random.random((40, 6)) < 0.5)
    exact = np.asarray(transform(kind(w @ alike), alike))  # the error in V is what its rounding is
    np.testing.assert_allclose(exact, w, atol=50 * np.finfo(float).eps * np.linalg.cond(alike))


@pytest.mark.parametrize("l1_ratio", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("spread", [0.0, 1e-3, 1e-7])
def test_penalties_are_part_of_the_solution(spread: float, l1_ratio: float) -> None:
    v, h = problem(30, 4, 20, 3)
    h = h[:1] + spread * h if spread else h
    alpha = 1e-9 if spread else 0.01
    found = np.asarray(transform(v, h, alpha_W=alpha, l1_ratio=l1_ratio))
    ridge, lasso = 20 * alpha * (1 - l1_ratio), 20 * alpha * l1_ratio
    slope = (v - found @ h) @ h.T - ridge * found - lasso
    noise = 1e-9 * np.abs(v @ h.T).max()
    assert slope.max() <= noise
    np.testing.assert_allclose(slope[found > 0], 0, atol=noise)


@pytest.mark.parametrize("k", [3, 9, 20])
def test_components_that_depend_on_others_leave_the_least_residual(k: int) -> None:
    v, h = problem(30, k, 8, 4)
    h[-1] = h[0]
    found = np.asarray(transform(v, h))
    least = [scipy.optimize.nnls(h.T, row)[1] for row in v]
    np.testing.assert_allclose(np.linalg.norm(v - found @ h, axis=1), least, rtol=1e-9)


@pytest.mark.parametrize("spread", [0.0, 1e-3])
def test_float32_is_solved_to_its_rounding(spread: float) -> None:
    v, h = (part.astype(np.float32) for part in problem(50, 6, 25, 5))
    h = h[:1] + np.float32(spread) * h if spread else h
    found = np.asarray(transform(v, h))
    assert found.dtype == np.float32
    expected = best(v.astype(float), h.astype(float))
    np.testing.assert_allclose(found, expected, atol=1e-5 * expected.max())


@pytest.mark.parametrize("heavy", [1.0, 1e5, 1e9])
@pytest.mark.parametrize("how", ["nan", "unstored", "weights"])
def test_rows_with_cells_of_their_own_are_solved_on_them(how: str, heavy: float) -> None:
    random = np.random.default_rng(6)
    h, w = random.random((4, 20)), random.random((30, 4)) * (random.random((30, 4)) < 0.7)
    h[:, 3] *= heavy
    h[:, 8] *= heavy / 100
    v, there = w @ h, random.random((30, 20)) < 0.7
    there[:5] = True  # whole rows
    there[5:10, 3] = there[10:15, [3, 8]] = False
    if how == "nan":
        found = transform(np.where(there, v, np.nan), h, missing="nan")
    elif how == "unstored":
        stored = np.concatenate([[0], np.cumsum(there.sum(axis=1))])
        held = scipy.sparse.csr_array((v[there], np.nonzero(there)[1], stored), shape=v.shape)
        found = transform(held, h, missing="unstored")
    else:
        found = transform(v, h, weights=there * random.integers(1, 4, v.shape))
    np.testing.assert_allclose(np.asarray(found), w, atol=1e-10)


def test_a_row_that_lacks_the_heavy_column_keeps_its_solution() -> None:
    h, w = np.array([[1e9, 1, 2, 3, 1], [2e9, 3, 1, 1, 2]]), np.array([[1.0, 2], [3, 1]])
    v = w @ h
    v[0, 0] = np.nan
    np.testing.assert_allclose(np.asarray(transform(v, h, missing="nan")), w, rtol=1e-12)


def test_rows_of_few_cells_are_solved_with_penalties() -> None:
    random = np.random.default_rng(7)
    h, v = random.random((5, 12)), random.random((6, 12))
    columns = np.tile(np.array([2, 5, 9], np.int32), 6)
    some = Cells(v[:, :3].ravel(), v[:0, 0], columns, np.arange(0, 19, 3), 12)
    w = least_squares.exact_w(some, h, 1e-8, 1e-6)
    near = h[:, [2, 5, 9]]
    slope = (v[:, :3] - w @ near) @ near.T - 3 * (1e-8 * w + 1e-6)
    assert slope.max() <= 1e-12
    np.testing.assert_allclose(slope[w > 0], 0, atol=1e-12)


@kinds
@pytest.mark.parametrize("spread", [1e-2, 1e-5, 1e-9])
def test_sums_over_columns_lead_to_the_same_w(
    spread: float, kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transform_module, "LARGE_H", 0)
    v, h = problem(20, 4, 60, 8)
    h = h[:1] + spread * h
    h[:, 11] *= 1e4
    expected = best(v, h)
    np.testing.assert_allclose(np.asarray(transform(kind(v), h)), expected, atol=1e-10 * expected.max())


def test_the_answer_of_a_fit_has_the_w_of_scipy() -> None:
    v = problem(60, 4, 30, 9)[0]
    for matrix in v, v.T:
        W, H = (np.asarray(factor) for factor in nmf(matrix, 4, max_iter=2, tol=0))
        np.testing.assert_allclose(W, best(matrix, H), atol=1e-10)
