"""The rows of a finished fit, by sums from which H is found: they follow from W and H, without V.

At the H of a fit the gradient is 0 where H > 0. So the sums that have V in them follow from those that have
not: WᵀV is WᵀW H for the squared error, and Wᵀ(V / W H) is Wᵀ1 for the Kullback-Leibler divergence, with the
penalties on H beside. Where H is 0 they are only bounded. For the squared error such an entry stays 0, unless
its whole column is; for the divergence it counts as one in which old rows have no part (see `lift_small`).
If not every row counts in every column, the WᵀW and Wᵀ1 of a column are those of all rows times the share of
rows that count in it, as if it were a random one. Everything is in the units of the fit.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol, Self

import numpy as np
import scipy.sparse

from dask_nmf.kernels.linalg.gram_matrices import Gram, add_ridge, apply_gram
from dask_nmf.kernels.row_sums import Sums
from dask_nmf.solvers.parts.penalties import Penalty
from dask_nmf.solvers.parts.squared_error import refit_rows
from dask_nmf.types import Array, Block

LIFT = 0.1  # of the mean of its component: smaller entries begin there, so that they may grow
CLOSE = 1e-3  # tolerance of the normal equations
STRIP = 2**16  # entries whose products are taken at once


class KnownRows(Protocol):
    """Rows whose part in the loss is known as a function of H."""

    @property
    def mass(self) -> Array:
        """Σ w of the rows, (k,)."""
        ...

    def refreshed(self, h: Array, more: Sums | None) -> Array:
        """Return H (k, n), float64, for these rows and others, whose sums with ``h`` are given."""
        ...

    def change(self, h: Array) -> float:
        """Return the loss of these rows with ``h`` less that with the H of the fit, with their W."""
        ...

    def without(self, w: Array, v: Block) -> Self:
        """Return the rows without some of them, by their w (r, k) and v (r, n), dense or CSR, float64."""
        ...


class WSums(NamedTuple):
    """The sums of all rows of W, and how many of them count.

    Attributes
    ----------
    gram : WᵀW, (k, k)
    mass : Σ w, (k,)
    rows : the number of rows
    counting : how many rows count in each column, (n,), or one number for all columns
    """

    gram: Array
    mass: Array
    rows: int
    counting: float | Array

    @property
    def share(self) -> float | Array:
        """The share of the rows that count in each column, (n,), or one number for all."""
        return self.counting / self.rows


@dataclass(frozen=True)
class SquaredRows:
    """Rows and their squared error: WᵀV, (k, n), and WᵀW, (k, k), or of each column, packed."""

    h: Array  # of the fit, (k, n), float64
    num: Array
    gram: Gram
    mass: Array
    rows: float | Array  # that count, in each column if they differ
    penalty: Penalty

    @classmethod
    def of(cls, h: Array, sums: WSums, penalty: Penalty) -> SquaredRows:
        """Return the rows of a fit with this H."""
        if np.ndim(sums.counting):
            gram = np.reshape(sums.share, (-1, 1)) * sums.gram[np.tril_indices(len(h))]
        else:
            gram = sums.share * sums.gram
        num = apply_gram(h.T, gram).T + sums.counting * (penalty.right * h + penalty.right_l1)
        return cls(h, np.where(h.any(axis=0), num, 0.0), gram, sums.mass, sums.counting, penalty)

    def refreshed(self, h: Array, more: Sums | None) -> Array:
        """Return H by normal equations; see `KnownRows`."""
        num, gram, rows = self.num, self.gram, self.rows
        if more is not None:
            num, gram, rows = num + more.num, gram + more.gram, rows + more.column_weight
        num = num - rows * self.penalty.right_l1
        gram = add_ridge(gram, len(num), rows * self.penalty.right)
        settled = (self.h == 0) & self.h.any(axis=0)
        num = np.where(settled, -1.0, num)  # with a negative right side an entry of 0 stays 0
        start = np.where(settled, 0.0, h)
        return np.ascontiguousarray(refit_rows(start.T, np.ascontiguousarray(num.T), gram, CLOSE).T)

    def change(self, h: Array) -> float:
        """Return the change of ‖V − W H‖²; see `KnownRows`."""
        slope = apply_gram((h + self.h).T, self.gram).T - 2 * self.num
        return float(np.vdot(h - self.h, slope))

    def without(self, w: Array, v: Block) -> SquaredRows:
        """Return the rows without some; see `KnownRows`."""
        return replace(
            self,
            num=self.num - np.asarray((v.T @ w).T),
            gram=self.gram - w.T @ w,
            mass=self.mass - w.sum(axis=0),
            rows=self.rows - len(w),
        )


@dataclass(frozen=True)
class DivergenceRows:
    """Rows and their Kullback-Leibler divergence, bounded by a sum over the entries of H.

    By Jensen's inequality it is at most ``2 Σ (drag_tj h_tj − pull_tj log h_tj)`` plus a constant, and this
    bound is reached at the H of the fit (Lee & Seung 2001).
    """

    h: Array  # of the fit, (k, n), float64
    pull: Array  # H ∘ Wᵀ(V / W H), (k, n)
    drag: Array  # Wᵀ1 over the rows that count in each column, (k, n), or (k, 1) for all columns
    mass: Array
    rows: float | Array  # that count, in each column if they differ
    penalty: Penalty

    @classmethod
    def of(cls, h: Array, sums: WSums, penalty: Penalty) -> DivergenceRows:
        """Return the rows of a fit with this H."""
        drag = sums.mass[:, None] * sums.share
        slope = drag + sums.counting * (penalty.right * h + penalty.right_l1)
        return cls(h, h * slope, drag, sums.mass, sums.counting, penalty)

    def refreshed(self, h: Array, more: Sums | None) -> Array:
        """Return H by a multiplicative update in which the known rows have their bound; see `KnownRows`."""
        pull, drag, rows = self.pull, self.drag, self.rows
        if more is not None:
            rows = rows + more.column_weight
            pull, drag = pull + h * more.num, drag + more.gram
        by = drag + rows * (self.penalty.right * h + self.penalty.right_l1)
        return np.divide(pull, by, out=np.zeros_like(pull), where=by > 0)

    def change(self, h: Array) -> float:
        """Return the change of the bound of twice the divergence; see `KnownRows`."""
        there = (self.pull > 0) & (self.h > 0)
        ratio = np.maximum(h[there], np.finfo(float).tiny) / self.h[there]
        return 2 * float((self.drag * (h - self.h)).sum() - self.pull[there] @ np.log(ratio))

    def without(self, w: Array, v: Block) -> DivergenceRows:
        """Return the rows without some; see `KnownRows`."""
        product = products_at(v, w, self.h)
        values = v.data if scipy.sparse.issparse(v) else v.ravel()
        ratio: Block = np.divide(values, product, out=np.zeros_like(product), where=product > 0)
        if scipy.sparse.issparse(v):
            ratio = scipy.sparse.csr_array((ratio, v.indices, v.indptr), v.shape)
        else:
            ratio = ratio.reshape(v.shape)
        return replace(
            self,
            pull=np.maximum(self.pull - self.h * (ratio.T @ w).T, 0),
            drag=np.maximum(self.drag - w.sum(axis=0)[:, None], 0),
            mass=np.maximum(self.mass - w.sum(axis=0), 0),
            rows=self.rows - len(w),
        )


def lift_small(h: Array) -> Array:
    """Return H (k, n) with larger entries in place of zeros and the like, which factors would hardly change.

    Where a component has a 0, the old rows may have no part of V that it explains: their bound is that of
    none. So such an entry grows only if the new rows need it more than it can cost the old ones. Columns of
    zeros stay.
    """
    return np.where(h.any(axis=0), np.maximum(h, _lifted(h)), h)


def drop_lifted(before: Array, h: Array) -> Array:
    """Return H (k, n) with the entry of before where the update of one that was lifted has not grown.

    A column in which such entries are most of all stays as it is: they explain it together.
    """
    least = _lifted(before)
    dropped = np.where((before < least) & (h <= least) & before.any(axis=0), before, h)
    sizes = np.divide(1, least, out=np.zeros_like(least), where=least > 0).T
    return np.where(sizes @ dropped < sizes @ h / 2, h, dropped)


def _lifted(h: Array) -> Array:
    """Return the entries of each component, (k, 1), below which others are lifted."""
    return np.asarray(LIFT * h.mean(axis=1, keepdims=True))


def products_at(v: Block, w: Array, h: Array) -> Array:
    """Return w h at the stored entries of rows of V, (stored,); all are, unless v is CSR."""
    if not scipy.sparse.issparse(v):
        return np.asarray((w @ h).ravel())
    rows = np.repeat(np.arange(v.shape[0]), np.diff(v.indptr))
    columns, product = np.ascontiguousarray(h.T), np.empty(v.nnz)
    for first in range(0, v.nnz, STRIP):
        some = slice(first, first + STRIP)
        product[some] = np.einsum("et,et->e", w[rows[some]], columns[v.indices[some]])
    return product
