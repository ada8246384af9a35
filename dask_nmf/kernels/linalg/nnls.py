"""Exact non-negative least squares of many rows, by active sets from where coordinate descent ended.

A row x minimises ``½ ‖A x − b‖² + lasso Σ x`` over x ≥ 0. Lawson & Hanson's method (1974, chapter 23) solves
for the components that are free, and frees or fixes one at a time: it is finite, and no step raises the loss.
Components are scaled so that the columns of A have norm 1, and all is float64.

Normal equations, AᵀA and Aᵀb, are cheap and square the condition of A. Where that costs digits, the same
method works on A and b themselves (`householder`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from dask_nmf.kernels.compiled import compiled
from dask_nmf.kernels.linalg.active_set import (
    RowEquations,
    begin_row,
    end_row,
    exchange_components,
    factorise_free,
    workspace,
)
from dask_nmf.kernels.linalg.householder import RowProblem, triangularise
from dask_nmf.types import Array

PIECE = 2048  # rows that are copied to float64 at once


def solve_equations(x: Array, num: Array, gram: Array) -> Array:
    """Solve for the rows of x in place by normal equations; return the least pivot of each row, (rows,).

    Parameters
    ----------
    x : (rows, k), ≥ 0; the nearer to the solution, the fewer steps. A component of zeros in A stays as it is.
    num : (rows, k), Aᵀb less the lasso.
    gram : (k, k), AᵀA of all rows; or that of each row, packed as in `masked`.

    Notes
    -----
    A pivot is between 0 and 1, and 1 if no component is like others; rounding is divided by it.
    """
    k = x.shape[1]
    own = gram.shape != (k, k)
    packed = np.ascontiguousarray(gram if own else gram[np.tril_indices(k)][None], np.float64)
    pivots = np.ones(len(x))
    for some in _pieces(len(x)):
        wide = x[some].astype(np.float64)
        solve_packed(wide, num[some].astype(np.float64), packed[some] if own else packed, pivots[some])
        x[some] = wide
    return pivots


def solve_qr(x: Array, upper: Array, target: Array, lasso: float = 0.0) -> None:
    """Solve for the rows of x in place, with one A for all rows.

    Parameters
    ----------
    x : (rows, k), ≥ 0.
    upper : (m, k), A; its heaviest rows first.
    target : (rows, m), b, float64.
    lasso : the L1 penalty of each component.
    """
    columns = np.zeros((upper.shape[1] + 1, len(upper)))
    columns[:-1] = upper.T
    for some in _pieces(len(x)):
        wide = x[some].astype(np.float64)
        _by_factor(wide, columns.copy(), np.ascontiguousarray(target[some]), float(lasso))
        x[some] = wide


def solve_cells(x: Array, which: Array, cells: Any, factor: Array, ridge: Array, lasso: Array) -> None:
    """Solve for some rows of x, (rows, k) float64, in place from their `Cells`, without normal equations.

    Parameters
    ----------
    which : indices of the rows.
    factor : (columns, k).
    ridge, lasso : the penalties ``½ ridge ‖x‖² + lasso Σ x`` of each row, (rows,), float64.
    """
    if len(which):
        values, weights, indices, indptr = cells[:4]
        wide = np.ascontiguousarray(factor, np.float64)
        _of_cells(x, which, values, weights, indices, indptr, wide, ridge, lasso)


def least_pivot(gram: Array) -> float:
    """Return the least pivot of a gram matrix, (k, k), as defined in `solve_equations`."""
    return float(solve_equations(np.zeros((1, len(gram))), np.zeros((1, len(gram))), gram)[0])


def _pieces(rows: int) -> Iterator[slice]:
    return (slice(first, first + PIECE) for first in range(0, rows, PIECE))


@compiled(fastmath={"contract", "reassoc"}, inlined=True)
def solve_packed(x: Array, num: Array, gram: Array, pivots: Array) -> None:
    rows, k = x.shape
    room, scale, row = workspace(k), np.zeros(k), RowEquations(np.zeros((k, k)), np.zeros(k))
    least = 1.0
    for i in range(rows):
        if i < len(gram):
            _scale(gram[i], row.square, scale)
            for t in range(k):
                room.free[t] = scale[t] > 0
            least = factorise_free(row.square, room)[1]
        pivots[i] = least
        for t in range(k):
            row.num[t] = num[i, t] * scale[t]
        begin_row(x[i], scale, room)
        exchange_components(row, None, room)
        end_row(x[i], scale, room)


@compiled(fastmath={"contract", "reassoc"})
def _by_factor(x: Array, columns: Array, target: Array, lasso: float) -> None:
    k = x.shape[1]
    room, scale = workspace(k), _to_unit(columns)
    table = RowProblem(columns, lasso * scale, np.zeros(columns.shape), np.zeros(k))
    for i in range(len(x)):
        columns[k] = target[i]
        begin_row(x[i], scale, room)
        exchange_components(None, table, room)
        end_row(x[i], scale, room)


@compiled(fastmath={"contract", "reassoc"})
def _of_cells(
    x: Array, which: Array, values: Array, weights: Array, indices: Array, indptr: Array, factor: Array,
    ridge: Array, lasso: Array,
) -> None:  # fmt: skip
    k = x.shape[1]
    room, everything = workspace(k), np.ones(k, np.bool_)
    for i in which:
        a, b = indptr[i], indptr[i + 1]
        columns = _equations_of(values[a:b], weights[a:b], indices[a:b], factor, np.sqrt(ridge[i]))
        scale = _to_unit(columns)
        triangularise(columns, everything, room.order)
        few = columns[:, : min(columns.shape[1], k)].copy()
        table = RowProblem(few, lasso[i] * scale, np.zeros(few.shape), np.zeros(k))
        begin_row(x[i], scale, room)
        exchange_components(None, table, room)
        end_row(x[i], scale, room)


@compiled(fastmath={"contract", "reassoc"}, inlined=True)
def _equations_of(values: Array, weights: Array, indices: Array, factor: Array, root: float) -> Array:
    """Return √ω f and √ω v of each cell, (k + 1, m), with rows of an L2 penalty; the heaviest first."""
    k, cells = factor.shape[1], len(values)
    size = np.full(cells + (k if root > 0 else 0), root)
    for p in range(cells):
        size[p] = 0.0
        for t in range(k):
            size[p] = max(size[p], factor[indices[p], t])
        size[p] *= np.sqrt(np.float64(weights[p])) if len(weights) > 0 else 1.0
    columns = np.zeros((k + 1, len(size)))
    order = np.argsort(-size)
    for place in range(len(order)):
        p = order[place]
        if p >= cells:
            columns[p - cells, place] = root
            continue
        weight = np.sqrt(np.float64(weights[p])) if len(weights) > 0 else 1.0
        for t in range(k):
            columns[t, place] = weight * factor[indices[p], t]
        columns[k, place] = weight * values[p]
    return columns


@compiled(fastmath={"contract", "reassoc"}, inlined=True)
def _to_unit(columns: Array) -> Array:
    """Scale all columns but the last to norm 1; return the scales, 0 for a column of zeros."""
    scale = np.zeros(len(columns) - 1)
    for t in range(len(scale)):
        largest, total = 0.0, 0.0
        for s in range(columns.shape[1]):
            largest = max(largest, abs(columns[t, s]))
        for s in range(columns.shape[1] if largest > 0 else 0):
            total += (columns[t, s] / largest) ** 2
        scale[t] = 1 / (largest * np.sqrt(total)) if largest > 0 else 0.0
        for s in range(columns.shape[1]):
            columns[t, s] *= scale[t]
    return scale


@compiled(fastmath={"contract", "reassoc"}, inlined=True)
def _scale(triangle: Array, square: Array, scale: Array) -> None:
    """Unpack a gram matrix with its diagonal scaled to 1."""
    for t in range(len(square)):
        diagonal = triangle[t * (t + 3) // 2]
        scale[t] = 1 / np.sqrt(diagonal) if diagonal > 0 else 0.0
    at = 0
    for t in range(len(square)):
        for u in range(t + 1):
            square[t, u] = square[u, t] = triangle[at] * scale[t] * scale[u]
            at += 1
