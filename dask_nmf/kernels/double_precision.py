"""The equations of a float32 block in float64, for passes whose gain the rounding of float32 would hide.

A block is widened by strips of rows, so that no copy of it is ever whole.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import scipy.sparse

from dask_nmf.kernels import least_squares
from dask_nmf.kernels.blocks import scaling
from dask_nmf.kernels.blocks.masked import Cells
from dask_nmf.kernels.least_squares import Sums
from dask_nmf.types import Array, Block

STRIP = least_squares.STRIP // 4  # rows: with their residual no more bytes than `kernels.residual` takes


def products(v: Block, h: Array) -> Array:
    """Return v hᵀ of a dense or CSR block, (rows, k), float64."""
    wide = _widened(h.T)
    return np.concatenate([np.asarray(strip @ wide) for _, strip in strips(v)])


def exact_weights(v: Block, h: Array, alpha: float, lasso: float) -> Array:
    """Return the W of a block, (rows, k), as `kernels.exact_weights` does."""
    wide = _widened(h)
    parts = [least_squares.exact_weights(strip, wide, alpha, lasso) for _, strip in strips(v)]
    return np.concatenate(parts).astype(h.dtype)


def sums(v: Block, w: Array, h: Array | None) -> Sums:
    """Return what H learns from a block, as `kernels.sums` does: of a CSR block that is float64 anyway."""
    if scipy.sparse.issparse(v):
        return least_squares.sums(v, _widened(w), h)
    wide = None if h is None else _widened(h)
    total: Sums | None = None
    for rows, strip in strips(v):
        found = least_squares.sums(strip, _widened(w[rows]), wide)
        if total is None:
            total = found
            continue
        total.num[...] += found.num
        total.gram[...] += found.gram
        total = total._replace(
            residual=total.residual + found.residual, column_weight=total.column_weight + found.column_weight
        )
    assert total is not None
    return total


def strips(v: Block) -> Iterator[tuple[slice, Block]]:
    """Yield slices of the rows of a block, and these rows in float64."""
    if isinstance(v, Cells):  # `observed.strips` has cut them already
        yield slice(None), v._replace(values=_widened(v.values))
        return
    block, by = scaling.plain(v)
    for first in range(0, max(v.shape[0], 1), STRIP):
        rows = slice(first, first + STRIP)
        yield rows, scaling.copied(_widened(block[rows]), by)


def _widened(block: Block) -> Block:
    return block.astype(np.float64, copy=False)
