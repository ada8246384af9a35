"""Products of CSR blocks, accumulated in float64 without a float64 copy of a float32 block.

SciPy accumulates in the dtype of the block. Down a column of a million rows that loses two of the seven
digits of float32, and digits that H loses in this way are lost in every pass.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dask_nmf.kernels.compiled import compiled
from dask_nmf.types import Array

FEW = 8192  # entries of a column that may be added up in float32: 1e-7 is lost, and 3e-5 if all are equal


def matmul(v: Any, factor: Array) -> Array:
    """Return ``v factor``, (r, k), float64."""
    out = np.zeros((v.shape[0], factor.shape[1]))
    _times(v.data, v.indices, v.indptr, np.ascontiguousarray(factor, np.float64), out)
    return out


def transposed_product(v: Any, w: Array, h: Array | None) -> tuple[Array, float]:
    """Return ``vᵀ w``, (n, k), float64, and `residual_cross_terms` from one sweep; NaN if ``h`` is None.

    SciPy adds in float32 if no column has more than `FEW` entries.
    """
    if h is None and v.dtype == w.dtype == np.float32 and _fullest(v) <= FEW:
        return np.asarray(w.T @ v).T.astype(np.float64), np.nan
    num, own = np.zeros((v.shape[1], w.shape[1])), np.ascontiguousarray(w)
    if h is not None:
        return num, float(_sweep(v.data, v.indices, v.indptr, own, num, _columns(w, h)))
    _scatter(v.data, v.indices, v.indptr, own, num)
    return num, np.nan


def _fullest(v: Any) -> int:
    """Return the number of entries in the fullest column, or the number of rows if that is at most `FEW`."""
    if v.shape[0] <= FEW:
        return int(v.shape[0])
    return int(_counts(v.indices, np.zeros(v.shape[1], np.int64)).max(initial=0))


def residual_cross_terms(v: Any, w: Array, h: Array) -> float:
    """Return ``Σ v (v − 2 w h)`` over the stored entries, float64: all of the squared error but ‖w h‖²."""
    none = np.zeros((0, w.shape[1]))
    return float(_sweep(v.data, v.indices, v.indptr, np.ascontiguousarray(w), none, _columns(w, h)))


def _columns(w: Array, h: Array) -> Array:
    return np.ascontiguousarray(h.T, w.dtype)


@compiled(fastmath={"contract", "reassoc"})
def _times(data: Array, indices: Array, indptr: Array, factor: Array, out: Array) -> None:
    for i in range(len(out)):
        into = out[i]
        for p in range(indptr[i], indptr[i + 1]):
            value, f = np.float64(data[p]), factor[indices[p]]
            for t in range(len(into)):
                into[t] += value * f[t]


@compiled()
def _counts(indices: Array, counts: Array) -> Array:
    for p in range(len(indices)):
        counts[indices[p]] += 1
    return counts


@compiled(fastmath={"contract", "reassoc"})
def _scatter(data: Array, indices: Array, indptr: Array, w: Array, num: Array) -> None:
    k = w.shape[1]
    own = np.zeros(k)
    for i in range(len(w)):
        for t in range(k):
            own[t] = w[i, t]
        for p in range(indptr[i], indptr[i + 1]):
            value, into = np.float64(data[p]), num[indices[p]]
            for t in range(k):
                into[t] += value * own[t]


@compiled(fastmath={"contract", "reassoc"})
def _sweep(data: Array, indices: Array, indptr: Array, w: Array, num: Array, columns: Array) -> float:
    """Return `residual_cross_terms`; add each entry to ``num`` too, if that has rows."""
    k = w.shape[1]
    own = np.zeros(k)
    total = 0.0
    for i in range(len(w)):
        for t in range(k):
            own[t] = w[i, t]
        for p in range(indptr[i], indptr[i + 1]):
            value, j = np.float64(data[p]), indices[p]
            if len(num) > 0:
                into = num[j]
                for t in range(k):
                    into[t] += value * own[t]
            y, h = 0.0, columns[j]
            for t in range(k):
                y += own[t] * np.float64(h[t])
            total += value * (value - 2 * y)
    return total
