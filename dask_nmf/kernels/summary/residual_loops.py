"""Loops over a block that add up where W H fails, for `residual_sums`."""

from __future__ import annotations

import numpy as np

from dask_nmf.kernels.compiled import compiled
from dask_nmf.kernels.divergence import TINY, dot, entry_divergence
from dask_nmf.types import Array

TILE = 1024  # columns of a strip that are added up in the dtype of the block


@compiled(fastmath={"contract", "reassoc"})
def add_squares(v: Array, product: Array, rows: Array, columns: Array) -> None:
    """Add the squares of v − product and of v to the sums of their rows and columns."""
    r, n = v.shape
    zero = columns.dtype.type(0)
    for first in range(0, n, TILE):
        last = min(first + TILE, n)
        of_losses, of_sizes = columns[0, first:last], columns[1, first:last]
        for i in range(r):
            x, y = v[i, first:last], product[i, first:last]
            loss, size = zero, zero
            for j in range(last - first):
                rest = x[j] - y[j]
                lost, own = rest * rest, x[j] * x[j]
                loss += lost
                size += own
                of_losses[j] += lost
                of_sizes[j] += own
            rows[0, i] += loss
            rows[1, i] += size


@compiled(fastmath={"contract", "reassoc"})
def add_cells(
    values: Array, weights: Array, indices: Array, indptr: Array, zeros: bool, w: Array, h: Array,
    beta: float, groups: Array, across: Array, rows: Array, columns: Array, blocks: Array,
) -> None:  # fmt: skip
    """Add the loss and the size of listed cells to the sums of their rows, columns and blocks."""
    for i in range(len(indptr) - 1):
        loss, size = 0.0, 0.0
        into_losses, into_sizes = blocks[0, groups[i]], blocks[1, groups[i]]
        own = w[i]
        for p in range(indptr[i], indptr[i + 1]):
            value, j = np.float64(values[p]), indices[p]
            y = dot(own, h[j])
            if beta == 2:
                lost = value * (value - 2 * y) if zeros else (value - y) * (value - y)
                counts = value * value
            elif y <= 0 and beta <= 1 and value > 0:
                lost, counts = np.inf, 1.0
            else:
                lost, counts = 2 * entry_divergence(value, max(y, TINY), beta, zeros), 1.0
            if len(weights) > 0:
                lost *= weights[p]
                counts *= weights[p]
            loss += lost
            size += counts
            columns[j, 0] += lost
            columns[j, 1] += counts
            into_losses[across[j]] += lost
            into_sizes[across[j]] += counts
        rows[0, i] += loss
        rows[1, i] += size
