"""Runs whose rows are changed in tests: a V, fits of it, and their factors."""

from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse
from support.matrices import low_rank

from dask_nmf import Run, nmf

RANK = 3
V = low_rank(200, 20, RANK, noise=1.0)
OLD, NEW = V[:190], V[190:]


def fitted(place: Path, v: Any = OLD, **options: Any) -> Path:
    """Fit some rows to a run, and return its place."""
    nmf(v, RANK, store=place, **{"random_state": 0, **options})
    return place


def factors(run: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return W and H of a run."""
    result = Run.load_result(run)
    return result.read("W"), result.read("H")


def loss(v: Any, W: np.ndarray, H: np.ndarray, beta: float) -> float:
    """Return the loss of the definition."""
    dense = v.toarray() if scipy.sparse.issparse(v) else v
    product = W.astype(float) @ H.astype(float)
    if beta == 2:
        return float(((dense - product) ** 2).sum())
    there = dense > 0
    return float((dense[there] * np.log(dense[there] / product[there])).sum() - dense.sum() + product.sum())
