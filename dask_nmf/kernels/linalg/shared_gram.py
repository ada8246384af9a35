"""Coordinate descent of rows that share one gram matrix, or one for each group of rows."""

from __future__ import annotations

import numpy as np

from dask_nmf.kernels.compiled import compiled
from dask_nmf.kernels.linalg.gram_matrices import GroupedGram, multiply_rows
from dask_nmf.types import Array

LANES = 32  # rows descended side by side: they fill vector registers, and few lanes wait for the last row


@compiled(fastmath={"contract", "nsz"}, inlined=True)
def descend(x: Array, num: Array, gram: Array, tol: float, sweeps: int) -> None:
    """Run coordinate descent with LANES rows in flight; a row that is done gives its lane to the next."""
    rows, k = num.shape
    wide = (k + 3) // 4 * 4
    zero = x.dtype.type(0)
    rounding = x.dtype.type(k * np.finfo(x.dtype).eps) ** 2
    g = np.zeros((k, wide), x.dtype)
    g[:, :k] = gram
    xs = np.zeros((wide, LANES), x.dtype)
    nums = np.zeros((k, LANES), x.dtype)
    rest = np.zeros(LANES, x.dtype)
    moved = np.zeros(LANES, x.dtype)
    first = np.zeros(LANES, x.dtype)
    size = np.zeros(LANES, x.dtype)
    done = np.zeros(LANES, np.int64)
    row = np.full(LANES, -1, np.int64)
    upcoming = 0
    busy = 0
    for j in range(min(LANES, rows)):
        row[j] = upcoming
        xs[:k, j] = x[upcoming]
        nums[:, j] = num[upcoming]
        upcoming += 1
        busy += 1
    while busy > 0:
        moved[:] = zero
        size[:] = zero
        for t in range(k):
            weight = g[t, t]
            if weight <= zero:
                continue
            inverse = 1 / weight
            rest[:] = nums[t]
            for u in range(0, wide, 4):
                g0, g1, g2, g3 = g[t, u], g[t, u + 1], g[t, u + 2], g[t, u + 3]
                for j in range(LANES):
                    rest[j] -= g0 * xs[u, j] + g1 * xs[u + 1, j] + g2 * xs[u + 2, j] + g3 * xs[u + 3, j]
            for j in range(LANES):
                old = xs[t, j]
                new = max(old + rest[j] * inverse, zero)
                xs[t, j] = new
                moved[j] += (new - old) * (new - old) * weight
                size[j] += new * new * weight
        for j in range(LANES):
            if row[j] < 0:
                continue
            if done[j] == 0:
                first[j] = moved[j]
            done[j] += 1
            limit = max(tol * tol * first[j], rounding * size[j])
            if moved[j] > limit and done[j] < sweeps:
                continue
            x[row[j]] = xs[:k, j]
            if upcoming < rows:
                row[j] = upcoming
                xs[:k, j] = x[upcoming]
                nums[:, j] = num[upcoming]
                done[j] = 0
                upcoming += 1
            else:
                row[j] = -1
                busy -= 1


def descend_groups(start: Array, num: Array, gram: GroupedGram, tol: float, sweeps: int) -> Array:
    """Return the solution of `least_squares.refit` with one gram matrix for each group of rows."""
    order, edges = gram.order
    x = np.array(start[order], order="C")
    squares = gram.squares.astype(x.dtype, copy=False)
    _descend_groups(x, num[order].astype(x.dtype, copy=False), squares, edges, x.dtype.type(tol), sweeps)
    out = np.empty_like(x)
    out[order] = x
    return out


@compiled()
def _descend_groups(x: Array, num: Array, squares: Array, edges: Array, tol: float, sweeps: int) -> None:
    for group in range(len(squares)):
        first, last = edges[group], edges[group + 1]
        if first < last:
            descend(x[first:last], num[first:last], squares[group], tol, sweeps)


def unit_inverses(squares: Array, trifle: float) -> tuple[Array, Array]:
    """Return inverses of gram matrices scaled to a diagonal of 1 + ``trifle``, and the scales, float64.

    Parameters
    ----------
    squares : (…, k, k); a component with a diagonal of 0 gets the scale 0.
    """
    diagonal = np.diagonal(squares, axis1=-2, axis2=-1)
    scale = np.sqrt(np.divide(1, diagonal, out=np.zeros(diagonal.shape), where=diagonal > 0))
    unit = scale[..., :, None] * squares * scale[..., None, :]
    k = squares.shape[-1]
    unit[..., np.arange(k), np.arange(k)] = 1 + trifle
    return np.linalg.inv(unit), scale


def clipped_lstsq_groups(num: Array, gram: GroupedGram, trifle: float) -> Array:
    """Return the solution of `least_squares.clipped_lstsq` with one gram matrix for each group of rows."""
    inverses, scale = unit_inverses(gram.squares, trifle)
    narrow = scale.astype(num.dtype)[gram.groups]
    x = multiply_rows(num * narrow, inverses.astype(num.dtype), gram.groups)
    return np.asarray(np.maximum(x * narrow, 0))
