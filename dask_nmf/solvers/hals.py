"""The solvers: how a panel's W is found from H, and how H is updated from the sums over all panels.

A solver is a frozen record of its options; what changes from pass to pass is a `State`. Both speak of V
in panel orientation: W has the panels' rows, H is what every panel is given.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, ClassVar, Protocol, Self

import numpy as np

from dask_nmf.kernels import double_precision, least_squares
from dask_nmf.kernels.least_squares import Sums
from dask_nmf.kernels.linalg.householder import Factor
from dask_nmf.solvers.penalties import NO_PENALTY, Penalty, norms_of, rescaled
from dask_nmf.types import Array, Block

GROW, GROW_CEILING, SHRINK = 1.05, 1.01, 1.5
SLOTS = 4  # places for a carried W: the last one, the one before, the best one and the next one
BETTER = 1 - 1e-6  # times the least error of what is held out: less of a gain is rounding
FINER = 1e-2  # times the tolerance of the inner solves, from one level to the next
FINEST = 2  # levels above the first one, of solvers that have an inner solve
IN_ONE_GO = 4096  # rows of Hᵀ below which threads do not pay


@dataclass(frozen=True)
class State:
    """What a pass leaves behind: everything the next one needs, besides V (and a carried W)."""

    h: Array  # the H that the answer would use, (k, n)
    entering: Array  # the H that the next pass gives to the panels, (k, n)
    loss: float = float("inf")  # the objective, with the pass's W: ‖V − W h‖² and the penalties
    penalty: float = 0.0  # the penalties' part in it
    beta: float = 0.5  # extrapolation
    ceiling: float = 1.0
    last_beta: float = 0.5
    accepted: bool = True  # False: the pass raised the loss, h is the one before
    exact: bool = True  # the loss is from the residual, not from the form that cancels
    slot: int = -1  # where the W is that belongs to it, if one is carried; -1: not yet
    held: float = float("nan")  # mean squared error of what is held out, with the H that the pass was given
    best: Array | None = None  # of the H that were given, the one with the least such error
    best_held: float = float("inf")
    best_slot: int = -1  # where its W is
    stale: int = 0  # passes since
    good: Array | None = None  # sgd, and Newton's steps: the H that `entering` came from
    good_slot: int = -1  # where its W is
    rate: float = 1.0  # of the steps, relative to the first ones (sgd), or to Newton's
    epoch: int = 0  # sgd: sweeps that were kept
    diverged: bool = False  # no step is short enough
    settled: bool = False  # a pass from the H of before did not lower the loss
    level: int = 0  # how exactly equations are solved: see `Solver.at_level`
    scales: tuple[float, ...] = ()  # blocks: by what the components of the H in `slot` are to be divided
    good_scales: tuple[float, ...] = ()  # and those of the H in `good_slot`; (): by 1

    SCALARS: ClassVar[tuple[str, ...]] = (
        "loss", "penalty", "beta", "ceiling", "last_beta", "accepted", "exact", "slot", "held", "best_held",
        "best_slot", "stale", "good_slot", "rate", "epoch", "diverged", "settled", "level", "scales",
        "good_scales",
    )  # fmt: skip

    @property
    def next_slot(self) -> int:
        """Where the next W may go: not where one is that may still be asked for."""
        taken = (self.slot, self.best_slot, self.good_slot)
        return next(slot for slot in range(SLOTS) if slot not in taken)

    @property
    def measured(self) -> State:
        """The state that the loss is of: of sgd it is the one before."""
        if self.good is None:
            return self
        return replace(self, h=self.good[: len(self.h)], entering=self.good, slot=self.good_slot)

    def watched(self, before: State, totals: Any, given: Array) -> State:
        """This state, with what is held out looked at: the errors of ``given`` and the W of this state."""
        if totals.held_out_weight == 0:
            return self
        held = totals.held_out_loss / totals.held_out_weight
        if held < BETTER * before.best_held:
            return replace(self, held=held, best=given, best_held=held, best_slot=self.slot)
        return replace(
            self,
            held=held,
            best=before.best,
            best_held=before.best_held,
            best_slot=before.best_slot,
            stale=before.stale + self.accepted,  # a pass that went too far says nothing
        )


class Solver(Protocol):
    """What the passes and the loop ask of a solver."""

    @property
    def penalty(self) -> Penalty: ...

    @property
    def carries_weights(self) -> bool:
        """Whether W must be kept from pass to pass."""
        ...

    @property
    def finest(self) -> int:
        """The highest level that `at_level` knows."""
        ...

    def at_level(self, level: int) -> Solver:
        """Return the solver for a level: each solves a pass's equations more exactly than the one before."""
        ...

    def weigh(self, v: Block, h: Array, w: Array | None) -> Array:
        """The W of a panel, (r, k), in a pass."""
        ...

    def learn(self, v: Block, w: Array, h: Array, exact: bool) -> Sums:
        """What H learns from a panel and its W; ``exact``: with the loss of ``h``, entry by entry."""
        ...

    def error(self, v: Block, w: Array, h: Array, final: bool = False) -> float:
        """Return the loss of w h on a panel, without penalties.

        With ``final`` a divergence may be infinite, where an entry > 0 meets a 0 of w h.
        """
        ...

    def finish(self, v: Block, h: Array, w: Array | None) -> Array:
        """The W of a panel in the answer."""
        ...

    def update(self, state: State, totals: Any, sumsq: float) -> State:
        """The next state, from what a pass gave that began with ``state.entering``."""
        ...


class OneLevel:
    """A solver whose updates have no inner solve that could be more exact."""

    finest: ClassVar[int] = 0

    def at_level(self, level: int) -> Self:
        return self


class Squares:
    """The loss ‖V − W H‖², for solvers that work with normal equations."""

    def learn(self, v: Block, w: Array, h: Array, exact: bool) -> Sums:
        return least_squares.sums(v, w, h if exact else None)

    def error(self, v: Block, w: Array, h: Array, final: bool = False) -> float:
        return least_squares.residual(v, w, h)


def further(h: Array, before: Array, beta: float) -> Array:
    """H extrapolated: ``max(0, H + β (H − H_before))``."""
    return np.asarray(np.maximum(h + h.dtype.type(beta) * (h - before), 0))


def undone(state: State, settled: bool) -> State:
    """The state after a pass of `HALS` that raised the loss; ``settled``: it began with the H of before."""
    return replace(
        state,
        entering=state.h,
        beta=state.beta / SHRINK,
        ceiling=state.last_beta,
        accepted=False,
        settled=settled,
    )


def advanced(state: State, **reached: Any) -> State:
    """The state after a pass of `HALS` that did not: what it ``reached``, and a larger β."""
    return State(
        level=state.level,
        beta=min(state.ceiling, GROW * state.beta),
        ceiling=min(1.0, GROW_CEILING * state.ceiling),
        last_beta=state.beta,
        **reached,
    )


def loss(sumsq: float, totals: Sums, given: Array, h: Array) -> float:
    """‖V − W h‖² where the sums are those of W and, if they have one, the residual is that of ``given``."""
    if np.isnan(totals.residual):
        return least_squares.expanded_loss(sumsq, totals, h)
    step = (h - given).astype(np.float64)
    slope = least_squares.times((h + given).T.astype(np.float64), totals.gram).T - 2 * totals.num
    return totals.residual + float(np.vdot(step, slope))


def _in_threads(solve: Callable[[slice, Array], Array], num: Array, gram: Array) -> Array:
    """Return what ``solve`` gives for slices of the rows of ``num`` and their gram matrices."""
    rows, k = num.shape
    if rows <= IN_ONE_GO:
        return solve(slice(None), gram)
    count = os.cpu_count() or 1
    cuts = np.linspace(0, rows, 4 * count + 1, dtype=int)
    slices = [slice(*pair) for pair in pairwise(cuts.tolist())]
    grams = (gram if least_squares.shared(gram, k) else gram[some] for some in slices)
    with ThreadPoolExecutor(count) as pool:
        return np.concatenate(list(pool.map(solve, slices, grams)))


def refit_rows(start: Array, num: Array, gram: Array, tol: float) -> Array:
    """`kernels.refit`, its rows shared among the threads of this process."""
    return _in_threads(lambda some, own: least_squares.refit(start[some], num[some], own, tol), num, gram)


def solve_rows(num: Array, gram: Array) -> Array:
    """`kernels.solve_exactly`, its rows shared among the threads of this process."""
    return _in_threads(lambda some, own: least_squares.solve_exactly(num[some], own), num, gram)


@dataclass(frozen=True)
class HALS(Squares):
    """Alternating non-negative least squares with H as the state; see docs/algorithms.md.

    W is solved anew in each panel, H from the sums, both by coordinate descent, and H is extrapolated from
    pass to pass: ``H_y = max(0, H + β (H − H_before))``. β grows while the loss falls; when it rises the
    step is undone and β shrinks (Ang & Gillis 2019).
    """

    penalty: Penalty = NO_PENALTY
    tol: float = 1e-2  # of the inner solves, see `kernels.refit`
    in_float64: bool = False  # equations of float32 are made and solved in float64
    carries_weights: ClassVar[bool] = False
    finest: ClassVar[int] = FINEST

    def at_level(self, level: int) -> Self:
        return replace(self, tol=self.tol * FINER**level, in_float64=True) if level else self

    def weigh(self, v: Block, h: Array, w: Array | None) -> Array:
        if self.in_float64:
            return self.finish(v, h, w)
        return least_squares.solve_weights(v, h, self.tol, self.penalty.left, self.penalty.left_l1)

    def learn(self, v: Block, w: Array, h: Array, exact: bool) -> Sums:
        h_or_none = h if exact else None
        return (
            double_precision.sums(v, w, h_or_none) if self.in_float64 else least_squares.sums(v, w, h_or_none)
        )

    def finish(self, v: Block, h: Array, w: Array | None) -> Array:
        solve = double_precision.exact_weights if self.in_float64 else least_squares.exact_weights
        return solve(v, h, self.penalty.left, self.penalty.left_l1)

    def settle(self, h: Array, totals: Sums) -> Array:
        """The H of the answer, where it is H that must fit what the panels hold, and not the reverse."""
        num, gram = self.penalty.equations(totals, len(h))
        return solve_rows(num, gram).T.astype(h.dtype)

    def factor_of(self, left: Array) -> Factor | None:
        """Return the factor of a left factor (rows, k) that normal equations for H are too rough for."""
        return least_squares.factor_of(left.T, self.penalty.right)

    def settle_by(self, factor: Factor, rows: int, totals: Sums) -> Array:
        """Return what `settle` does, float64, where the W of the sums is the basis of a factor."""
        lasso, target = self.penalty.right_l1 * rows, totals.num.T
        return _in_threads(
            lambda some, upper: least_squares.solve_by_factor(target[some], upper, lasso),
            target,
            factor.upper,
        ).T

    def follow(self, given: Array, totals: Sums) -> Array:
        """H from the sums, beginning at the one that was given."""
        num, gram = self.penalty.equations(totals, len(given))
        dtype = np.float64 if self.in_float64 else given.dtype
        h = refit_rows(given.T.astype(dtype), num.astype(dtype), gram, self.tol)
        return np.ascontiguousarray(h.T, given.dtype)

    def update(self, state: State, totals: Sums, sumsq: float) -> State:
        given = state.entering
        h = self.follow(given, totals)
        scales, penalty = self.penalty.balance(*norms_of(totals, h))
        reached = loss(sumsq, totals, given, h) + penalty
        if reached > state.loss:
            return undone(state, np.array_equal(given, state.h)).watched(state, totals, given)
        return advanced(
            state,
            h=rescaled(h, scales),
            entering=rescaled(further(h, state.h, state.beta), scales),
            loss=reached,
            penalty=penalty,
            exact=not np.isnan(totals.residual),
        ).watched(state, totals, given)


@dataclass(frozen=True)
class MU(Squares, OneLevel):
    """Multiplicative updates of Lee & Seung 2001, W first and then H, with a W that is carried.

    ``weights_first`` is False where the panels are columns of V: there H is what a panel holds, so that a
    pass updates H and then W, and the pair that belongs together is the H of the pass and the W before it.
    """

    delta: float
    floor: float  # of a W that begins as the solution for H: a zero would stay zero
    inner_iter: int = 1
    weights_first: bool = True
    penalty: Penalty = NO_PENALTY
    right_delta: float | None = None  # of H; by default that of W
    carries_weights: ClassVar[bool] = True

    def weigh(self, v: Block, h: Array, w: Array | None) -> Array:
        if w is None:
            w = lift(least_squares.solve_weights(v, h, 1e-2, self.penalty.left), self.floor)
        lasso = self.penalty.left_l1 * least_squares.row_mass(v)[:, None]
        equations = least_squares.equations(v, h, self.penalty.left)
        return least_squares.multiply(w, *equations, self.delta + lasso, self.inner_iter)

    def finish(self, v: Block, h: Array, w: Array | None) -> Array:
        assert w is not None
        return w

    def update(self, state: State, totals: Sums, sumsq: float) -> State:
        given = state.entering
        updated = self.follow(given, totals)
        h = updated if self.weights_first else given
        penalty = self.penalty.of(totals, h)
        return State(
            h=h,
            entering=updated,
            loss=loss(sumsq, totals, given, h) + penalty,
            penalty=penalty,
            exact=not np.isnan(totals.residual),
            slot=state.next_slot,
        ).watched(state, totals, given)

    def follow(self, h: Array, totals: Sums) -> Array:
        """H after its update from the sums."""
        gram = least_squares.ridge(totals.gram, len(h), self.penalty.right * totals.column_weight)
        lasso = self.penalty.right_l1 * np.reshape(totals.column_weight, (-1, 1))
        delta = self.delta if self.right_delta is None else self.right_delta
        updated = least_squares.multiply(h.T, totals.num.T, gram, delta + lasso, self.inner_iter)
        return np.ascontiguousarray(updated.T)


def lift(factor: Array, floor: float) -> Array:
    """Entries below ``floor`` raised to it, so that a multiplicative update can move them."""
    return np.asarray(np.maximum(factor, factor.dtype.type(floor)))
