"""Active sets for one row of non-negative least squares (Lawson & Hanson 1974), in compiled loops."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from dask_nmf.kernels.compiled import compiled
from dask_nmf.kernels.linalg import householder
from dask_nmf.types import Array

EPS = float(np.finfo(np.float64).eps)

DEPENDENT = 64 * EPS  # a pivot up to this is rounding: the component depends on others

MOST_CHANGES = 10  # most changes of the free components, times their number: rows do not come near


class RowEquations(NamedTuple):
    """The normal equations of one row."""

    square: Array  # (k, k), AᵀA
    num: Array  # (k,), Aᵀb less the lasso


class Workspace(NamedTuple):
    """The memory in which a row is solved."""

    x: Array  # (k,), the row, in the units in which A has columns of norm 1
    free: Array  # (k,), the components that are not fixed at 0
    held: Array  # (k,), free components that stay as they are, because they depend on other free ones
    barred: Array  # (k,), fixed components that are known to gain nothing
    order: Array  # (k,), free components by their pivots
    lower: Array  # (k, k), Cholesky's factor of the free components
    z: Array  # (k,), the solution for the free components, of any sign
    slope: Array  # (k,), by how much a fixed component lowers the loss, less the rounding in it


@compiled(fastmath={"contract", "reassoc"}, inlined=True)
def workspace(k: int) -> Workspace:
    free, held, barred = np.zeros(k, np.bool_), np.zeros(k, np.bool_), np.zeros(k, np.bool_)
    order, lower = np.zeros(k, np.int64), np.zeros((k, k))
    return Workspace(np.zeros(k), free, held, barred, order, lower, np.zeros(k), np.zeros(k))


@compiled(fastmath={"contract", "reassoc"}, inlined=True)
def begin_row(x: Array, scale: Array, room: Workspace) -> None:
    """Load a row in the units in which A has columns of norm 1."""
    for t in range(len(x)):
        room.x[t] = x[t] / scale[t] if scale[t] > 0 else 0.0
        room.free[t] = room.x[t] > 0
        room.barred[t] = False


@compiled(fastmath={"contract", "reassoc"}, inlined=True)
def end_row(x: Array, scale: Array, room: Workspace) -> None:
    for t in range(len(x)):
        if scale[t] > 0:
            x[t] = room.x[t] * scale[t]


@compiled(fastmath={"contract", "reassoc"}, inlined=True)
def exchange_components(row: Any, table: Any, room: Workspace) -> None:
    """Free and fix components until no fixed one would lower the loss.

    Either ``row`` or ``table`` is None, and numba leaves out the code for it.
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


@compiled(fastmath={"contract", "reassoc"}, inlined=True)
def _steepest(room: Workspace) -> int:
    """Return the fixed component that lowers the loss most, or -1 if none does."""
    found = -1
    for t in range(len(room.x)):
        gains = room.slope[t] > 0 and not room.free[t] and not room.barred[t]
        if gains and (found < 0 or room.slope[t] > room.slope[found]):
            found = t
    return found


@compiled(fastmath={"contract", "reassoc"}, inlined=True)
def _stopped(room: Workspace) -> bool:
    """Move x to z, or as far as no component is negative; return whether the move fixed one."""
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


@compiled(fastmath={"contract", "reassoc"}, inlined=True)
def factorise_free(square: Array, room: Workspace) -> tuple[int, float]:
    """Factorise the gram matrix of the free components; return its rank and its least pivot.

    That pivot may be rounding, namely of a component that depends on others.
    """
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


@compiled(fastmath={"contract", "reassoc"}, inlined=True)
def _least(row: RowEquations, room: Workspace) -> None:
    """Set z to the solution for the free components, of any sign; those that depend on others keep x."""
    rank, _ = factorise_free(row.square, room)
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


@compiled(fastmath={"contract", "reassoc"}, inlined=True)
def _slopes(row: RowEquations, room: Workspace) -> None:
    """Set the slope of each component that is not free: by how much it lowers the loss, less rounding."""
    x, k = room.x, len(room.x)
    for t in range(k):
        if room.free[t]:
            continue
        part, size = row.num[t], abs(row.num[t])
        for u in range(k):
            part -= row.square[t, u] * x[u]
            size += row.square[t, u] * x[u]
        room.slope[t] = part - k * EPS * size
