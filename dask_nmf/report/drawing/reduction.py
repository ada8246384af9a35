"""Pictures and heat maps made smaller, so that a report stays small."""

from __future__ import annotations

import numpy as np

from dask_nmf.types import Array


def block_means(matrix: Array, most: int) -> Array:
    """Return a matrix with at most ``most`` rows and columns, each entry the mean of a block.

    The number of rows and that of columns shrink alike, so that the shape stays about the same.
    """
    longest = max(matrix.shape)
    if longest <= most:
        return matrix
    sums, areas = matrix.astype(np.float64), np.ones(1)
    for axis, size in enumerate(matrix.shape):
        parts = max(1, size * most // longest)
        edges = np.linspace(0, size, parts + 1).astype(np.int64)
        sums = np.add.reduceat(sums, edges[:-1], axis=axis)
        areas = np.multiply.outer(areas, np.diff(edges))
    return np.asarray(sums / areas[0])
