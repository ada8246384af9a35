"""NMF on plain blocks of memory: no dask, no I/O, no state.

Everything here takes NumPy arrays or ``scipy.sparse.csr_array`` rows of V and returns NumPy arrays.
Lower-case ``v (r, n)``, ``w (r, k)``, ``h (k, n)`` are one block; sums over blocks are float64.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numba
import numpy as np
import scipy.sparse
from numpy.typing import NDArray

Array = NDArray[Any]
Block = Any  # NDArray or scipy.sparse.csr_array: the two share @, .T, .shape and row slices

LANES = 64  # rows descended side by side: fills the vector registers, and k x LANES stays in L1
SWEEPS = 500
STRIP = 256  # rows of a block looked at together where a temporary of the block's width is needed


class DataError(ValueError):
    """V, or what holds it, is not what NMF can take."""


class BadEntry(DataError):
    """An entry that no NMF can take: negative or not finite."""

    def __init__(self, row: int, column: int, value: float) -> None:
        super().__init__(row, column, value)
        self.row, self.column, self.value = row, column, value

    def __str__(self) -> str:
        need = (
            "NMF takes entries >= 0: shift or clip V"
            if -np.inf < self.value < 0
            else "NMF takes finite entries: replace or drop them"
        )
        return f"V has {self.value} at row {self.row}, column {self.column}; {need}"

    def at(self, first_row: int, transposed: bool = False) -> BadEntry:
        """The same entry where the block begins at ``first_row``, and may be columns of V."""
        row = self.row + first_row
        if transposed:
            return BadEntry(self.column, row, self.value)
        return BadEntry(row, self.column, self.value)


class Sums(NamedTuple):
    """All that H needs to know about some rows of V. Adds over rows."""

    num: Array  # WᵀV, (k, n)
    gram: Array  # WᵀW, (k, k)
    residual: float  # ‖V − W H‖², NaN unless it was asked for

    def __add__(self, other: Sums) -> Sums:  # type: ignore[override]
        return Sums(self.num + other.num, self.gram + other.gram, self.residual + other.residual)


def refit(start: Array, num: Array, gram: Array, tol: float, sweeps: int = SWEEPS) -> Array:
    """Solve ``min_{x ≥ 0} ½⟨x G, x⟩ − ⟨num, x⟩`` for every row of x by cyclic coordinate descent.

    NMF is symmetric, so this serves both sides: W with (VHᵀ, HHᵀ), and Hᵀ with ((WᵀV)ᵀ, WᵀW).

    Parameters
    ----------
    start, num : (rows, k), same float dtype. ``start`` must be ≥ 0; it is not changed.
    gram : (k, k), symmetric positive semidefinite. A component with ``gram[t, t] = 0`` is left alone.
    tol : a row is done when a sweep moves it less than ``tol`` times its first sweep, in the norm that
        weighs component t by ``gram[t, t]``, or less than rounding. Each row stops by itself, so the
        answer for a row does not depend on its neighbours.
    sweeps : most sweeps a row gets.

    Source: HALS, Cichocki & Phan 2009; repeated sweeps on fixed products, Gillis & Glineur 2012.
    """
    x = np.array(start, order="C")
    _descend(
        x,
        np.ascontiguousarray(num, dtype=x.dtype),
        np.ascontiguousarray(gram, dtype=x.dtype),
        x.dtype.type(tol),
        sweeps,
    )
    return x


@numba.njit(nogil=True, cache=True, fastmath={"contract", "nsz"})
def _descend(x: Array, num: Array, gram: Array, tol: float, sweeps: int) -> None:
    """Coordinate descent with LANES rows in flight; a row that is done gives its lane to the next."""
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


def guess(num: Array, gram: Array) -> Array:
    """The least-squares solution of ``x gram = num`` clipped at zero: a start for `refit`."""
    scale = np.trace(gram, dtype=np.float64) / len(gram)
    if scale == 0:
        return np.zeros_like(num)
    inverse = np.linalg.inv(gram / scale + 1e-7 * np.eye(len(gram)))
    return np.asarray(np.maximum(num @ inverse.astype(num.dtype) / num.dtype.type(scale), 0))


def solve(num: Array, gram: Array, tol: float) -> Array:
    """`refit` from the best start that needs no other."""
    return refit(guess(num, gram), num, gram, tol)


def solve_weights(v: Block, h: Array, tol: float) -> Array:
    """W of a block given H: ``argmin_{w ≥ 0} ‖v − w h‖²``, (r, k), to the tolerance of `refit`."""
    return solve(np.asarray(v @ h.T), h @ h.T, tol)


def multiply(x: Array, num: Array, gram: Array, delta: float, repeats: int) -> Array:
    """Multiplicative update ``x ← x ∘ num / (x gram + δ)``, repeated on fixed products.

    Source: Lee & Seung 2001; repeats, Gillis & Glineur 2012.
    """
    for _ in range(repeats):
        x = x * num / (x @ gram + x.dtype.type(delta))
    return x


def sums(v: Block, w: Array, h: Array | None = None) -> Sums:
    """What H learns from a block: see `Sums`. The residual is taken where ``h`` is given."""
    wide = w.astype(np.float64, copy=False)
    return Sums(
        np.asarray(w.T @ v).astype(np.float64),
        wide.T @ wide,
        np.nan if h is None else residual(v, w, h),
    )


def residual(v: Block, w: Array, h: Array) -> float:
    """‖v − w h‖² in float64: entry by entry for a dense block, so that nothing cancels.

    A CSR block is never filled: its form is expanded, which holds down to a relative error of 1e-7.
    """
    if scipy.sparse.issparse(v):
        v, w, h = (x.astype(np.float64, copy=False) for x in (v, w, h))
        cross = np.vdot(v @ h.T, w)
        return float(np.vdot(v.data, v.data) - 2 * cross + np.vdot(w.T @ w, h @ h.T))
    total = 0.0
    for first in range(0, v.shape[0], STRIP):
        rest = w[first : first + STRIP] @ h
        np.subtract(v[first : first + STRIP], rest, out=rest)
        total += float(np.einsum("ij,ij->i", rest, rest).sum(dtype=np.float64))
    return total


def expanded_loss(sumsq: float, totals: Sums, h: Array) -> float:
    """‖V − W H‖² from sums alone: ``‖V‖² − 2⟨WᵀV, H⟩ + ⟨WᵀW, HHᵀ⟩``, in float64.

    It cancels: below a relative error of about 0.01 (float32 blocks) trust `residual` instead.
    """
    wide = h.astype(np.float64, copy=False)
    return float(sumsq - 2 * np.vdot(totals.num, wide) + np.vdot(totals.gram, wide @ wide.T))


class Measure(NamedTuple):
    """What one look at a block tells."""

    total: float  # Σ v
    norms: Array  # ‖v_i‖² of each row, float64
    stored: int  # entries held: all of a dense block, the explicit ones of a CSR block
    bad: BadEntry | None  # the first one


def measure(v: Block) -> Measure:
    """Check and measure a block in one look."""
    if scipy.sparse.issparse(v):
        total, norms, at = _measure_rows(v.data, v.indptr)
        bad = None if at < 0 else BadEntry(_row_of(v.indptr, at), int(v.indices[at]), float(v.data[at]))
        return Measure(total, norms, int(v.nnz), bad)
    if v.flags.f_contiguous and not v.flags.c_contiguous:
        total, norms, sound = _measure_columns(v.T)
    else:
        edges = np.arange(len(v) + 1, dtype=np.int64) * v.shape[1]
        total, norms, at = _measure_rows(np.ascontiguousarray(v).reshape(-1), edges)
        sound = at < 0
    return Measure(total, norms, int(v.size), None if sound else _first_bad(v))


def _row_of(indptr: Array, at: int) -> int:
    return int(np.searchsorted(indptr, at, side="right")) - 1


def _first_bad(v: Array) -> BadEntry:
    rows, columns = np.nonzero(~((v >= 0) & (v < np.inf)))
    row, column = int(rows[0]), int(columns[0])
    return BadEntry(row, column, float(v[row, column]))


@numba.njit(nogil=True, cache=True, fastmath={"contract", "reassoc"})
def _measure_rows(data: Array, indptr: Array) -> tuple[float, Array, int]:
    """Sum, squared norm of each row, and the position of the first entry that is not in [0, ∞), or -1."""
    norms = np.zeros(len(indptr) - 1)
    total = 0.0
    for i in range(len(norms)):
        sound = True
        part, norm = 0.0, 0.0
        for p in range(indptr[i], indptr[i + 1]):
            value = np.float64(data[p])
            sound &= (value >= 0) & (value < np.inf)
            part += value
            norm += value * value
        if not sound:
            for p in range(indptr[i], indptr[i + 1]):
                if not (data[p] >= 0 and data[p] < np.inf):
                    return total, norms, p
        norms[i] = norm
        total += part
    return total, norms, -1


@numba.njit(nogil=True, cache=True, fastmath={"contract", "reassoc"})
def _measure_columns(columns: Array) -> tuple[float, Array, bool]:
    """The same of a block given by its columns, (n, r); and whether every entry is in [0, ∞)."""
    norms = np.zeros(columns.shape[1])
    total, sound = 0.0, True
    for j in range(len(columns)):
        part = 0.0
        for i in range(len(norms)):
            value = np.float64(columns[j, i])
            sound &= (value >= 0) & (value < np.inf)
            part += value
            norms[i] += value * value
        total += part
    return total, norms, sound
