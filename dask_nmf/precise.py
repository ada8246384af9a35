"""The equations of a float32 block in float64, for passes whose gain the rounding of float32 would hide.

A block is widened by strips of rows, so that no copy of it is ever whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce
from operator import add

import numpy as np

from dask_nmf import kernels
from dask_nmf.cells import Cells
from dask_nmf.kernels import Array, Block, Sums

STRIP = kernels.STRIP // 4  # rows: with their residual no more bytes than `kernels.residual` takes


def products(v: Block, h: Array) -> Array:
    """Return v hᵀ of a dense or CSR block, (rows, k), float64."""
    wide = h.T.astype(np.float64)
    return np.concatenate([np.asarray(strip @ wide) for _, strip in strips(v)])


def solve_weights(v: Block, h: Array, tol: float, alpha: float, lasso: float, sweeps: int) -> Array:
    """Return the W of a block, (rows, k), as `kernels.solve_weights` does."""
    wide = h.astype(np.float64)
    parts = [kernels.solve_weights(strip, wide, tol, alpha, lasso, sweeps) for _, strip in strips(v)]
    return np.concatenate(parts).astype(h.dtype)


def sums(v: Block, w: Array, h: Array | None) -> Sums:
    """Return what H learns from a block, as `kernels.sums` does."""
    wide = None if h is None else h.astype(np.float64)
    parts = (kernels.sums(strip, w[rows].astype(np.float64), wide) for rows, strip in strips(v))
    return reduce(add, parts)


def strips(v: Block) -> Iterator[tuple[slice, Block]]:
    """Yield slices of the rows of a block, and these rows in float64."""
    if isinstance(v, Cells):  # `observed.strips` has cut them already
        yield slice(None), v._replace(values=v.values.astype(np.float64))
        return
    for first in range(0, max(v.shape[0], 1), STRIP):
        rows = slice(first, first + STRIP)
        yield rows, v[rows].astype(np.float64)
