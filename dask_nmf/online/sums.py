"""Sums of passes with one gram matrix for all columns or one for each: added, and transformed with W."""

from __future__ import annotations

import numpy as np

from dask_nmf.kernels.linalg import gram_matrices
from dask_nmf.kernels.row_sums import Sums
from dask_nmf.types import Array

STRIP = 1024  # gram matrices that are unpacked at a time


def add(first: Sums, second: Sums) -> Sums:
    """Return the sum of both. It has a gram matrix for each column if one of them has."""
    if first.gram.shape != second.gram.shape:
        first, second = with_own_grams(first), with_own_grams(second)
    return first + second


def with_own_grams(sums: Sums) -> Sums:
    """Return sums with a gram matrix for each column, packed, (n, k (k + 1) / 2)."""
    k, n = sums.num.shape
    if not gram_matrices.is_shared_gram(sums.gram, k):
        return sums
    return sums._replace(gram=np.tile(sums.gram[np.tril_indices(k)], (n, 1)))


def transformed_grams(gram: Array, a: Array) -> Array:
    """Return ``Aᵀ G A`` for each packed matrix G, (rows, k (k + 1) / 2), packed; A is (k, k)."""
    k = len(a)
    lower, product = np.tril_indices(k), np.empty_like(gram)
    for first in range(0, len(gram), STRIP):
        part = gram[first : first + STRIP]
        square = np.empty((len(part), k, k))
        square[:, lower[0], lower[1]] = square[:, lower[1], lower[0]] = part
        product[first : first + STRIP] = (a.T @ square @ a)[:, lower[0], lower[1]]
    return product
