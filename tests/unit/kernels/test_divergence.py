"""β-divergences on blocks: against a few lines of NumPy, SciPy and scikit-learn."""

import math
from typing import Any

import numpy as np
import pytest
import scipy.optimize
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st
from sklearn.decomposition._nmf import _beta_divergence
from support.matrices import Array

from dask_nmf.kernels import divergence, kl_newton
from dask_nmf.kernels.blocks.masked import Cells
from dask_nmf.kernels.divergence import BetaDivergence, RowPenalty
from dask_nmf.kernels.summary import block_summary

BETAS = [2.0, 1.5, 1.0, 0.5, 0.0, -0.5, 3.0]
FLOOR = 1e-12
betas = pytest.mark.parametrize("beta", BETAS)
seeds = st.integers(0, 2**16)


def problem(seed: int, rows: int = 7, columns: int = 9, k: int = 3) -> tuple[Array, Array, Array, Array]:
    """V > 0, W, H and weights."""
    random = np.random.default_rng(seed)
    v = random.gamma(1, 2, (rows, columns)) + 1e-2
    weights = random.choice([0.5, 1.0, 2.0], (rows, columns))
    return v, random.random((rows, k)) + 0.1, random.random((k, columns)) + 0.1, weights


def listed(v: Array, weights: Array | None = None, seen: Array | None = None) -> Cells:
    """All cells of v, or those seen."""
    seen = np.ones(v.shape, bool) if seen is None else seen
    indptr = np.concatenate([[0], np.cumsum(seen.sum(axis=1))])
    heavy = np.zeros(0) if weights is None else weights[seen]
    return Cells(v[seen], heavy, np.nonzero(seen)[1].astype(np.int32), indptr, v.shape[1])


def nonzero(v: Array) -> Cells:
    """The cells that are not 0; the others count too."""
    return listed(v, seen=v != 0)._replace(implicit_zeros=True)


def ridge(rows: int, lasso: float = 0.0, weight: float = 0.0) -> RowPenalty:
    return RowPenalty(np.full(rows, lasso), np.full(rows, weight))


def updated(v: Array, w: Array, h: Array, m: Array, beta: float, lasso: float, weight: float) -> Array:
    """W after one multiplicative update, with the weights m."""
    y = w @ h
    by = (m * y ** (beta - 1)) @ h.T + lasso + weight * w
    return np.asarray(w * ((m * v * y ** (beta - 2)) @ h.T / by) ** divergence.mu_exponent(beta))


@betas
@given(seed=seeds)
def test_a_multiplicative_update_is_the_formula(beta: float, seed: int) -> None:
    v, w, h, weights = problem(seed)
    expected = updated(v, w, h, weights, beta, 0.1, 0.2)
    found = BetaDivergence(beta, FLOOR).mu_update(listed(v, weights), h.T, w, ridge(7, 0.1, 0.2), 1)
    np.testing.assert_allclose(found, expected, rtol=1e-10)
    num, den, _ = BetaDivergence(beta, FLOOR).mu_terms(listed(v, weights), w, h)
    turned = h * (num / den) ** divergence.mu_exponent(beta)
    expected = updated(v.T, h.T, w.T, weights.T, beta, 0, 0).T
    np.testing.assert_allclose(turned, expected, rtol=1e-10)


@given(exponent=st.floats(-300, 0))
def test_the_divergence_is_finite_and_exact_where_w_h_is_tiny_beside_v(exponent: float) -> None:
    v, y = 3.0, 10.0**exponent
    expected = 2 * (v * (math.log(v) - math.log(y)) - v + y)
    found = BetaDivergence(1, 0.0).of(listed(np.array([[v]])), np.array([[y]]), np.ones((1, 1)))
    assert found == pytest.approx(expected, rel=1e-12)


@betas
@given(seed=seeds)
def test_the_loss_is_twice_scikit_learns(beta: float, seed: int) -> None:
    v, w, h, _ = problem(seed)
    expected = 2 * _beta_divergence(v, w, h, beta)
    assert BetaDivergence(beta, FLOOR).of(listed(v), w, h) == pytest.approx(expected, rel=1e-9)
    assert BetaDivergence(beta, FLOOR).mu_terms(listed(v), w, h)[2] == pytest.approx(expected, rel=1e-9)
    flat = np.full((7, 1), v.mean()), np.ones((1, 9))
    parts = [block_summary.divergence_terms(listed(rows), beta) for rows in (v[:2], 2.0**30 * v[:2], v[2:])]
    powers = parts[0] + parts[2]
    assert powers.at_level(0).divergence_from_mean() == pytest.approx(
        2 * _beta_divergence(v, *flat, beta), rel=1e-6
    )


@given(seed=seeds, share=st.sampled_from([0.1, 0.5, 0.9]))
def test_zeros_need_not_be_listed(seed: int, share: float) -> None:
    v, w, h, _ = problem(seed)
    v = v * (np.random.default_rng(seed).random(v.shape) < share)
    few, all_ = nonzero(v), listed(v)
    assert BetaDivergence(1, FLOOR).of(few, w, h) == pytest.approx(
        BetaDivergence(1, FLOOR).of(all_, w, h), rel=1e-10
    )
    pairs: list[tuple[Any, Any]] = [
        (BetaDivergence(1, FLOOR).mu_update(cells, h.T, w, ridge(7), 3) for cells in (few, all_)),
        (kl_newton.solve(cells, h.T, ridge(7), FLOOR, 1e-8) for cells in (few, all_)),
        (BetaDivergence(1, FLOOR).mu_terms(cells, w, h)[0] for cells in (few, all_)),
        *zip(
            *(kl_newton.quadratic_models(cells.transpose(), w, h.T, FLOOR) for cells in (few, all_)),
            strict=True,
        ),
    ]
    for one, other in pairs:
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-9)
    assert few.row_weight.tolist() == all_.row_weight.tolist()
    assert few.column_weight.tolist() == all_.column_weight.tolist() == few.transpose().row_weight.tolist()


@given(seed=seeds, lasso=st.sampled_from([0.0, 0.3]), weight=st.sampled_from([0.0, 0.5]))
def test_newton_finds_the_minimum(seed: int, lasso: float, weight: float) -> None:
    v, _, h, weights = problem(seed)
    v[0] = 0
    v[1, 2:] = 0
    found = kl_newton.solve(listed(v, weights), h.T, ridge(7, lasso, weight), FLOOR, 1e-8)
    slope = (weights * (1 - v / np.maximum(found @ h, FLOOR))) @ h.T + lasso + weight * found
    assert np.abs(np.minimum(found, slope)).max() < 1e-5
    assert (found >= 0).all()
    assert not found[0].any()


@given(seed=seeds)
def test_a_model_has_the_slope_and_the_curve_of_the_loss(seed: int) -> None:
    v, w, h, weights = problem(seed)
    num, gram, loss = kl_newton.quadratic_models(listed(v, weights).transpose(), w, h.T, FLOOR)
    assert loss == pytest.approx(BetaDivergence(1, FLOOR).of(listed(v, weights), w, h))
    slope = w.T @ (weights * (1 - v / (w @ h)))
    lower = np.tril_indices(3)
    for j in range(9):
        curve = (w * (weights * v / (w @ h) ** 2)[:, [j]]).T @ w
        np.testing.assert_allclose(gram[j], curve[lower], rtol=1e-10)
        np.testing.assert_allclose(num[j], curve @ h[:, j] - slope[:, j], rtol=1e-8, atol=1e-10)


def test_updates_end_where_an_optimiser_does() -> None:
    v, _, h, _ = problem(3)
    for beta in (0.5, 1.5):
        found = BetaDivergence(beta, FLOOR).mu_update(listed(v), h.T, np.ones((7, 3)), ridge(7), 20000, 1e-12)
        for i in range(7):
            best = scipy.optimize.minimize(
                lambda x, i=i, beta=beta: _beta_divergence(v[[i]], x[None], h, beta),
                found[i] + 0.1,
                bounds=[(1e-9, None)] * 3,
                tol=1e-12,
            )
            assert _beta_divergence(v[[i]], found[[i]], h, beta) <= best.fun * (1 + 1e-5)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_updates_keep_the_dtype(dtype: Any) -> None:
    v, w, h, _ = (x.astype(dtype) for x in problem(0))
    assert BetaDivergence(1, FLOOR).mu_update(listed(v), h.T, w, ridge(7), 2).dtype == dtype
