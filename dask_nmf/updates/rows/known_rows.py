"""The rows of a finished fit, by sums from which H is found: they follow from W and H, without V.

At the H of a fit the gradient is 0 where H > 0. So the sums that have V in them follow from those that have
not: WᵀV is WᵀW H for the squared error, and Wᵀ(V / W H) is Wᵀ1 for the Kullback-Leibler divergence, with the
penalties on H beside. Where H is 0 they are only bounded: such an entry stays 0, unless its whole column is.
Everything is in the units of the fit.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol, Self

import numpy as np

from dask_nmf.kernels.row_sums import Sums
from dask_nmf.solvers.parts.penalties import Penalty
from dask_nmf.solvers.parts.squared_error import refit_rows
from dask_nmf.types import Array

CLOSE = 1e-6  # tolerance of the normal equations


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

    def without(self, w: Array, v: Array) -> Self:
        """Return the rows without some of them, by their w (r, k) and v (r, n), float64."""
        ...


@dataclass(frozen=True)
class SquaredRows:
    """Rows and their squared error: WᵀV, (k, n), and WᵀW, (k, k)."""

    h: Array  # of the fit, (k, n), float64
    num: Array
    gram: Array
    mass: Array
    rows: float
    penalty: Penalty

    @classmethod
    def of(cls, h: Array, gram: Array, mass: Array, rows: float, penalty: Penalty) -> SquaredRows:
        """Return the rows of a fit with this H, by WᵀW and Σ w."""
        num = gram @ h + rows * (penalty.right * h + penalty.right_l1)
        return cls(h, np.where(h.any(axis=0), num, 0.0), gram, mass, rows, penalty)

    def refreshed(self, h: Array, more: Sums | None) -> Array:
        """Return H by normal equations; see `KnownRows`."""
        num, gram, rows = self.num, self.gram, self.rows
        if more is not None:
            num, gram, rows = num + more.num, gram + more.gram, rows + float(np.max(more.column_weight))
        num = num - rows * self.penalty.right_l1
        gram = gram + rows * self.penalty.right * np.eye(len(gram))
        settled = (self.h == 0) & self.h.any(axis=0)
        num = np.where(settled, -1.0, num)  # with a negative right side an entry of 0 stays 0
        start = np.where(settled, 0.0, h)
        return np.ascontiguousarray(refit_rows(start.T, np.ascontiguousarray(num.T), gram, CLOSE).T)

    def change(self, h: Array) -> float:
        """Return the change of ‖V − W H‖²; see `KnownRows`."""
        square = np.vdot(self.gram, h @ h.T - self.h @ self.h.T)
        return float(square - 2 * np.vdot(self.num, h - self.h))

    def without(self, w: Array, v: Array) -> SquaredRows:
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

    By Jensen's inequality it is at most ``2 Σ (mass_t h_tj − pull_tj log h_tj)`` plus a constant, and this
    bound is reached at the H of the fit (Lee & Seung 2001).
    """

    h: Array  # of the fit, (k, n), float64
    pull: Array  # H ∘ Wᵀ(V / W H), (k, n)
    mass: Array
    rows: float
    penalty: Penalty

    @classmethod
    def of(cls, h: Array, gram: Array, mass: Array, rows: float, penalty: Penalty) -> DivergenceRows:
        """Return the rows of a fit with this H, by Σ w; ``gram`` is not needed."""
        slope = mass[:, None] + rows * (penalty.right * h + penalty.right_l1)
        return cls(h, h * slope, mass, rows, penalty)

    def refreshed(self, h: Array, more: Sums | None) -> Array:
        """Return H by a multiplicative update in which the known rows have their bound; see `KnownRows`."""
        pull, mass, rows = self.pull, self.mass[:, None], self.rows
        if more is not None:
            rows += float(np.max(more.column_weight))
            pull, mass = pull + h * more.num, mass + more.gram
        by = mass + rows * (self.penalty.right * h + self.penalty.right_l1)
        return np.divide(pull, by, out=np.zeros_like(pull), where=by > 0)

    def change(self, h: Array) -> float:
        """Return the change of the bound of twice the divergence; see `KnownRows`."""
        there = (self.pull > 0) & (self.h > 0)
        ratio = np.maximum(h[there], np.finfo(float).tiny) / self.h[there]
        return 2 * float(self.mass @ (h - self.h).sum(axis=1) - self.pull[there] @ np.log(ratio))

    def without(self, w: Array, v: Array) -> DivergenceRows:
        """Return the rows without some; see `KnownRows`."""
        product = w @ self.h
        ratio = np.divide(v, product, out=np.zeros_like(product), where=product > 0)
        return replace(
            self,
            pull=np.maximum(self.pull - self.h * (w.T @ ratio), 0),
            mass=np.maximum(self.mass - w.sum(axis=0), 0),
            rows=self.rows - len(w),
        )
