"""Fits of every solver and loss, for comparisons with scikit-learn."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.decomposition._nmf import _beta_divergence
from support.matrices import Array, low_rank

from dask_nmf import NMF
from dask_nmf.options.settings import LOSSES

SHAPES = {"tall": (48, 20), "wide": (20, 48)}
RANK = 3
BETAS = (-0.5, "itakura-saito", 0.5, "kullback-leibler", 1.5, "frobenius", 3.0)
FITS: list[tuple[str, Any]] = [
    ("hals", "frobenius"),
    ("hals", "kullback-leibler"),
    ("sgd", "frobenius"),
    *(("mu", beta) for beta in BETAS),
]
PENALTIES: dict[str, dict[str, float]] = {
    "none": {},
    "both": {"alpha_W": 0.1, "l1_ratio": 0.5},
    "W": {"alpha_W": 0.1, "alpha_H": 0.0, "l1_ratio": 0.5},
    "H": {"alpha_W": 0.0, "alpha_H": 0.1, "l1_ratio": 0.5},
}
fits = pytest.mark.parametrize(("solver", "beta_loss"), FITS)
shapes = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
betas = pytest.mark.parametrize("beta_loss", BETAS)


def noisy(shape: tuple[int, int], dtype: Any = np.float64) -> Array:
    """Return a V of low rank with noise, all of whose entries are positive."""
    return low_rank(*shape, RANK, noise=1, dtype=dtype) + dtype(0.01)


def given(shape: tuple[int, int], rank: int = RANK) -> dict[str, Array]:
    """Return random initial factors for both libraries."""
    random = np.random.default_rng(1)
    return {"W": random.random((shape[0], rank)) + 0.1, "H": random.random((rank, shape[1])) + 0.1}


def beta_of(beta_loss: str | float) -> float:
    return LOSSES[beta_loss] if isinstance(beta_loss, str) else beta_loss


def error_of(v: Array, w: Array, model: NMF) -> float:
    """Return scikit-learn's error of W and the components of a model."""
    beta = beta_of(model.beta_loss)
    return float(_beta_divergence(v, w, model.components_, beta, square_root=True))


def objective(
    v: Array, w: Array, h: Array, beta: float, alpha_W: float = 0, alpha_H: Any = "same", l1_ratio: float = 0
) -> float:
    """Return the objective that scikit-learn documents."""
    m, n = v.shape
    total = float(_beta_divergence(v, w, h, beta))
    for alpha, size, factor in ((alpha_W, n, w), (alpha_W if alpha_H == "same" else alpha_H, m, h)):
        total += alpha * size * (l1_ratio * factor.sum() + (1 - l1_ratio) * 0.5 * (factor**2).sum())
    return total


def of_drawn_starts(estimator: Any) -> dict[str, str]:
    """Return the checks of scikit-learn that fail because weights and repeated rows get other starts."""
    names = (f"check_sample_weight_equivalence_on_{kind}_data" for kind in ("dense", "sparse"))
    why = "starts are drawn from the rows that are there; from given factors it holds: test_sample_weight.py"
    return dict.fromkeys(names, why)
