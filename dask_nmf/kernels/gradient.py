"""Stochastic gradient descent by minibatches on one block of V: V ≈ W H, W and H ≥ 0.

For an entry v with e = v − w h the loss is ``e² + α_w ‖w‖² + α_h ‖h‖²``, and L1 norms are added in the same
way. A minibatch adds up steps ``w ← max(0, w + η (e h − α_w w))`` and ``h ← max(0, h + η (e w − α_h h))``,
all of which start from the values before it.

A factor is stored here by rows, (rows, k + 1). Its last column is the accumulator of AdaGrad, the sum of the
squared gradients of a row, in units of ``unit³``, so that it does not depend on the scale of V.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from dask_nmf.kernels.blocks import scaling
from dask_nmf.kernels.blocks.masked import Cells
from dask_nmf.kernels.compiled import compiled
from dask_nmf.types import Array, Block

ONE = 1.0  # the initial value of AdaGrad's accumulator


class SGDOptions(NamedTuple):
    """Options of gradient steps: rate, penalties and size of a minibatch."""

    rate: float  # η; for AdaGrad relative to the entries of factors
    adaptive: bool  # whether AdaGrad is used
    unit: float  # the mean of V
    w_l2: float  # α_w
    h_l2: float  # α_h
    w_l1: float
    h_l1: float
    batch: int  # rows, or cells, of a minibatch
    tilt: float = 1.0  # multiplies η for w, and divides it for h


def with_accumulator(factor: Array) -> Array:
    """Return a factor (rows, k) with AdaGrad's initial accumulator appended, (rows, k + 1)."""
    return np.column_stack([factor, np.full(len(factor), ONE, factor.dtype)])


def descend_rows(v: Block, left: Array, right: Array, order: Array, options: SGDOptions) -> float:
    """Take a step on each minibatch of rows of a block of which every entry counts; change both factors.

    Parameters
    ----------
    v : (r, c).
    left, right : W, (r, k + 1), and Hᵀ, (c, k + 1), with accumulators.
    order : the rows of the block, in the order in which they are used.

    Returns
    -------
    Σ e², with each e as its minibatch found it.
    """
    total = 0.0
    for first in range(0, len(order), options.batch):
        rows = order[first : first + options.batch]
        block = scaling.dense_rows(v, rows)
        w, h = left[rows, :-1], right[:, :-1].copy()
        rest = block - w @ h.T
        total += float(np.einsum("ij,ij->i", rest, rest, dtype=np.float64).sum())
        slope = (
            rest @ h - w.dtype.type(len(h)) * (w.dtype.type(options.w_l2) * w + w.dtype.type(options.w_l1)),
            rest.T @ w - w.dtype.type(len(w)) * (w.dtype.type(options.h_l2) * h + w.dtype.type(options.h_l1)),
        )
        left[rows] = _stepped(left[rows], slope[0], options, options.tilt)
        right[:] = _stepped(right, slope[1], options, 1 / options.tilt)
    return total


def _stepped(factor: Array, slope: Array, options: SGDOptions, tilt: float) -> Array:
    """Return rows of a factor after one step along a slope."""
    kind = factor.dtype.type
    out = factor.copy()
    rate: Array | float = options.rate * tilt
    if options.adaptive:
        out[:, -1] += np.mean(np.square(slope * kind(options.unit**-1.5)), axis=1)
        rate = rate / options.unit / np.sqrt(out[:, -1:])
    np.maximum(factor[:, :-1] + np.asarray(rate, kind) * slope, 0, out=out[:, :-1])
    return out


class _Sizes(NamedTuple):
    """The numbers of `SGDOptions` in the dtype of the factors."""

    by_row: float  # the rate for w
    by_column: float  # the rate for h
    unit: float  # unit⁻³, which multiplies squared gradients
    w_l2: float
    h_l2: float
    w_l1: float
    h_l1: float


def descend_cells(cells: Cells, left: Array, right: Array, order: Array, options: SGDOptions) -> float:
    """Take a step on each minibatch of cells, row by row in the given order; change both factors.

    Parameters
    ----------
    left, right : W, (rows, k + 1), and Hᵀ, (columns, k + 1), with accumulators.
    order : the rows of the cells, in the order in which they are used.

    Returns
    -------
    Σ e², with each e as its minibatch found it.
    """
    rate = options.rate / (options.unit if options.adaptive else 1.0)
    rates, penalties = (rate * options.tilt, rate / options.tilt), options[3:7]
    sizes = _Sizes(*map(left.dtype.type, (*rates, options.unit**-3, *penalties)))
    if options.batch == 1:
        return float(_one_by_one(cells, order, left, right, options.adaptive, sizes))
    return float(_in_batches(cells, order, left, right, options.adaptive, sizes, options.batch))


@compiled(fastmath={"contract", "reassoc", "nsz"})
def _one_by_one(
    cells: Cells, order: Array, left: Array, right: Array, adaptive: bool, sizes: _Sizes
) -> float:
    """Take a step on each cell, from the values that the previous cell has left; return Σ e²."""
    k = left.shape[1] - 1
    zero = left.dtype.type(0)
    alpha, beta = sizes.w_l2, sizes.h_l2
    lasso_w, lasso_h = sizes.w_l1, sizes.h_l1
    share = sizes.unit / left.dtype.type(k)
    total = 0.0
    for i in order:
        w = left[i]
        for p in range(cells.indptr[i], cells.indptr[i + 1]):
            h = right[cells.indices[p]]
            rest = cells.values[p]
            for t in range(k):
                rest -= w[t] * h[t]
            total += np.float64(rest) * np.float64(rest)
            by_row, by_column = sizes.by_row, sizes.by_column
            if adaptive:
                of_row, of_column = zero, zero
                for t in range(k):
                    slope_w = rest * h[t] - alpha * w[t] - lasso_w
                    slope_h = rest * w[t] - beta * h[t] - lasso_h
                    of_row += slope_w * slope_w
                    of_column += slope_h * slope_h
                w[k] += of_row * share
                h[k] += of_column * share
                by_row, by_column = by_row / np.sqrt(w[k]), by_column / np.sqrt(h[k])
            for t in range(k):
                x, y = w[t], h[t]
                w[t] = max(x + by_row * (rest * y - alpha * x - lasso_w), zero)
                h[t] = max(y + by_column * (rest * x - beta * y - lasso_h), zero)
    return total


@compiled(fastmath={"contract", "reassoc", "nsz"})
def _in_batches(
    cells: Cells, order: Array, left: Array, right: Array, adaptive: bool, sizes: _Sizes, batch: int
) -> float:
    """Take a step along the summed slopes of each minibatch of cells; return Σ e²."""
    k = left.shape[1] - 1
    slopes_left, slopes_right = np.zeros_like(left), np.zeros_like(right)
    rows, columns = np.empty(batch, np.int64), np.empty(batch, np.int64)
    filled, total = 0, 0.0
    for i in order:
        for p in range(cells.indptr[i], cells.indptr[i + 1]):
            j = cells.indices[p]
            rest = cells.values[p]
            for t in range(k):
                rest -= left[i, t] * right[j, t]
            total += np.float64(rest) * np.float64(rest)
            for t in range(k):
                slopes_left[i, t] += rest * right[j, t] - sizes.w_l2 * left[i, t] - sizes.w_l1
                slopes_right[j, t] += rest * left[i, t] - sizes.h_l2 * right[j, t] - sizes.h_l1
            slopes_left[i, k] = 1
            slopes_right[j, k] = 1
            rows[filled], columns[filled] = i, j
            filled += 1
            if filled == batch:
                _step(left, slopes_left, rows, adaptive, sizes.by_row, sizes.unit)
                _step(right, slopes_right, columns, adaptive, sizes.by_column, sizes.unit)
                filled = 0
    _step(left, slopes_left, rows[:filled], adaptive, sizes.by_row, sizes.unit)
    _step(right, slopes_right, columns[:filled], adaptive, sizes.by_column, sizes.unit)
    return total


@compiled(fastmath={"contract", "reassoc", "nsz"}, inlined=True)
def _step(factor: Array, slopes: Array, rows: Array, adaptive: bool, rate: float, unit: float) -> None:
    """Step along the slopes of some rows, each row once, and reset these slopes to 0."""
    k = factor.shape[1] - 1
    zero = factor.dtype.type(0)
    for i in rows:
        if slopes[i, k] == 0:
            continue
        by = rate
        if adaptive:
            squares = zero
            for t in range(k):
                squares += slopes[i, t] * slopes[i, t]
            factor[i, k] += squares * unit / factor.dtype.type(k)
            by = rate / np.sqrt(factor[i, k])
        for t in range(k):
            factor[i, t] = max(factor[i, t] + by * slopes[i, t], zero)
        slopes[i] = 0
