"""The losses of multiplicative updates: each says how W and H are updated, and which loss the sums tell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np

from dask_nmf.kernels import divergence, least_squares
from dask_nmf.kernels.blocks.masked import Cells
from dask_nmf.kernels.divergence import BetaDivergence
from dask_nmf.kernels.linalg import gram_matrices
from dask_nmf.kernels.row_sums import Sums
from dask_nmf.solvers.parts.penalties import Penalty, w_penalty
from dask_nmf.solvers.parts.squared_error import SquaredError, loss_of_h
from dask_nmf.types import Array, Block

FIRST_UPDATES, NEAR = 100, 1e-3  # of a new W, and their tolerance: with 10, it would always lag behind H
COARSE = 1e-2  # tolerance of the least squares of a new W


class LossTerms(Protocol):
    """A loss, and the two terms of its gradient whose quotient is a multiplicative update."""

    @property
    def shares_products(self) -> bool:
        """See `Solver.shares_products`."""
        ...

    def accumulate(self, v: Any, w: Array, h: Array, exact: bool) -> Sums:
        """Return the sums of a panel: see `Solver.accumulate`."""
        ...

    def loss(self, v: Any, w: Array, h: Array, final: bool = False) -> float:
        """Return the loss of a panel: see `Solver.loss`."""
        ...

    def new_w(self, v: Any, h: Array, penalty: Penalty) -> Array:
        """Return the W of a panel, (r, k), with which its updates begin."""
        ...

    def update_w(self, v: Any, h: Array, w: Array, penalty: Penalty, repeats: int) -> Array:
        """Return the W of a panel, (r, k), after updates from ``w``."""
        ...

    def update_h(self, h: Array, totals: Sums, penalty: Penalty, repeats: int) -> Array:
        """Return H (k, n) after its updates from the sums of a pass with ``h``, as many as the sums allow."""
        ...

    def known_loss(self, totals: Sums, sumsq: float, before: Array, updated: Array) -> tuple[Array, float]:
        """Return one of two H (k, n) whose loss the sums of a pass with ``before`` tell, and that loss.

        It is ``updated`` if the sums tell both. ``sumsq`` is ‖V‖².
        """
        ...


@dataclass(frozen=True)
class SquaredTerms(SquaredError):
    """The squared error (Lee & Seung 2001), whose sums have the normal equations for H."""

    delta: float  # δ, which is added to every divisor
    h_delta: float | None = None  # δ for H; None: that of W
    shares_products: ClassVar[bool] = True

    def new_w(self, v: Block, h: Array, penalty: Penalty) -> Array:
        return least_squares.solve_w(v, h, COARSE, penalty.left)

    def update_w(self, v: Block, h: Array, w: Array, penalty: Penalty, repeats: int) -> Array:
        lasso = penalty.left_l1 * least_squares.row_weight(v)[:, None]
        equations = least_squares.normal_equations(v, h, penalty.left)
        return least_squares.mu_update(w, *equations, self.delta + lasso, repeats)

    def update_h(self, h: Array, totals: Sums, penalty: Penalty, repeats: int) -> Array:
        gram = gram_matrices.add_ridge(totals.gram, len(h), penalty.right * totals.column_weight)
        lasso = penalty.right_l1 * np.reshape(totals.column_weight, (-1, 1))
        delta = self.delta if self.h_delta is None else self.h_delta
        updated = least_squares.mu_update(h.T, totals.num.T, gram, delta + lasso, repeats)
        return np.ascontiguousarray(updated.T)

    def known_loss(self, totals: Sums, sumsq: float, before: Array, updated: Array) -> tuple[Array, float]:
        return updated, loss_of_h(sumsq, totals, before, updated)


@dataclass(frozen=True)
class DivergenceTerms:
    """Any β-divergence (Févotte & Idier 2011). The sums have both terms for H, and so make one update."""

    divergence: BetaDivergence
    scale: float  # the entries with which the updates of a new W begin
    shares_products: ClassVar[bool] = False

    def accumulate(self, v: Cells, w: Array, h: Array, exact: bool) -> Sums:
        num, den, loss = self.divergence.mu_terms(v, w, h)
        return Sums(num.astype(np.float64), den.astype(np.float64), loss, v.column_weight)

    def loss(self, v: Cells, w: Array, h: Array, final: bool = False) -> float:
        loss = self.divergence._replace(floor=0.0) if final else self.divergence
        return loss.of(v, w, h)

    def new_w(self, v: Cells, h: Array, penalty: Penalty) -> Array:
        return self.iterate_w(v, h, penalty, FIRST_UPDATES, NEAR)

    def update_w(self, v: Cells, h: Array, w: Array, penalty: Penalty, repeats: int) -> Array:
        return self.divergence.mu_update(v, h.T, w, w_penalty(penalty, v), repeats)

    def iterate_w(self, v: Cells, h: Array, penalty: Penalty, repeats: int, tol: float) -> Array:
        """Return W (r, k) after ``repeats`` updates from equal entries, fewer if one is below ``tol``."""
        w = np.full((v.shape[0], len(h)), self.scale, h.dtype)
        return self.divergence.mu_update(v, h.T, w, w_penalty(penalty, v), repeats, tol)

    def update_h(self, h: Array, totals: Sums, penalty: Penalty, repeats: int) -> Array:
        by = totals.gram + totals.column_weight * (penalty.right_l1 + penalty.right * h)
        ratio = np.divide(totals.num, by, out=np.zeros_like(totals.num), where=by > 0)
        return np.ascontiguousarray(h * ratio ** divergence.mu_exponent(self.divergence.beta), h.dtype)

    def known_loss(self, totals: Sums, sumsq: float, before: Array, updated: Array) -> tuple[Array, float]:
        return before, totals.residual
