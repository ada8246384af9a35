"""The solvers: how a panel's W is found from H, and how H is updated from the sums over all panels.

A solver is a frozen record of its options; what changes from pass to pass is a `State`. Both speak of V
in panel orientation: W has the panels' rows, H is what every panel is given.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import ClassVar, Protocol

import numpy as np

from dask_nmf import kernels
from dask_nmf.kernels import Array, Block, Sums

GROW, GROW_CEILING, SHRINK = 1.05, 1.01, 1.5
IN_ONE_GO = 4096  # rows of Hᵀ below which threads do not pay


@dataclass(frozen=True)
class State:
    """What a pass leaves behind: everything the next one needs, besides V (and a carried W)."""

    h: Array  # the H that the answer would use, (k, n)
    entering: Array  # the H that the next pass gives to the panels, (k, n)
    loss: float = float("inf")  # ‖V − W h‖² with the pass's W
    beta: float = 0.5  # extrapolation
    ceiling: float = 1.0
    last_beta: float = 0.5
    accepted: bool = True  # False: the pass raised the loss, h is the one before
    exact: bool = True  # the loss is from the residual, not from the form that cancels

    SCALARS: ClassVar[tuple[str, ...]] = ("loss", "beta", "ceiling", "last_beta", "accepted", "exact")


class Solver(Protocol):
    """What the passes and the loop ask of a solver."""

    @property
    def carries_weights(self) -> bool:
        """Whether W must be kept from pass to pass."""
        ...

    def weigh(self, v: Block, h: Array, w: Array | None) -> Array:
        """The W of a panel, (r, k), in a pass."""
        ...

    def finish(self, v: Block, h: Array, w: Array | None) -> Array:
        """The W of a panel in the answer."""
        ...

    def settle(self, h: Array, totals: Sums) -> Array:
        """The H of the answer, where it is H that must fit what the panels hold, and not the reverse."""
        ...

    def update(self, state: State, totals: Sums, sumsq: float) -> State:
        """The next state, from the sums of a pass that was given ``state.entering``."""
        ...


def loss(sumsq: float, totals: Sums, given: Array, h: Array) -> float:
    """‖V − W h‖² where the sums are those of W and, if they have one, the residual is that of ``given``."""
    expanded = kernels.expanded_loss(sumsq, totals, h)
    if np.isnan(totals.residual):
        return expanded
    step = (h - given).astype(np.float64)
    slope = totals.gram @ (h + given).astype(np.float64) - 2 * totals.num
    return totals.residual + float(np.vdot(step, slope))


def refit_rows(start: Array, num: Array, gram: Array, tol: float) -> Array:
    """`kernels.refit`, its rows shared among the threads of this process."""
    if len(start) <= IN_ONE_GO:
        return kernels.refit(start, num, gram, tol)
    cuts = np.linspace(0, len(start), 4 * (os.cpu_count() or 1) + 1, dtype=int)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        parts = pool.map(lambda a, b: kernels.refit(start[a:b], num[a:b], gram, tol), cuts[:-1], cuts[1:])
        return np.concatenate(list(parts))


def solve_rows(num: Array, gram: Array, tol: float) -> Array:
    """`kernels.solve`, its rows shared among the threads of this process."""
    return refit_rows(kernels.guess(num, gram), num, gram, tol)


@dataclass(frozen=True)
class HALS:
    """Alternating non-negative least squares with H as the state; see docs/design.md.

    W is solved anew in each panel, H from the sums, both by coordinate descent, and H is extrapolated from
    pass to pass: ``H_y = max(0, H + β (H − H_before))``. β grows while the loss falls; when it rises the
    step is undone and β shrinks (Ang & Gillis 2019).
    """

    tol: float = 1e-2  # of the inner solves, see `kernels.refit`
    final_tol: float = 1e-6
    carries_weights: ClassVar[bool] = False

    def weigh(self, v: Block, h: Array, w: Array | None) -> Array:
        return kernels.solve_weights(v, h, self.tol)

    def finish(self, v: Block, h: Array, w: Array | None) -> Array:
        return kernels.solve_weights(v, h, self.final_tol)

    def settle(self, h: Array, totals: Sums) -> Array:
        return solve_rows(totals.num.T.astype(h.dtype), totals.gram, self.final_tol).T

    def update(self, state: State, totals: Sums, sumsq: float) -> State:
        given = state.entering
        num = totals.num.T.astype(given.dtype)
        h = np.ascontiguousarray(refit_rows(given.T, num, totals.gram, self.tol).T)
        reached = loss(sumsq, totals, given, h)
        if reached > state.loss:
            return replace(
                state,
                entering=state.h,
                beta=state.beta / SHRINK,
                ceiling=state.last_beta,
                accepted=False,
            )
        return State(
            h=h,
            entering=np.maximum(h + h.dtype.type(state.beta) * (h - state.h), 0),
            loss=reached,
            beta=min(state.ceiling, GROW * state.beta),
            ceiling=min(1.0, GROW_CEILING * state.ceiling),
            last_beta=state.beta,
            exact=not np.isnan(totals.residual),
        )


@dataclass(frozen=True)
class MU:
    """Multiplicative updates of Lee & Seung 2001, W first and then H, with a W that is carried.

    ``weights_first`` is False where the panels are columns of V: there H is what a panel holds, so that a
    pass updates H and then W, and the pair that belongs together is the H of the pass and the W before it.
    """

    delta: float
    floor: float  # of a W that begins as the solution for H: a zero would stay zero
    inner_iter: int = 1
    weights_first: bool = True
    carries_weights: ClassVar[bool] = True

    def weigh(self, v: Block, h: Array, w: Array | None) -> Array:
        if w is None:
            w = lift(kernels.solve_weights(v, h, 1e-2), self.floor)
        return kernels.multiply(w, np.asarray(v @ h.T), h @ h.T, self.delta, self.inner_iter)

    def finish(self, v: Block, h: Array, w: Array | None) -> Array:
        assert w is not None
        return w

    def settle(self, h: Array, totals: Sums) -> Array:
        return h

    def update(self, state: State, totals: Sums, sumsq: float) -> State:
        given = state.entering
        updated = self.follow(given, totals)
        h = updated if self.weights_first else given
        exact = not np.isnan(totals.residual)
        return State(h=h, entering=updated, loss=loss(sumsq, totals, given, h), exact=exact)

    def follow(self, h: Array, totals: Sums) -> Array:
        """H after its update from the sums."""
        num = totals.num.T.astype(h.dtype)
        gram = totals.gram.astype(h.dtype)
        return np.ascontiguousarray(kernels.multiply(h.T, num, gram, self.delta, self.inner_iter).T)


def lift(factor: Array, floor: float) -> Array:
    """Entries below ``floor`` raised to it, so that a multiplicative update can move them."""
    return np.asarray(np.maximum(factor, factor.dtype.type(floor)))
