"""What scikit-learn promises of a fit, promised of ours: every solver and loss, beside scikit-learn."""

from __future__ import annotations

from typing import Any

import dask
import numpy as np
import pytest
import scipy.sparse
from sklearn.base import clone
from sklearn.decomposition._nmf import non_negative_factorization
from support.grids import pairwise
from support.matrices import Array
from support.parity import BETAS, FITS, PENALTIES, RANK, SHAPES, error_of, fits, given, noisy, shapes

from dask_nmf import NMF, nmf

# With one factor or the other, of every solver and every exponent of its updates; with both: see the test of
# multiplicative updates. With W alone many passes find H, for any β-divergence as for that of Kullback and
# Leibler.
BEGUN = [("H", *fit) for fit in FITS] + [("W", *fit) for fit in FITS if isinstance(fit[1], str)]
WITH_ZEROS = [(solver, beta) for solver, beta in FITS if beta not in (-0.5, "itakura-saito")]
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
fits_with_zeros = pytest.mark.parametrize(("solver", "beta_loss"), WITH_ZEROS)


def with_zeros(shape: tuple[int, int]) -> Array:
    """V of which a third are zeros, two whole columns too."""
    v = noisy(shape)
    v[v < np.quantile(v, 1 / 3)] = 0
    v[:, [2, 7]] = 0
    return v


@fits
@pytest.mark.parametrize("penalty", [PENALTIES["none"], PENALTIES["both"]], ids=["none", "both"])
def test_factors_are_not_negative(penalty: dict[str, float], solver: str, beta_loss: Any) -> None:
    v = np.c_[5.01 - np.arange(1, 6), 5.01 + np.arange(1, 6)]
    model = NMF(2, solver=solver, beta_loss=beta_loss, random_state=0, max_iter=50, **penalty)
    w = model.fit_transform(v)
    assert np.isfinite(w).all()
    assert np.isfinite(model.components_).all()
    assert min(w.min(), model.components_.min()) >= 0


@fits
@shapes
def test_the_error_is_scikit_learns_of_the_same_factors(
    shape: tuple[int, int], solver: str, beta_loss: Any
) -> None:
    v = noisy(shape)
    model = NMF(RANK, solver=solver, beta_loss=beta_loss, random_state=0, max_iter=10, alpha_W=1e-3)
    w = model.fit_transform(v)
    assert model.reconstruction_err_ == pytest.approx(error_of(v, w, model), rel=1e-6)


@pytest.mark.parametrize("solver", ["hals", "mu"])
@pytest.mark.parametrize("beta_loss", ["frobenius", "kullback-leibler"])
def test_a_fit_of_full_rank_gives_v_back(beta_loss: str, solver: str) -> None:
    v = np.random.default_rng(42).random((6, 5)) + 0.1
    model = NMF(5, solver=solver, beta_loss=beta_loss, random_state=0, max_iter=300, tol=1e-7)
    w = model.fit_transform(v)
    assert model.reconstruction_err_ < 0.05
    np.testing.assert_allclose(model.inverse_transform(w), v, atol=0.05)


@fits_with_zeros
@shapes
def test_parts_that_do_not_overlap_are_found(shape: tuple[int, int], solver: str, beta_loss: Any) -> None:
    random = np.random.default_rng(0)
    w, h = random.random((shape[0], RANK)) + 0.5, random.random((RANK, shape[1])) + 0.5
    w *= np.arange(shape[0])[:, None] % RANK == np.arange(RANK)
    h *= np.arange(RANK)[:, None] == np.arange(shape[1]) % RANK
    tol = 1e-4 if solver == "sgd" else 1e-9
    model = NMF(RANK, solver=solver, beta_loss=beta_loss, random_state=0, max_iter=200, tol=tol)
    found = model.fit_transform(w @ h)
    np.testing.assert_allclose(found @ model.components_, w @ h, atol=1e-2)


@pytest.mark.parametrize(("names", "solver", "beta_loss"), BEGUN)
def test_a_fit_can_begin_anywhere(names: str, solver: str, beta_loss: Any) -> None:
    dtype = np.float32 if isinstance(beta_loss, str) else np.float64
    v = noisy(SHAPES["tall"], dtype)
    start = {name: factor for name, factor in given(v.shape).items() if name in names}
    model = NMF(init="custom", solver=solver, beta_loss=beta_loss, random_state=0, max_iter=5)
    w = model.fit_transform(v, **start)
    assert (model.n_components_, w.dtype, model.components_.dtype) == (RANK, dtype, dtype)
    assert w.shape == (48, RANK)


@pairwise(
    {"beta_loss": BETAS, "penalty": {name: PENALTIES[name] for name in ("none", "W", "H")}, "shape": SHAPES}
)
def test_multiplicative_updates_are_scikit_learns(
    shape: tuple[int, int], beta_loss: Any, penalty: dict[str, float]
) -> None:
    v, start = noisy(shape), given(shape)
    options: dict[str, Any] = {"solver": "mu", "init": "custom", "beta_loss": beta_loss, "tol": 0, **penalty}
    theirs = non_negative_factorization(
        v, start["W"].copy(), start["H"].copy(), max_iter=10, **{"alpha_W": 0.0, **options}
    )
    ours = nmf(v, RANK, max_iter=10, **start, **options)
    for mine, other in zip(dask.compute(ours.W, ours.H), theirs[:2], strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("beta", [-0.5, 0.0, 0.5, 1.0, 2.0, 2.5])
def test_a_loss_next_to_another_gives_nearly_the_same(beta: float) -> None:
    v, start = noisy(SHAPES["tall"]), given(SHAPES["tall"])
    options: dict[str, Any] = {"solver": "mu", "init": "custom", "max_iter": 20, "tol": 0, "alpha_W": 0.1}
    one, other = (nmf(v, RANK, beta_loss=b, l1_ratio=0.5, **start, **options) for b in (beta, beta - 1e-5))
    for mine, near in zip(dask.compute(one.W, one.H), dask.compute(other.W, other.H), strict=True):
        np.testing.assert_allclose(mine, near, atol=1e-4)


@pairwise(
    {
        "kind, penalty": {
            "csr": (scipy.sparse.csr_array, PENALTIES["none"]),
            "csc, penalised": (scipy.sparse.csc_matrix, PENALTIES["both"]),
        },
        "solver, beta_loss": WITH_ZEROS,
        "shape": SHAPES,
    }
)
def test_a_sparse_v_is_the_same_v(
    shape: tuple[int, int], solver: str, beta_loss: Any, kind: Any, penalty: dict[str, float]
) -> None:
    v = with_zeros(shape)
    model = NMF(
        RANK, init="random", solver=solver, beta_loss=beta_loss, random_state=0, max_iter=5, **penalty
    )
    dense, sparse = clone(model), clone(model)
    np.testing.assert_allclose(sparse.fit_transform(kind(v)), dense.fit_transform(v), rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(sparse.components_, dense.components_, rtol=1e-6, atol=1e-9)
    if solver == "hals":  # the others have the same transform
        np.testing.assert_allclose(sparse.transform(kind(v)), dense.transform(v), rtol=1e-5, atol=1e-6)


@fits
@shapes
def test_float32_stays_and_is_near_to_float64(shape: tuple[int, int], solver: str, beta_loss: Any) -> None:
    model = NMF(RANK, solver=solver, beta_loss=beta_loss, random_state=0, max_iter=10)
    narrow, wide = clone(model), clone(model)
    w = narrow.fit_transform(noisy(shape, np.float32))
    assert w.dtype == narrow.components_.dtype == np.float32
    exact = wide.fit_transform(noisy(shape))
    product = exact @ wide.components_
    np.testing.assert_allclose(w @ narrow.components_, product, rtol=2e-2, atol=2e-2 * product.max())
    assert narrow.reconstruction_err_ == pytest.approx(wide.reconstruction_err_, rel=1e-3)
