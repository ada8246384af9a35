"""The equations of a float32 block in float64, for passes whose gain the rounding of float32 would hide.

A block is converted in strips of rows, so that there is never a whole copy of it.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import scipy.sparse

from dask_nmf.kernels import least_squares, row_sums
from dask_nmf.kernels.blocks import scaling
from dask_nmf.kernels.blocks.holed import HoledBlock
from dask_nmf.kernels.blocks.masked import Cells
from dask_nmf.kernels.row_sums import CACHED_ROWS, Sums
from dask_nmf.types import Array, Block


def product(v: Block, h: Array) -> Array:
    """Return v hᵀ of a dense or CSR block, (rows, k), float64."""
    wide = _widened(h.T)
    return np.concatenate([np.asarray(strip @ wide) for _, strip in iter_float64_rows(v)])


def exact_w(v: Block, h: Array, alpha: float, lasso: float) -> Array:
    """Return `least_squares.exact_w` of a block, (rows, k), computed in float64, in the dtype of h."""
    wide = _widened(h)
    parts = [least_squares.exact_w(strip, wide, alpha, lasso) for _, strip in iter_float64_rows(v)]
    return np.concatenate(parts).astype(h.dtype)


def block_sums(v: Block, w: Array, h: Array | None) -> Sums:
    """Return `row_sums.block_sums` of a block, computed in float64.

    The sums of a CSR block are float64 in any case.
    """
    if scipy.sparse.issparse(v):
        return row_sums.block_sums(v, _widened(w), h)
    wide = None if h is None else _widened(h)
    total: Sums | None = None
    for rows, strip in iter_float64_rows(v):
        found = row_sums.block_sums(strip, _widened(w[rows]), wide)
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


def iter_float64_rows(v: Block) -> Iterator[tuple[slice, Block]]:
    """Yield slices of the rows of a block, with these rows in float64."""
    if isinstance(v, Cells):  # `masking.iter_row_batches` has cut them already
        yield slice(None), v._replace(values=_widened(v.values))
        return
    if isinstance(v, HoledBlock):  # a batch already
        yield slice(None), v.widened()
        return
    block, by = scaling.unwrap(v)
    for first in range(0, max(v.shape[0], 1), CACHED_ROWS):
        rows = slice(first, first + CACHED_ROWS)
        yield rows, scaling.scaled_copy(_widened(block[rows]), by)


def _widened(block: Block) -> Block:
    return block.astype(np.float64, copy=False)
