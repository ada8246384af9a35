"""Least squares with one gram matrix a row, packed: its lower triangle, row by row."""

from __future__ import annotations

import numpy as np

from dask_nmf.kernels.compiled import compiled
from dask_nmf.types import Array


def packed_size(k: int) -> int:
    """Return the number of entries of the lower triangle of a (k, k) matrix."""
    return k * (k + 1) // 2


def descend(start: Array, num: Array, gram: Array, tol: float, sweeps: int) -> Array:
    """Return the solution of `least_squares.refit` with one packed gram matrix a row."""
    x = np.array(start, np.float64, order="C")
    _descend(x, num.astype(np.float64, copy=False), gram, tol, sweeps)
    return x.astype(start.dtype)


def clipped_lstsq(num: Array, gram: Array, trifle: float) -> Array:
    """Return the solution of `least_squares.clipped_lstsq` with one packed gram matrix a row."""
    x = _solve(num.astype(np.float64, copy=False), gram, trifle)
    return np.asarray(np.maximum(x, 0), num.dtype)


def apply_packed_gram(gram: Array, x: Array) -> Array:
    """Return each row of x (rows, k) times its packed gram matrix, float64."""
    return np.asarray(_apply(gram, np.ascontiguousarray(x, np.float64)))


def packed_diagonal(k: int) -> Array:
    """Return the positions of the diagonal in a packed matrix, (k,)."""
    t = np.arange(k)
    return t * (t + 3) // 2


@compiled(fastmath={"contract", "reassoc"}, inlined=True)
def _unpack(triangle: Array, square: Array) -> None:
    at = 0
    for t in range(len(square)):
        for u in range(t + 1):
            square[t, u] = triangle[at]
            square[u, t] = triangle[at]
            at += 1


@compiled(fastmath={"contract", "reassoc"})
def _apply(gram: Array, x: Array) -> Array:
    rows, k = x.shape
    square = np.zeros((k, k))
    out = np.zeros((rows, k))
    for i in range(rows):
        _unpack(gram[i], square)
        for t in range(k):
            for u in range(k):
                out[i, u] += x[i, t] * square[t, u]
    return out


@compiled(fastmath={"contract", "reassoc"})
def _solve(num: Array, gram: Array, trifle: float) -> Array:
    """Return least-squares solutions by Cholesky's factors, row by row.

    The diagonal is scaled to 1, and ``trifle`` is added to it. A component whose diagonal entry is 0 gets 0.
    """
    rows, k = num.shape
    x = num.copy()
    lower, scale = np.zeros((k, k)), np.zeros(k)
    for i in range(rows):
        _unpack(gram[i], lower)
        for t in range(k):
            scale[t] = 1 / np.sqrt(lower[t, t]) if lower[t, t] > 0 else 0.0
            x[i, t] *= scale[t]
        for t in range(k):
            for u in range(t + 1):
                rest = 1 + trifle if t == u else lower[t, u] * scale[t] * scale[u]
                for s in range(u):
                    rest -= lower[t, s] * lower[u, s]
                lower[t, u] = np.sqrt(max(rest, trifle)) if t == u else rest / lower[u, u]
            for s in range(t):
                x[i, t] -= lower[t, s] * x[i, s]
            x[i, t] /= lower[t, t]
        for t in range(k - 1, -1, -1):
            for s in range(t + 1, k):
                x[i, t] -= lower[s, t] * x[i, s]
            x[i, t] /= lower[t, t]
        for t in range(k):
            x[i, t] *= scale[t]
    return x


@compiled(fastmath={"contract", "reassoc"})
def _descend(x: Array, num: Array, gram: Array, tol: float, sweeps: int) -> None:
    """Run coordinate descent row by row, with the slope kept up to date."""
    rows, k = x.shape
    square = np.zeros((k, k))
    slope = np.zeros(k)
    for i in range(rows):
        _unpack(gram[i], square)
        if np.trace(square) <= 0:
            x[i] = 0
            continue
        slope[:] = num[i]
        for t in range(k):
            for u in range(k):
                slope[u] -= x[i, t] * square[t, u]
        first = 0.0
        for sweep in range(sweeps):
            moved, size = 0.0, 0.0
            for t in range(k):
                weight = square[t, t]
                if weight <= 0:
                    continue
                new = max(x[i, t] + slope[t] / weight, 0.0)
                step = new - x[i, t]
                moved += step * step * weight
                size += new * new * weight
                if step == 0:
                    continue
                x[i, t] = new
                for u in range(k):
                    slope[u] -= step * square[t, u]
            if sweep == 0:
                first = moved
            if moved <= max(tol * tol * first, (k * 2.2e-16) ** 2 * size):
                break
