"""The solvers by multiplicative updates, for the squared error and for every other β-divergence."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Self

import numpy as np

from dask_nmf.kernels import divergence, least_squares
from dask_nmf.kernels.blocks.masked import Cells
from dask_nmf.kernels.linalg import gram_matrices
from dask_nmf.kernels.row_sums import Sums
from dask_nmf.solvers.parts.penalties import NO_PENALTY, Penalty, w_penalty
from dask_nmf.solvers.parts.squared_error import SquaredError, loss_of_h
from dask_nmf.solvers.parts.state import NoRecord, State
from dask_nmf.solvers.solver import LIFT, KnownW, Look, Problem, Read, SolverDefaults, smallest_divisor
from dask_nmf.types import Array, Block


@dataclass(frozen=True)
class MU(SquaredError, SolverDefaults):
    """Multiplicative updates of Lee & Seung 2001, W first and then H; W is carried between passes.

    ``w_first`` is False if the panels are columns of V. The panels then hold H, so that a pass updates H
    and then W; the factors that belong together are the updated H and the W that the pass was given.
    """

    delta: float  # δ, which is added to every divisor
    floor: float  # least entry of a W that begins as the solution for H: a zero would stay zero
    inner_iter: int = 1
    w_first: bool = True
    penalty: Penalty = NO_PENALTY
    right_delta: float | None = None  # δ for H; None: that of W
    carries_w: ClassVar[bool] = True

    def solve_w(self, v: Block, h: Array, w: Array | None) -> Array:
        if w is None:
            w = clip_below(least_squares.solve_w(v, h, 1e-2, self.penalty.left), self.floor)
        lasso = self.penalty.left_l1 * least_squares.row_weight(v)[:, None]
        equations = least_squares.normal_equations(v, h, self.penalty.left)
        return least_squares.mu_update(w, *equations, self.delta + lasso, self.inner_iter)

    def solve_w_final(self, v: Block, h: Array, w: Array | None) -> Array:
        assert w is not None
        return w

    def update(self, state: State[NoRecord], totals: Sums, sumsq: float) -> State[NoRecord]:
        given = state.h_input
        updated = self.update_h(given, totals)
        h = updated if self.w_first else given
        penalty = self.penalty.of(totals, h)
        return State(
            h=h,
            h_input=updated,
            own=state.own,
            loss=loss_of_h(sumsq, totals, given, h) + penalty,
            penalty=penalty,
            exact=not np.isnan(totals.residual),
            w_slot=state.next_slot,
        ).track_held_out(state, totals, given)

    def update_h(self, h: Array, totals: Sums) -> Array:
        """Return H (k, n) after its update from the sums."""
        gram = gram_matrices.add_ridge(totals.gram, len(h), self.penalty.right * totals.column_weight)
        lasso = self.penalty.right_l1 * np.reshape(totals.column_weight, (-1, 1))
        delta = self.delta if self.right_delta is None else self.right_delta
        updated = least_squares.mu_update(h.T, totals.num.T, gram, delta + lasso, self.inner_iter)
        return np.ascontiguousarray(updated.T)


def clip_below(factor: Array, floor: float) -> Array:
    """Return a factor with entries of at least ``floor``, so that a multiplicative update can move them."""
    return np.asarray(np.maximum(factor, factor.dtype.type(floor)))


MOST_UPDATES, SETTLED = 5000, 1e-7  # of a W for a fixed H: the most updates, and their tolerance

GAIN = 1e-9  # share of the loss: the updates of H end when one gains no more than this
FIRST_UPDATES, NEAR = 100, 1e-3  # of a new W: with 10 updates, it would always lag behind H


@dataclass(frozen=True)
class BetaMU(SolverDefaults):
    """Multiplicative updates for any β-divergence; W is carried between passes (Févotte & Idier 2011)."""

    beta: float
    floor: float  # least divisor
    scale: float  # the entries with which the updates of a new W begin
    least: float  # least entry of a new W: a zero would stay zero
    penalty: Penalty
    inner_iter: int = 1
    w_first: bool = True  # see `MU`
    carries_w: ClassVar[bool] = True

    def solve_w(self, v: Cells, h: Array, w: Array | None) -> Array:
        if w is None:
            w = clip_below(self.iterate_w(v, h, FIRST_UPDATES, NEAR), self.least)
        return self._multiply(v, h, w, self.inner_iter)

    def solve_w_final(self, v: Cells, h: Array, w: Array | None) -> Array:
        assert w is not None
        return w

    def iterate_w(self, v: Cells, h: Array, repeats: int, tol: float = 0.0) -> Array:
        """Return W (r, k) after ``repeats`` updates from equal entries, fewer if one is below ``tol``."""
        return self._multiply(v, h, np.full((v.shape[0], len(h)), self.scale, h.dtype), repeats, tol)

    def _multiply(self, v: Cells, h: Array, w: Array, repeats: int, tol: float = 0.0) -> Array:
        ridge = w_penalty(self.penalty, v)
        return divergence.mu_update(v, h.T, w, ridge, self.beta, self.floor, repeats, tol)

    def accumulate(self, v: Cells, w: Array, h: Array, exact: bool) -> Sums:
        num, den, loss = divergence.mu_terms(v, w, h, self.beta, self.floor)
        return Sums(num.astype(np.float64), den.astype(np.float64), loss, v.column_weight)

    def loss(self, v: Cells, w: Array, h: Array, final: bool = False) -> float:
        return divergence.divergence(v, w, h, self.beta, 0.0 if final else self.floor)

    def update(self, state: State[NoRecord], totals: Sums, baseline: float) -> State[NoRecord]:
        given = state.h_input
        updated = self.update_h(given, totals)
        penalty = self.penalty.of(totals, given)
        return State(
            h=updated if self.w_first else given,
            h_input=updated,
            own=state.own,
            loss=totals.residual + penalty,
            penalty=penalty,
            w_slot=state.next_slot,
        ).track_held_out(state, totals, given)

    def update_h(self, h: Array, totals: Sums) -> Array:
        """Return H (k, n) after its update from the sums."""
        by = totals.gram + totals.column_weight * (self.penalty.right_l1 + self.penalty.right * h)
        ratio = np.divide(totals.num, by, out=np.zeros_like(totals.num), where=by > 0)
        return np.ascontiguousarray(h * ratio ** divergence.mu_exponent(self.beta), h.dtype)


@dataclass(frozen=True)
class ConvergedMU(BetaMU):
    """Multiplicative updates of W for a fixed H until they converge, for losses without a better solver."""

    carries_w: ClassVar[bool] = False
    one_pass: ClassVar[Literal[False]] = False

    def with_penalty(self, penalty: Penalty) -> Self:
        return replace(self, penalty=penalty)

    def find_h(self, known: KnownW, read: Read) -> tuple[Array, Sums]:
        h = known.equal_entries
        state = self.begin(h)
        for _ in range(known.most):
            totals = read(state.h_input, known.w)
            before, state = state, self.update(state, totals, 0.0)
            if before.loss - state.loss <= GAIN * state.loss:
                break
        return state.h, totals

    def fit_h(self, h: Array, totals: Sums, look: Look, sumsq: float) -> tuple[Array, float]:
        return h, totals.residual

    def solve_w(self, v: Cells, h: Array, w: Array | None) -> Array:
        wide = self.iterate_w(v, h.astype(np.float64), MOST_UPDATES, SETTLED)  # float32 may underflow
        return wide.astype(h.dtype)

    def solve_w_final(self, v: Cells, h: Array, w: Array | None) -> Array:
        return self.solve_w(v, h, w)


def make(problem: Problem) -> MU | BetaMU:
    """Return the solver by multiplicative updates for the squared error, or for another β-divergence."""
    settings, penalty, scale = problem.settings, problem.penalty, problem.factor_scale
    first = not problem.transposed
    if settings.beta != 2:
        least = LIFT * scale
        return BetaMU(settings.beta, problem.floor, scale, least, penalty, settings.inner_iter, first)
    trifle = smallest_divisor(problem.level * scale, problem.dtype)
    left, right = (  # δ is added to products of V and the other factor
        trifle if settings.delta is None else settings.delta * problem.scale / unit
        for unit in (penalty.right_unit, penalty.left_unit)
    )
    return MU(left, LIFT * scale, settings.inner_iter, first, penalty, right)
