"""The β-divergence of V from W H, on blocks given as `Cells`: multiplicative updates, their sums, losses.

``d_β(v | y)`` is half the squared error for β = 2, Kullback & Leibler's divergence for 1, Itakura & Saito's
for 0 (Févotte & Idier 2011). NMF is symmetric: ``factor`` is Hᵀ, (columns, k), for the rows of W, and W for
the columns of H. Any y that is a divisor is at least ``floor``.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from dask_nmf.kernels.blocks.masked import Cells
from dask_nmf.kernels.compiled import compiled
from dask_nmf.types import Array

TINY = float(np.finfo(np.float64).tiny)


class RowPenalty(NamedTuple):
    """The penalties of each row, (rows,): ``lasso Σ x + ½ ridge Σ x²``."""

    lasso: Array
    ridge: Array


def mu_exponent(beta: float) -> float:
    """Return the exponent of a multiplicative update by which the divergence never rises."""
    if beta < 1:
        return 1 / (2 - beta)
    return 1.0 if beta <= 2 else 1 / (beta - 1)


class BetaDivergence(NamedTuple):
    """The loss 2 D_β(V | W H). Any entry of W H that is a divisor is at least ``floor``."""

    beta: float
    floor: float

    def of(self, cells: Cells, w: Array, h: Array) -> float:
        """Return 2 D(v | w h), float64, from w (rows, k) and h (k, columns).

        With ``floor = 0`` it is infinite for β ≤ 1 if an entry > 0 meets a 0 of w h.
        """
        wide, columns = np.ascontiguousarray(w, np.float64), np.ascontiguousarray(h.T, np.float64)
        whole, mass = cells.whole_sums(columns), cells.row_weight
        return 2 * float(_divergence(*cells[:4], cells.implicit_zeros, wide, columns, *whole, mass, *self))

    def mu_update(
        self, cells: Cells, factor: Array, x: Array, ridge: RowPenalty, repeats: int, tol: float = 0.0
    ) -> Array:
        """Return x after multiplicative updates of its rows on the cells of a block.

        The update of a row is ``x ← x ∘ [Σ ω v y^(β−2) f / (Σ ω y^(β−1) f + lasso + ridge x)]^γ``.

        Parameters
        ----------
        factor : (columns, k).
        x : (rows, k), ≥ 0; it is not changed.
        repeats : most updates of a row.
        tol : a row is done when an update moves it by at most ``tol`` times its sum.
        """
        dtype = x.dtype
        x = np.array(x, _roomy(dtype, self.beta), order="C")
        kind = x.dtype.type
        factor = np.ascontiguousarray(factor, x.dtype)
        whole, groups = cells.whole_sums(factor)
        sums = whole.astype(x.dtype), groups
        lasso, square = (part.astype(x.dtype) for part in ridge)
        sizes = kind(self.beta), kind(mu_exponent(self.beta)), kind(self.floor), kind(tol)
        _multiply(*cells[:4], cells.implicit_zeros, factor, *sums, lasso, square, x, *sizes, repeats)
        return x.astype(dtype, copy=False)

    def mu_terms(self, cells: Cells, w: Array, h: Array) -> tuple[Array, Array, float]:
        """Return the numerators and denominators of a multiplicative update of H, and 2 D(v | w h).

        Returns
        -------
        (k, columns); (k, columns) too, or (k, 1) if all columns share one denominator; and the loss.
        """
        wide = _roomy(w.dtype, self.beta)
        columns = np.ascontiguousarray(h.T, wide)
        w = np.ascontiguousarray(w, wide)
        kind = w.dtype.type
        sizes = kind(self.beta), kind(self.floor)
        num, den, loss = _shares(*cells[:4], cells.implicit_zeros, w, columns, *sizes)
        if cells.implicit_zeros:
            den = column_sums(cells, w)
        return num.T, den.T, 2 * (loss + sum_over_cells(cells, w, columns))


def sum_over_cells(cells: Cells, w: Array, columns: Array) -> float:
    """Return Σ y over all cells that count if zeros are implicit: listed cells then leave out their y."""
    if not cells.implicit_zeros:
        return 0.0
    whole, groups = cells.whole_sums(columns)
    if len(whole) == 1:
        return float(w.sum(axis=0, dtype=np.float64) @ whole[0])
    return float(np.vdot(w.astype(np.float64, copy=False), whole[groups]))


def column_sums(cells: Cells, w: Array) -> Array:
    """Return the sum of w over the cells of each column that count, (columns, k), or (1, k) if all do."""
    if cells.groups is None:
        return np.asarray(w.sum(axis=0, dtype=np.float64)[None])
    turned = cells.groups.transpose()
    return np.asarray(turned.row_sums(w)[turned.rows])


def _roomy(dtype: np.dtype[Any], beta: float) -> np.dtype[Any]:
    """Return a dtype that can hold powers: a v that is 10⁸ times the mean has a v⁵ beyond float32."""
    return dtype if 0 <= beta <= 2 else np.dtype(np.float64)


@compiled(fastmath={"contract", "reassoc"}, inlined=True)
def dot(x: Array, f: Array) -> Any:
    y = x[0] * f[0]
    for t in range(1, len(x)):
        y += x[t] * f[t]
    return y


@compiled(fastmath={"contract", "reassoc"}, inlined=True)
def entry_divergence(v: float, y: float, beta: float, zeros: bool) -> Any:
    """Return d_β(v | y). KL divergence leaves out the term y if ``zeros``: it is added for all cells."""
    if beta == 1 and zeros:
        return v * np.log(v / y) - v if v > 0 else 0.0
    if beta == 1 and y < 0.5 * v:  # here 1 + (y − v) / v would lose the digits of y, down to a logarithm of 0
        return v * (np.log(v) - np.log(y)) - v + y
    if beta == 1:
        far = (y - v) / v if v > 0 else 0.0
        return v * (far - np.log1p(far)) if v > 0 else y  # no large terms cancel if v is nearly y
    if beta == 0:
        return v / y - np.log(v / y) - 1
    return ((v**beta if v > 0 else 0.0) + (beta - 1) * y**beta - beta * v * y ** (beta - 1)) / (
        beta * (beta - 1)
    )


@compiled(fastmath={"contract", "reassoc"})
def _divergence(
    values: Array, weights: Array, indices: Array, indptr: Array, zeros: bool, w: Array, columns: Array,
    whole: Array, groups: Array, mass: Array, beta: float, floor: float,
) -> float:  # fmt: skip
    total = 0.0
    for i in range(len(indptr) - 1):
        listed = 0.0
        for p in range(indptr[i], indptr[i + 1]):
            y = max(dot(w[i], columns[indices[p]]), floor)
            if y <= 0 and beta <= 1 and values[p] > 0:
                return np.inf
            one = entry_divergence(np.float64(values[p]), max(y, TINY), beta, False)
            total += one * weights[p] if len(weights) > 0 else one
            listed += y
        if zeros and indptr[i + 1] - indptr[i] < mass[i]:
            total += max(dot(w[i], whole[groups[i]]) - listed, 0.0)
    return total


@compiled(fastmath={"contract", "reassoc"}, inlined=True)
def _quotients(v: float, y: float, beta: float) -> tuple[float, float]:
    """Return v y^(β−2) and y^(β−1)."""
    if beta == 1:
        return v / y, y / y
    if beta == 2:
        return v, y
    by = y ** (beta - 2)
    return v * by, by * y


@compiled(fastmath={"contract", "reassoc"})
def _multiply(
    values: Array, weights: Array, indices: Array, indptr: Array, zeros: bool, factor: Array, whole: Array,
    groups: Array, lasso: Array, ridge: Array, x: Array, beta: float, gamma: float, floor: float, tol: float,
    repeats: int,
) -> None:  # fmt: skip
    k = factor.shape[1]
    num, den = np.zeros(k, x.dtype), np.zeros(k, x.dtype)
    for i in range(len(indptr) - 1):
        w = x[i]
        for _ in range(repeats):
            num[:] = 0
            den[:] = 0
            if zeros:
                den[:] = whole[groups[i]]
            for p in range(indptr[i], indptr[i + 1]):
                f = factor[indices[p]]
                above, below = _quotients(x.dtype.type(values[p]), max(dot(w, f), floor), beta)
                if len(weights) > 0:
                    above *= weights[p]
                    below *= weights[p]
                for t in range(k):
                    num[t] += above * f[t]
                if not zeros:
                    for t in range(k):
                        den[t] += below * f[t]
            moved, size = x.dtype.type(0), x.dtype.type(0)
            for t in range(k):
                by = den[t] + lasso[i] + ridge[i] * w[t]
                ratio = num[t] / by if by > 0 else x.dtype.type(0)
                new = w[t] * (ratio if gamma == 1 else ratio**gamma)
                moved += abs(new - w[t])
                size += new
                w[t] = new
            if moved <= tol * size:
                break


@compiled(fastmath={"contract", "reassoc"})
def _shares(
    values: Array, weights: Array, indices: Array, indptr: Array, zeros: bool, w: Array, columns: Array,
    beta: float, floor: float,
) -> tuple[Array, Array, float]:  # fmt: skip
    n, k = columns.shape
    num, den = np.zeros((n, k), w.dtype), np.zeros((0 if zeros else n, k), w.dtype)
    total = 0.0
    for i in range(len(indptr) - 1):
        x = w[i]
        for p in range(indptr[i], indptr[i + 1]):
            j = indices[p]
            y = max(dot(x, columns[j]), floor)
            v = w.dtype.type(values[p])
            weight = np.float64(weights[p]) if len(weights) > 0 else 1.0
            total += weight * np.float64(entry_divergence(v, y, beta, zeros))
            above, below = _quotients(v, y, beta)
            if len(weights) > 0:
                above *= weights[p]
                below *= weights[p]
            into = num[j]
            for t in range(k):
                into[t] += above * x[t]
            if not zeros:
                for t in range(k):
                    den[j, t] += below * x[t]
    return num, den, total
