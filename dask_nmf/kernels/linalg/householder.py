"""Least squares by Householder's reflections, where equations differ in weight by many powers of ten.

With the heaviest equations first and the largest column chosen in each step, every equation keeps its own
digits: a light one is not lost beside one that is 1e9 times as heavy (Cox & Higham 1998).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import scipy.linalg

from dask_nmf.kernels.compiled import compiled
from dask_nmf.types import Array

EPS = float(np.finfo(np.float64).eps)
RANK = 64 * EPS  # norm, of 1 at first, below which what remains of a column is rounding: it depends on others


class PivotedQR(NamedTuple):
    """The factors of ``A = basis @ upper``, float64."""

    basis: Array  # (equations, m), orthonormal columns
    upper: Array  # (m, k), m ≤ k, the heaviest rows first


class RowProblem(NamedTuple):
    """The problem ``min_z ½ ‖A z − b‖² + lasso z`` of one row, and the memory for its reflections."""

    columns: Array  # (k + 1, m), the columns of A with norm 1, and b
    lasso: Array  # (k,)
    reflected: Array  # (k + 1, m)
    push: Array  # (k,), the contribution of the lasso to the residual, reflected


def pivoted_qr(h: Array, ridge: float = 0.0) -> PivotedQR:
    """Return the pivoted QR factors of A = hᵀ, for h (k, n).

    With an L2 penalty ``ridge ‖x‖²``, A has k more equations: the basis is returned without them, as their
    right-hand side is 0.
    """
    k, n = h.shape
    equations = np.empty((n + (k if ridge > 0 else 0), k))
    equations[:n] = h.T
    equations[n:] = np.sqrt(ridge) * np.eye(k)[: len(equations) - n]
    heaviest_first = np.argsort(-equations.max(axis=1), kind="stable")
    q, upper, places = scipy.linalg.qr(equations[heaviest_first], mode="economic", pivoting=True)
    basis, natural = np.empty_like(q), np.empty_like(upper)
    basis[heaviest_first], natural[:, places] = q, upper
    return PivotedQR(basis[:n], natural)


@compiled(fastmath={"contract", "reassoc"}, inlined=True)
def _rest(column: Array, first: int) -> Any:
    """Return the norm of a column from place ``first`` on."""
    total = 0.0
    for s in range(first, len(column)):
        total += column[s] * column[s]
    return np.sqrt(total)


@compiled(fastmath={"contract", "reassoc"}, inlined=True)
def triangularise(columns: Array, chosen: Array, order: Array) -> int:
    """Reflect a problem, (k + 1, m) with b last, until the chosen columns are triangular; return their rank.

    ``order`` receives the chosen columns that do not depend on others, the largest first; the column at place
    s is 0 below s.
    """
    k, m = len(columns) - 1, columns.shape[1]
    waiting, most = chosen.copy(), int(min(k, m))
    for rank in range(most):
        best, size = -1, RANK
        for t in range(k):
            norm = _rest(columns[t], rank) if waiting[t] else 0.0
            if norm > size:
                best, size = t, norm
        if best < 0:
            return rank
        order[rank] = best
        waiting[best] = False
        _reflect(columns, best, rank, size)
    return most


@compiled(fastmath={"contract", "reassoc"}, inlined=True)
def _reflect(columns: Array, by: int, rank: int, size: float) -> None:
    """Reflect the columns so that column ``by`` is zero below ``rank``.

    Columns that are triangular already are 0 there and do not change.
    """
    mirror = columns[by]
    first = mirror[rank]
    mirror[rank] += size if first >= 0 else -size
    share = 1 / (size * (size + abs(first)))
    for t in range(len(columns)):
        if t == by:
            continue
        column = columns[t]
        part = 0.0
        for s in range(rank, len(mirror)):
            part += mirror[s] * column[s]
        part *= share
        for s in range(rank, len(mirror)):
            column[s] -= part * mirror[s]
    mirror[rank] = -size if first >= 0 else size
    mirror[rank + 1 :] = 0


@compiled(fastmath={"contract", "reassoc"}, inlined=True)
def solve_free(table: RowProblem, x: Array, free: Array, held: Array, order: Array, z: Array) -> int:
    """Set z to the solution for the free components, of any sign; return the rank.

    Free components that depend on others are ``held`` at x.
    """
    columns, push, k = table.reflected, table.push, len(x)
    columns[:] = table.columns
    rank = triangularise(columns, free, order)
    held[:] = free
    for c in range(rank):
        held[order[c]] = False
    for t in range(k):
        if held[t]:
            z[t] = x[t]
            columns[k] -= x[t] * columns[t]
    for c in range(rank):
        rest = table.lasso[order[c]]
        for d in range(c):
            rest -= columns[order[c], d] * push[d]
        push[c] = rest / columns[order[c], c]
    for c in range(rank - 1, -1, -1):
        rest = columns[k, c] - push[c]
        for d in range(c + 1, rank):
            rest -= columns[order[d], c] * z[order[d]]
        z[order[c]] = rest / columns[order[c], c]
    return rank


@compiled(fastmath={"contract", "reassoc"}, inlined=True)
def slopes(table: RowProblem, rank: int, free: Array, slope: Array) -> None:
    """Set the slope of each component that is not free: by how much it lowers the loss, less rounding.

    Slopes come from the remainder of b after the reflections, in which no large numbers cancel.
    """
    columns, k = table.reflected, len(slope)
    left = columns[k]
    rest = _rest(left, rank)
    for t in range(k):
        if free[t]:
            continue
        part, size = -table.lasso[t], table.lasso[t] + rest
        for c in range(rank):
            part += columns[t, c] * table.push[c]
            size += abs(columns[t, c] * table.push[c])
        for c in range(rank, len(left)):
            part += columns[t, c] * left[c]
        slope[t] = part - k * EPS * size
