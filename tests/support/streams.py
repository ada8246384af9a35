"""Rows for online fits, and the errors of an H on them."""

import numpy as np
import pytest
from sklearn.decomposition._nmf import _beta_divergence
from support.matrices import Array

from dask_nmf import transform

LOSSES = {"frobenius": 2, "kullback-leibler": 1}
losses = pytest.mark.parametrize("loss", LOSSES)


def error(v: Array, h: Array, loss: str) -> float:
    """Return the divergence of V from W H with the best W for H."""
    w = transform(v, h, beta_loss=loss)
    assert w is not None
    return float(_beta_divergence(v, np.asarray(w), h, LOSSES[loss]))


def relative(v: Array, h: Array, loss: str) -> float:
    """Return √(D(V | W H) / D(V | mean of V)), or ‖V − W H‖ / ‖V‖."""
    apart = _beta_divergence(v, np.ones((len(v), 1)), np.full((1, v.shape[1]), v.mean()), LOSSES[loss])
    return float(
        np.sqrt(max(error(v, h, loss), 0.0) / (apart if loss != "frobenius" else 0.5 * np.sum(v**2)))
    )


def of_kinds(seed: int, noise: float = 0.1) -> Array:
    """Return rows that are noisy multiples of eight patterns, (800, 60); the first 100 share one pattern."""
    random = np.random.default_rng(seed)
    h = random.gamma(0.5, 1, (8, 60)) * (random.random((8, 60)) < 0.5)
    kinds = random.integers(0, 8, 800)
    kinds[:100] = 0
    v = random.gamma(4, 0.25, 800)[:, None] * h[kinds] * random.gamma(11, 0.09, (800, 60))
    return np.maximum(v + noise * v.mean() * random.standard_normal(v.shape), 0)
