"""Gradient steps on one block of V, by minibatches: stochastic gradient descent for V ≈ W H, W and H ≥ 0.

For an entry v with e = v − w h the loss is ``e² + α_w ‖w‖² + α_h ‖h‖²``; a minibatch adds up the steps
``w ← max(0, w + η (e h − α_w w))`` and ``h ← max(0, h + η (e w − α_h h))``, all from the values before it.

Here a factor is held by rows, (rows, k + 1): its last column is what AdaGrad remembers of the gradients of
a row, their squares added up, in units of ``unit³`` so that it is free of the scale of V.
"""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np
import scipy.sparse

from dask_nmf.cells import Array, Block, Cells

ONE = 1.0  # what AdaGrad begins with


class Descent(NamedTuple):
    """How steps are taken."""

    rate: float  # η; for AdaGrad relative to the entries of factors
    adaptive: bool  # AdaGrad
    unit: float  # the mean of V
    left: float  # α_w
    right: float  # α_h
    batch: int  # rows, or cells


def extended(factor: Array) -> Array:
    """A factor (rows, k) with what AdaGrad begins with, (rows, k + 1)."""
    return np.column_stack([factor, np.full(len(factor), ONE, factor.dtype)])


def descend_rows(v: Block, left: Array, right: Array, order: Array, how: Descent) -> float:
    """Minibatches of rows of a block (r, c) of which every entry counts; changes both factors.

    Returns
    -------
    Σ e², each e as its minibatch found it.
    """
    total = 0.0
    for first in range(0, len(order), how.batch):
        rows = order[first : first + how.batch]
        block = v[rows].toarray() if scipy.sparse.issparse(v) else v[rows]
        w, h = left[rows, :-1], right[:, :-1].copy()
        rest = block - w @ h.T
        total += float(np.einsum("ij,ij->i", rest, rest).sum(dtype=np.float64))
        slope = (
            rest @ h - w.dtype.type(how.left * len(h)) * w,
            rest.T @ w - w.dtype.type(how.right * len(w)) * h,
        )
        left[rows] = _stepped(left[rows], slope[0], how)
        right[:] = _stepped(right, slope[1], how)
    return total


def _stepped(factor: Array, slope: Array, how: Descent) -> Array:
    """Rows of a factor after a step along a slope."""
    kind = factor.dtype.type
    out = factor.copy()
    rate: Array | float = how.rate
    if how.adaptive:
        out[:, -1] += np.mean(np.square(slope * kind(how.unit**-1.5)), axis=1)
        rate = how.rate / how.unit / np.sqrt(out[:, -1:])
    np.maximum(factor[:, :-1] + np.asarray(rate, kind) * slope, 0, out=out[:, :-1])
    return out


def descend_cells(cells: Cells, left: Array, right: Array, order: Array, how: Descent) -> float:
    """Minibatches of cells, row by row in the given order of rows; changes both factors.

    Returns
    -------
    Σ e², each e as its minibatch found it.
    """
    kind = left.dtype.type
    numbers = how.rate / (how.unit if how.adaptive else 1.0), how.unit**-3, how.left, how.right
    arguments = cells.values, cells.indices, cells.indptr, order, left, right
    if how.batch == 1:
        return float(_one_by_one(*arguments, how.adaptive, *map(kind, numbers)))
    return float(_in_batches(*arguments, how.adaptive, *map(kind, numbers), how.batch))


@numba.njit(nogil=True, cache=True, fastmath={"contract", "reassoc", "nsz"})
def _one_by_one(
    values: Array,
    indices: Array,
    indptr: Array,
    order: Array,
    left: Array,
    right: Array,
    adaptive: bool,
    rate: float,
    unit: float,
    alpha: float,
    beta: float,
) -> float:
    """Each cell by itself, from values that the one before has changed."""
    k = left.shape[1] - 1
    zero = left.dtype.type(0)
    share = unit / left.dtype.type(k)
    total = 0.0
    for i in order:
        w = left[i]
        for p in range(indptr[i], indptr[i + 1]):
            h = right[indices[p]]
            rest = values[p]
            for t in range(k):
                rest -= w[t] * h[t]
            total += np.float64(rest) * np.float64(rest)
            by_row, by_column = rate, rate
            if adaptive:
                of_row, of_column = zero, zero
                for t in range(k):
                    slope_w, slope_h = rest * h[t] - alpha * w[t], rest * w[t] - beta * h[t]
                    of_row += slope_w * slope_w
                    of_column += slope_h * slope_h
                w[k] += of_row * share
                h[k] += of_column * share
                by_row, by_column = rate / np.sqrt(w[k]), rate / np.sqrt(h[k])
            for t in range(k):
                x, y = w[t], h[t]
                w[t] = max(x + by_row * (rest * y - alpha * x), zero)
                h[t] = max(y + by_column * (rest * x - beta * y), zero)
    return total


@numba.njit(nogil=True, cache=True, fastmath={"contract", "reassoc", "nsz"})
def _in_batches(
    values: Array,
    indices: Array,
    indptr: Array,
    order: Array,
    left: Array,
    right: Array,
    adaptive: bool,
    rate: float,
    unit: float,
    alpha: float,
    beta: float,
    batch: int,
) -> float:
    """The slopes of a batch of cells are added up before a step is taken."""
    k = left.shape[1] - 1
    slopes_left, slopes_right = np.zeros_like(left), np.zeros_like(right)
    rows, columns = np.empty(batch, np.int64), np.empty(batch, np.int64)
    filled, total = 0, 0.0
    for at in range(len(order) + 1):
        last = at == len(order)
        i = order[at] if not last else 0
        for p in range(indptr[i], indptr[i + 1] if not last else indptr[i]):
            j = indices[p]
            rest = values[p]
            for t in range(k):
                rest -= left[i, t] * right[j, t]
            total += np.float64(rest) * np.float64(rest)
            for t in range(k):
                slopes_left[i, t] += rest * right[j, t] - alpha * left[i, t]
                slopes_right[j, t] += rest * left[i, t] - beta * right[j, t]
            slopes_left[i, k] = 1
            slopes_right[j, k] = 1
            rows[filled], columns[filled] = i, j
            filled += 1
            if filled == batch:
                _step(left, slopes_left, rows[:filled], adaptive, rate, unit)
                _step(right, slopes_right, columns[:filled], adaptive, rate, unit)
                filled = 0
    _step(left, slopes_left, rows[:filled], adaptive, rate, unit)
    _step(right, slopes_right, columns[:filled], adaptive, rate, unit)
    return total


@numba.njit(nogil=True, cache=True, fastmath={"contract", "reassoc", "nsz"})
def _step(factor: Array, slopes: Array, rows: Array, adaptive: bool, rate: float, unit: float) -> None:
    """Step along the slopes of some rows, each once, and forget them."""
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
