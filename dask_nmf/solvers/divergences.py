"""Solvers for the β-divergences other than the squared error; see `dask_nmf.kernels.divergence`.

A pass measures the loss of the H that it is given, so an update knows how good its last proposal was.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np

from dask_nmf.kernels import divergence
from dask_nmf.kernels.blocks import masked
from dask_nmf.kernels.blocks.masked import Cells
from dask_nmf.kernels.divergence import Ridge
from dask_nmf.kernels.least_squares import Sums
from dask_nmf.solvers.hals import FINER, FINEST, HALS, SHRINK, OneLevel, State, advanced, lift, refit_rows
from dask_nmf.solvers.penalties import Penalty, norms_of, rescaled
from dask_nmf.types import Array

LEAST = 0.5  # of an entry of H that a step leaves: further, a quadratic model is not to be trusted
FURTHEST = 2.0  # times an entry, that a step goes
NOTHING = 1e-30  # of the largest entry of H: a component of such entries would get a W that overflows
SHORTER, SHORTEST = 0.25, 0.25**3  # steps, where Newton's is too long
MOST_UPDATES, SETTLED = 5000, 1e-7
FIRST_UPDATES, NEAR = 100, 1e-3  # of a W that begins anew: with 10, W lags behind H for ever


@dataclass(frozen=True)
class Newton:
    """Kullback & Leibler's divergence, with H as the state.

    W is solved in each panel by Newton's method, row by row. H gets one step of it a pass: the sums have the
    quadratic model of the loss for each column of H, and coordinate descent brings it down. H is extrapolated
    from pass to pass as in `dask_nmf.solvers.hals.HALS`.
    """

    floor: float  # of what is divided by
    penalty: Penalty
    tol: float = 1e-3  # of the inner solves: with less, noise hides what a pass gains
    final_tol: float = 1e-6
    carries_weights: ClassVar[bool] = False
    finest: ClassVar[int] = FINEST

    def at_level(self, level: int) -> Self:
        return replace(self, tol=self.tol * FINER**level) if level else self

    def weigh(self, v: Cells, h: Array, w: Array | None) -> Array:
        return self._solve(v, h, w, self.tol)

    def finish(self, v: Cells, h: Array, w: Array | None) -> Array:
        return self._solve(v, h, w, self.final_tol)

    def _solve(self, v: Cells, h: Array, w: Array | None, tol: float) -> Array:
        found = divergence.solve(v, h.T, on_left(self.penalty, v), self.floor, tol, w)
        return found.astype(h.dtype)

    def learn(self, v: Cells, w: Array, h: Array, exact: bool) -> Sums:
        columns = v.transpose()
        num, gram, loss = divergence.models(columns, w, h.T, self.floor)
        pull = w.sum(axis=0, dtype=np.float64) if v.implicit_zeros else 0.0
        return Sums(num.T, gram, loss, columns.row_weight, w_sum=pull)

    def error(self, v: Cells, w: Array, h: Array, final: bool = False) -> float:
        return divergence.divergence(v, w, h, 1.0, 0.0 if final else self.floor)

    def follow(self, given: Array, totals: Sums, least: float = LEAST) -> Array:
        """H at the bottom of the quadratic model about the one that was given, but not too far from it.

        An entry keeps at least the share ``least``. Near 0 a model goes no further than to twice an entry:
        a column whose sum is further from that of V gets a multiplicative update.
        """
        num, gram = self.penalty.equations(totals, len(given))
        begun = given.T.astype(np.float64)
        h = np.maximum(refit_rows(begun, num, gram, self.tol), least * begun)
        explains = totals.gram[:, masked.diagonal(len(given))] > 0
        h[~explains & (num < self.penalty.right * begun)] = 0  # what explains no entry > 0 only costs
        if isinstance(totals.w_sum, np.ndarray):
            above = np.maximum(totals.num.T - masked.apply(totals.gram, begun) + totals.w_sum, 0)
            weighs = self.penalty.right_l1 + self.penalty.right * begun
            below = totals.w_sum + np.reshape(totals.column_weight, (-1, 1)) * weighs
            low = (begun * above).sum(axis=1) > FURTHEST * (begun * below).sum(axis=1)
            h[low] = (begun * above / np.maximum(below, np.finfo(np.float64).tiny))[low]
        h[h < NOTHING * h.max()] = 0
        return np.ascontiguousarray(h.T, given.dtype)

    def gain(self, given: Array, h: Array, totals: Sums) -> tuple[float, float]:
        """Return by how much h lowers the loss by the quadratic model about ``given``, and 2 Σ v."""
        num, gram = self.penalty.equations(totals, len(given))
        begun, step = given.T.astype(np.float64), (given - h).T.astype(np.float64)
        curve = masked.apply(gram, begun)
        fall = float(np.vdot(step, 2 * (curve - num) - masked.apply(gram, step)))
        return fall, 2 * float(np.vdot(begun, curve))

    def update(self, state: State, totals: Sums, baseline: float) -> State:
        given = state.entering
        scales, penalty = self.penalty.balance(*norms_of(totals, given))
        reached = totals.residual + penalty
        if reached > state.loss:
            return self._undone(state).watched(state, totals, given)
        h = entering = self.follow(given, totals)
        if state.good is not None and state.accepted:
            further = h + h.dtype.type(state.beta) * (h - state.h)
            entering = np.maximum(further, h.dtype.type(LEAST) * h)
        return advanced(
            state,
            h=rescaled(h, scales),
            entering=rescaled(entering, scales),
            loss=reached,
            penalty=penalty,
            good=rescaled(given, scales),
        ).watched(state, totals, given)

    def _undone(self, state: State) -> State:
        """To where Newton's step led, without extrapolation; from there by shorter steps."""
        assert state.good is not None
        h, rate = state.h, state.rate
        if np.array_equal(state.entering, h):
            h, rate = state.good + h.dtype.type(SHORTER) * (h - state.good), SHORTER * rate
        return replace(
            state,
            h=h,
            entering=h,
            beta=state.beta / SHRINK,
            ceiling=state.last_beta,
            accepted=False,
            rate=rate,
            settled=rate < SHORTEST,
        )


@dataclass(frozen=True)
class BetaMU(OneLevel):
    """Multiplicative updates for any β, W first and then H; W is carried (Févotte & Idier 2011)."""

    beta: float
    floor: float  # of what is divided by
    scale: float  # of a W that begins anew
    least: float  # of its entries: a zero would stay zero
    penalty: Penalty
    inner_iter: int = 1
    weights_first: bool = True  # as in `dask_nmf.solvers.hals.MU`
    carries_weights: ClassVar[bool] = True

    def weigh(self, v: Cells, h: Array, w: Array | None) -> Array:
        if w is None:
            w = lift(self.settle(v, h, FIRST_UPDATES, NEAR), self.least)
        return self._multiply(v, h, w, self.inner_iter)

    def finish(self, v: Cells, h: Array, w: Array | None) -> Array:
        assert w is not None
        return w

    def settle(self, v: Cells, h: Array, repeats: int, tol: float = 0.0) -> Array:
        """W from equal entries, by so many updates or until they move it by less than ``tol``."""
        return self._multiply(v, h, np.full((v.shape[0], len(h)), self.scale, h.dtype), repeats, tol)

    def _multiply(self, v: Cells, h: Array, w: Array, repeats: int, tol: float = 0.0) -> Array:
        ridge = on_left(self.penalty, v)
        return divergence.multiply(v, h.T, w, ridge, self.beta, self.floor, repeats, tol)

    def learn(self, v: Cells, w: Array, h: Array, exact: bool) -> Sums:
        num, den, loss = divergence.shares(v, w, h, self.beta, self.floor)
        return Sums(num.astype(np.float64), den.astype(np.float64), loss, v.column_weight)

    def error(self, v: Cells, w: Array, h: Array, final: bool = False) -> float:
        return divergence.divergence(v, w, h, self.beta, 0.0 if final else self.floor)

    def update(self, state: State, totals: Sums, baseline: float) -> State:
        given = state.entering
        updated = self.follow(given, totals)
        penalty = self.penalty.of(totals, given)
        return State(
            h=updated if self.weights_first else given,
            entering=updated,
            loss=totals.residual + penalty,
            penalty=penalty,
            slot=state.next_slot,
        ).watched(state, totals, given)

    def follow(self, h: Array, totals: Sums) -> Array:
        """H after its update from the sums."""
        by = totals.gram + totals.column_weight * (self.penalty.right_l1 + self.penalty.right * h)
        ratio = np.divide(totals.num, by, out=np.zeros_like(totals.num), where=by > 0)
        return np.ascontiguousarray(h * ratio ** divergence.exponent(self.beta), h.dtype)


@dataclass(frozen=True)
class Settled(BetaMU):
    """W of a fixed H, by multiplicative updates until they move nothing: for what has no better solver."""

    carries_weights: ClassVar[bool] = False

    def weigh(self, v: Cells, h: Array, w: Array | None) -> Array:
        wide = self.settle(v, h.astype(np.float64), MOST_UPDATES, SETTLED)  # or powers might vanish
        return wide.astype(h.dtype)

    def finish(self, v: Cells, h: Array, w: Array | None) -> Array:
        return self.weigh(v, h, w)


def exact(beta: float, penalty: Penalty, floor: float, scale: float = 1.0) -> HALS | Newton | Settled:
    """The solver that finds W of a fixed H."""
    if beta == 2:
        return HALS(penalty)
    if beta == 1:
        return Newton(floor, penalty)
    return Settled(beta, floor, scale, 0.0, penalty)


def on_left(penalty: Penalty, v: Cells) -> Ridge:
    """The penalties of the rows of a block's W."""
    mass = v.row_weight
    return Ridge(penalty.left_l1 * mass, penalty.left * mass)


def floor_of(mean: float, dtype: np.dtype[Any]) -> float:
    """Return the least number that a divergence divides by, for a V of that mean."""
    limits = np.finfo(dtype)
    return max(float(limits.eps) * mean, float(limits.tiny))
