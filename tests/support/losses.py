"""Matrices for fits with losses other than the squared error, and their divergences."""

from typing import Any

import numpy as np
import pytest
from sklearn.decomposition._nmf import _beta_divergence
from support.matrices import Array

SHAPES = {"tall": (60, 25), "wide": (25, 60)}
RANK = 3
LOSSES = {"kullback-leibler": 1.0, "itakura-saito": 0.0, 0.5: 0.5, 1.5: 1.5, 3: 3.0}
WAYS = [("hals", "kullback-leibler"), *(("mu", loss) for loss in LOSSES)]
ways = pytest.mark.parametrize(("solver", "loss"), WAYS)


def counts(shape: tuple[int, int], dtype: Any = np.float64, seed: int = 0) -> Array:
    """Return Poisson counts whose means are a product of sparse factors."""
    random = np.random.default_rng(seed)
    w, h = random.gamma(0.5, 2, (shape[0], RANK)), random.gamma(0.5, 2, (RANK, shape[1]))
    return random.poisson(w @ h).astype(dtype)


def positive(shape: tuple[int, int]) -> Array:
    return counts(shape) + 0.25


def matrix(loss: Any, shape: tuple[int, int]) -> Array:
    return counts(shape) if LOSSES[loss] > 0 else positive(shape)


def divergence(v: Array, w: Array, h: Array, loss: Any) -> float:
    wide = (np.asarray(x, np.float64) for x in (v, w, h))
    return float(_beta_divergence(*wide, LOSSES[loss]))
