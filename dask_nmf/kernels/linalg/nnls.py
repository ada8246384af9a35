"""Exact non-negative least squares of many rows, by active sets that begin where coordinate descent ended.

A row x minimises ``½ ‖A x − b‖² + lasso Σ x`` over x ≥ 0. Lawson & Hanson's method (1974, chapter 23) solves
for the components that are free, and frees or fixes one at a time: it is finite, and no step raises the loss.
Components are scaled so that the columns of A have norm 1, and all is float64.

Normal equations, AᵀA and Aᵀb, are cheap and square the condition of A. Where that costs digits, the same
method works on A and b themselves (`householder`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from dask_nmf.kernels.compiled import compiled
from dask_nmf.kernels.linalg import householder
from dask_nmf.kernels.linalg.householder import RowProblem, triangularise
from dask_nmf.types import Array

EPS = float(np.finfo(np.float64).eps)
DEPENDENT = 64 * EPS  # a pivot that is rounding: the component depends on others
MOST_CHANGES = 10  # of the free components, times their number: rows do not come near
PIECE = 2048  # rows that have a float64 copy at once


class _Equations(NamedTuple):
    """The normal equations of one row."""

    square: Array  # (k, k), AᵀA
    num: Array  # (k,), Aᵀb less the lasso


class _Room(NamedTuple):
    """The memory in which a row is solved."""

    x: Array  # (k,), the row, in the units in which A has columns of norm 1
    free: Array  # (k,), the components that are not fixed at 0
    held: Array  # (k,), those that stay as they are, because they depend on other free ones
    barred: Array  # (k,), fixed ones of which it is known that they gain nothing
    order: Array  # (k,), free components by their pivots
    lower: Array  # (k, k), Cholesky's factor of the free components
    z: Array  # (k,), the solution for the free components, of any sign
    slope: Array  # (k,), by how much a fixed component lowers the loss, less the rounding in it


def solve_equations(x: Array, num: Array, gram: Array) -> Array:
    """Change the rows of x to the solutions from normal equations; return the least pivot of each, (rows,).

    Parameters
    ----------
    x : (rows, k), ≥ 0: the nearer to the solution, the sooner. A component of zeros in A stays as it is.
    num : (rows, k), Aᵀb less the lasso.
    gram : (k, k), AᵀA of all rows; or that of each row, packed as in `masked`.

    Notes
    -----
    A pivot is between 0 and 1, 1 where no component is like others; rounding is divided by it.
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
    """Change the rows of x to the solutions for one A of all rows.

    Parameters
    ----------
    x : (rows, k), ≥ 0.
    upper : (m, k), A; its heaviest rows first.
    target : (rows, m), b, float64.
    """
    columns = np.zeros((upper.shape[1] + 1, len(upper)))
    columns[:-1] = upper.T
    for some in _pieces(len(x)):
        wide = x[some].astype(np.float64)
        _by_factor(wide, columns.copy(), np.ascontiguousarray(target[some]), float(lasso))
        x[some] = wide


def solve_cells(x: Array, which: Array, cells: Any, factor: Array, ridge: Array, lasso: Array) -> None:
    """Change some rows of x, (rows, k) float64, to the solutions from the cells of `Cells` themselves.

    Parameters
    ----------
    which : numbers of the rows.
    factor : (columns, k).
    ridge, lasso : the penalties ``½ ridge ‖x‖² + lasso Σ x`` of each row, (rows,), float64.
    """
    if len(which):
        values, weights, indices, indptr = cells[:4]
        wide = np.ascontiguousarray(factor, np.float64)
        _of_cells(x, which, values, weights, indices, indptr, wide, ridge, lasso)


def least_pivot(gram: Array) -> float:
    """Return the least pivot of a gram matrix, (k, k), as `solve_equations` does."""
    return float(solve_equations(np.zeros((1, len(gram))), np.zeros((1, len(gram))), gram)[0])


def _pieces(rows: int) -> Iterator[slice]:
    return (slice(first, first + PIECE) for first in range(0, rows, PIECE))


@compiled(fastmath={"contract", "reassoc"})
def _room(k: int) -> _Room:
    free, held, barred = np.zeros(k, np.bool_), np.zeros(k, np.bool_), np.zeros(k, np.bool_)
    order, lower = np.zeros(k, np.int64), np.zeros((k, k))
    return _Room(np.zeros(k), free, held, barred, order, lower, np.zeros(k), np.zeros(k))


@compiled(fastmath={"contract", "reassoc"})
def solve_packed(x: Array, num: Array, gram: Array, pivots: Array) -> None:
    rows, k = x.shape
    room, scale, row = _room(k), np.zeros(k), _Equations(np.zeros((k, k)), np.zeros(k))
    least = 1.0
    for i in range(rows):
        if i < len(gram):
            _scale(gram[i], row.square, scale)
            for t in range(k):
                room.free[t] = scale[t] > 0
            least = _factorise(row.square, room)[1]
        pivots[i] = least
        for t in range(k):
            row.num[t] = num[i, t] * scale[t]
        _begin(x[i], scale, room)
        _exchange(row, None, room)
        _end(x[i], scale, room)


@compiled(fastmath={"contract", "reassoc"})
def _by_factor(x: Array, columns: Array, target: Array, lasso: float) -> None:
    k = x.shape[1]
    room, scale = _room(k), _to_unit(columns)
    table = RowProblem(columns, lasso * scale, np.zeros(columns.shape), np.zeros(k))
    for i in range(len(x)):
        columns[k] = target[i]
        _begin(x[i], scale, room)
        _exchange(None, table, room)
        _end(x[i], scale, room)


@compiled(fastmath={"contract", "reassoc"})
def _of_cells(
    x: Array, which: Array, values: Array, weights: Array, indices: Array, indptr: Array, factor: Array,
    ridge: Array, lasso: Array,
) -> None:  # fmt: skip
    k = x.shape[1]
    room, everything = _room(k), np.ones(k, np.bool_)
    for i in which:
        a, b = indptr[i], indptr[i + 1]
        columns = _equations_of(values[a:b], weights[a:b], indices[a:b], factor, np.sqrt(ridge[i]))
        scale = _to_unit(columns)
        triangularise(columns, everything, room.order)
        few = columns[:, : min(columns.shape[1], k)].copy()
        table = RowProblem(few, lasso[i] * scale, np.zeros(few.shape), np.zeros(k))
        _begin(x[i], scale, room)
        _exchange(None, table, room)
        _end(x[i], scale, room)


@compiled(fastmath={"contract", "reassoc"})
def _equations_of(values: Array, weights: Array, indices: Array, factor: Array, root: float) -> Array:
    """Return √ω f and √ω v of each cell, (k + 1, m), and the rows of an L2 penalty; the heaviest first."""
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


@compiled(fastmath={"contract", "reassoc"})
def _to_unit(columns: Array) -> Array:
    """Scale all columns but the last to norm 1; return the factors, 0 for a column of zeros."""
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


@compiled(fastmath={"contract", "reassoc"})
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


@compiled(fastmath={"contract", "reassoc"})
def _begin(x: Array, scale: Array, room: _Room) -> None:
    """Take over a row in the units in which A has columns of norm 1."""
    for t in range(len(x)):
        room.x[t] = x[t] / scale[t] if scale[t] > 0 else 0.0
        room.free[t] = room.x[t] > 0
        room.barred[t] = False


@compiled(fastmath={"contract", "reassoc"})
def _end(x: Array, scale: Array, room: _Room) -> None:
    for t in range(len(x)):
        if scale[t] > 0:
            x[t] = room.x[t] * scale[t]


@compiled(fastmath={"contract", "reassoc"})
def _exchange(row: Any, table: Any, room: _Room) -> None:
    """Free and fix components until none that is fixed would lower the loss.

    One of ``row`` and ``table`` is None, and numba leaves out what is for the other.
    """
    entered = -1
    for _ in range(MOST_CHANGES * len(room.x)):
        rank = 0
        if row is not None:
            _least(row, room)
        if table is not None:
            rank = householder.solve_free(table, room.x, room.free, room.held, room.order, room.z)
        if entered >= 0 and not room.z[entered] > 0:
            room.free[entered], room.barred[entered] = False, True
        else:
            room.barred[:] = False
            entered = -1
            if _stopped(room):
                continue
            if row is not None:
                _slopes(row, room)
            if table is not None:
                householder.slopes(table, rank, room.free, room.slope)
        entered = _steepest(room)
        if entered < 0:
            return
        room.free[entered] = True


@compiled(fastmath={"contract", "reassoc"})
def _steepest(room: _Room) -> int:
    """Return the fixed component that lowers the loss most; -1 if none does."""
    found = -1
    for t in range(len(room.x)):
        gains = room.slope[t] > 0 and not room.free[t] and not room.barred[t]
        if gains and (found < 0 or room.slope[t] > room.slope[found]):
            found = t
    return found


@compiled(fastmath={"contract", "reassoc"})
def _stopped(room: _Room) -> bool:
    """Go to z, or as far as no component is negative; return whether that fixed one."""
    x, step, first = room.x, 1.0, -1
    for t in range(len(x)):
        if room.free[t] and not room.held[t] and room.z[t] <= 0:
            share = x[t] / (x[t] - room.z[t])
            if first < 0 or share < step:
                step, first = share, t
    for t in range(len(x)):
        if room.free[t] and not room.held[t]:
            x[t] = max(x[t] + step * (room.z[t] - x[t]), 0.0) if first >= 0 else room.z[t]
            if first >= 0 and (t == first or x[t] == 0):
                x[t], room.free[t] = 0.0, False
    return first >= 0


@compiled(fastmath={"contract", "reassoc"})
def _factorise(square: Array, room: _Room) -> tuple[int, float]:
    """Factorise the part of the free components; return its rank, and the least pivot, rounding or not."""
    rank, least = 0, 1.0
    for t in range(len(square)):
        room.held[t] = False
        if not room.free[t]:
            continue
        own, pivot = room.lower[rank], square[t, t]
        for c in range(rank):
            rest = square[t, room.order[c]]
            for d in range(c):
                rest -= own[d] * room.lower[c, d]
            own[c] = rest / room.lower[c, c]
            pivot -= own[c] * own[c]
        least = min(least, pivot)
        if pivot <= DEPENDENT:
            room.held[t] = True
            continue
        own[rank] = np.sqrt(pivot)
        room.order[rank] = t
        rank += 1
    return rank, max(least, 0.0)


@compiled(fastmath={"contract", "reassoc"})
def _least(row: _Equations, room: _Room) -> None:
    """Set z to the solution for the free components, of any sign; those that depend on others stay."""
    rank, _ = _factorise(row.square, room)
    x, order, lower, z = room.x, room.order, room.lower, room.z
    for c in range(rank):
        t = order[c]
        rest = row.num[t]
        for u in range(len(x)):
            if room.held[u]:
                rest -= row.square[t, u] * x[u]
        for d in range(c):
            rest -= lower[c, d] * z[order[d]]
        z[t] = rest / lower[c, c]
    for c in range(rank - 1, -1, -1):
        t = order[c]
        z[t] /= lower[c, c]
        for d in range(c):
            z[order[d]] -= lower[c, d] * z[t]
    for t in range(len(x)):
        if room.held[t]:
            z[t] = x[t]


@compiled(fastmath={"contract", "reassoc"})
def _slopes(row: _Equations, room: _Room) -> None:
    """Set by how much each component that is not free lowers the loss, less the rounding in it."""
    x, k = room.x, len(room.x)
    for t in range(k):
        if room.free[t]:
            continue
        part, size = row.num[t], abs(row.num[t])
        for u in range(k):
            part -= row.square[t, u] * x[u]
            size += row.square[t, u] * x[u]
        room.slope[t] = part - k * EPS * size
