"""Products of the stored entries of CSR blocks: added up in float64, without a copy of a block of float32.

SciPy adds in the dtype of the block. Down a column of a million rows that loses two of the seven digits of
float32, and what an H has lost so is lost in every pass.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dask_nmf.compiled import compiled

Array = NDArray[Any]


def times(v: Any, factor: Array) -> Array:
    """Return ``v factor``, (r, k) float64."""
    out = np.zeros((v.shape[0], factor.shape[1]))
    _times(v.data, v.indices, v.indptr, np.ascontiguousarray(factor, np.float64), out)
    return out


def learned(v: Any, w: Array, h: Array | None) -> tuple[Array, float]:
    """Return ``vᵀ w``, (n, k) float64, and what `cross` does if ``h`` is given: both in one sweep."""
    num = np.zeros((v.shape[1], w.shape[1]))
    return num, _sweep(v.data, v.indices, v.indptr, np.ascontiguousarray(w), num, _columns(w, h))


def cross(v: Any, w: Array, h: Array) -> float:
    """Return ``Σ v (v − 2 w h)`` over the stored entries, float64: all of the squared error but ‖w h‖²."""
    none = np.zeros((0, w.shape[1]))
    return float(_sweep(v.data, v.indices, v.indptr, np.ascontiguousarray(w), none, _columns(w, h)))


def _columns(w: Array, h: Array | None) -> Array:
    return np.zeros((0, w.shape[1]), w.dtype) if h is None else np.ascontiguousarray(h.T, w.dtype)


@compiled(fastmath={"contract", "reassoc"})
def _times(data: Array, indices: Array, indptr: Array, factor: Array, out: Array) -> None:
    for i in range(len(out)):
        into = out[i]
        for p in range(indptr[i], indptr[i + 1]):
            value, f = np.float64(data[p]), factor[indices[p]]
            for t in range(len(into)):
                into[t] += value * f[t]


@compiled(fastmath={"contract", "reassoc"})
def _sweep(data: Array, indices: Array, indptr: Array, w: Array, num: Array, columns: Array) -> float:
    """One look at each entry: into ``num`` and for ``columns``, if they have rows."""
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
            if len(columns) > 0:
                y, h = 0.0, columns[j]
                for t in range(k):
                    y += own[t] * np.float64(h[t])
                total += value * (value - 2 * y)
    return total
