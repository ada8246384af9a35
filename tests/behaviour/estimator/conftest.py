"""A small V, and the same one with missing entries."""

import numpy as np
import pytest


@pytest.fixture(scope="module")
def v() -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.gamma(0.5, size=(120, 4)) @ rng.gamma(0.5, size=(4, 30)) + 0.2 * rng.random((120, 30))


@pytest.fixture(scope="module")
def hidden(v: np.ndarray) -> np.ndarray:
    """The V, a third of whose entries are missing."""
    return np.where(np.random.default_rng(1).random(v.shape) < 1 / 3, np.nan, v)
