"""Gram matrices, one for all rows of a factor or one for each row."""

from __future__ import annotations

import numpy as np

from dask_nmf.kernels.linalg import packed_grams
from dask_nmf.types import Array


def is_shared_gram(gram: Array, k: int) -> bool:
    """Return whether a gram matrix is shared by all rows."""
    return gram.shape == (k, k)


def add_ridge(gram: Array, k: int, weight: float | Array) -> Array:
    """Return gram, (k, k) or one a row, with the L2 penalty ``weight`` added to its diagonal."""
    if not np.any(weight):
        return gram
    if is_shared_gram(gram, k):
        return np.asarray(gram + weight * np.eye(k, dtype=gram.dtype))
    heavier = gram.copy()
    heavier[:, packed_grams.packed_diagonal(k)] += np.reshape(weight, (-1, 1))
    return heavier


def apply_gram(x: Array, gram: Array) -> Array:
    """Return ``x gram``, with one gram matrix for all rows or one for each."""
    if is_shared_gram(gram, x.shape[1]):
        return np.asarray(x @ gram.astype(x.dtype, copy=False))
    return packed_grams.apply_packed_gram(gram, x).astype(x.dtype)
