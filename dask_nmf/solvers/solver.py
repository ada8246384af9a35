"""What passes and the loop ask of a solver, and the state that a pass leaves behind."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, ClassVar, Literal, NamedTuple, Protocol, Self

import numpy as np

from dask_nmf.kernels import least_squares, row_sums
from dask_nmf.kernels.gradient import SGDOptions
from dask_nmf.kernels.row_sums import Sums
from dask_nmf.settings import Settings
from dask_nmf.solvers.penalties import Penalty
from dask_nmf.types import Array, Block

GROW, GROW_CEILING, SHRINK = 1.05, 1.01, 1.5
N_W_SLOTS = 4  # places for a carried W: the last one, the one before, the best one and the next one
BETTER = 1 - 1e-6  # times the least error of what is held out: less of a gain is rounding
FINER = 1e-2  # times the tolerance of the inner solves, from one level to the next
FINEST = 2  # levels above the first one, of solvers that have an inner solve
LIFT = 1e-3  # of a factor's mean entry: less is raised to it where updates cannot move zeros


Look = Callable[[Array], Sums]  # a read of V: from H (k, n) to its sums, the W being known
Read = Callable[[Array, Array], Sums]  # a read of V: from H (k, n) and W (rows, k) to their sums


class RowStore(Protocol):
    """A place of a factor, by rows."""

    def read(self, first: int, last: int) -> Array: ...

    def write(self, first: int, w: Array) -> None: ...


@dataclass(frozen=True)
class State:
    """What a pass leaves behind: everything the next one needs, besides V (and a carried W)."""

    h: Array  # the H that the answer would use, (k, n)
    h_input: Array  # the H that the next pass gives to the panels, (k, n)
    loss: float = float("inf")  # the objective, with the pass's W: ‖V − W h‖² and the penalties
    penalty: float = 0.0  # the penalties' part in it
    beta: float = 0.5  # extrapolation
    beta_max: float = 1.0
    last_beta: float = 0.5
    accepted: bool = True  # False: the pass raised the loss, h is the one before
    exact: bool = True  # the loss is from the residual, not from the form that cancels
    w_slot: int = -1  # where the W is that belongs to it, if one is carried; -1: not yet
    held_out_mse: float = float(
        "nan"
    )  # mean squared error of what is held out, with the H that the pass was given
    best: Array | None = None  # of the H that were given, the one with the least such error
    best_held_out_mse: float = float("inf")
    best_slot: int = -1  # where its W is
    passes_since_best: int = 0  # passes since
    h_previous: Array | None = None  # sgd, and Newton's steps: the H that `h_input` came from
    previous_slot: int = -1  # where its W is
    rate: float = 1.0  # of the steps, relative to the first ones (sgd), or to Newton's
    epoch: int = 0  # sgd: sweeps that were kept
    diverged: bool = False  # no step is short enough
    stalled: bool = False  # a pass from the H of before did not lower the loss
    level: int = 0  # how exactly equations are solved: see `Solver.at_level`
    scales: tuple[float, ...] = ()  # blocks: by what the components of the H in `w_slot` are to be divided
    previous_scales: tuple[float, ...] = ()  # and those of the H in `previous_slot`; (): by 1

    SCALARS: ClassVar[tuple[str, ...]] = (
        "loss", "penalty", "beta", "beta_max", "last_beta", "accepted", "exact", "w_slot", "held_out_mse",
        "best_held_out_mse", "best_slot", "passes_since_best", "previous_slot", "rate", "epoch", "diverged",
        "stalled", "level", "scales", "previous_scales",
    )  # fmt: skip

    @property
    def next_slot(self) -> int:
        """Where the next W may go: not where one is that may still be asked for."""
        taken = (self.w_slot, self.best_slot, self.previous_slot)
        return next(slot for slot in range(N_W_SLOTS) if slot not in taken)

    @property
    def as_measured(self) -> State:
        """The state that the loss is of: of sgd it is the one before."""
        if self.h_previous is None:
            return self
        return replace(
            self, h=self.h_previous[: len(self.h)], h_input=self.h_previous, w_slot=self.previous_slot
        )

    def track_held_out(self, before: State, totals: Any, given: Array) -> State:
        """This state, with what is held out looked at: the errors of ``given`` and the W of this state."""
        if totals.held_out_weight == 0:
            return self
        held = totals.held_out_loss / totals.held_out_weight
        if held < BETTER * before.best_held_out_mse:
            return replace(self, held_out_mse=held, best=given, best_held_out_mse=held, best_slot=self.w_slot)
        return replace(
            self,
            held_out_mse=held,
            best=before.best,
            best_held_out_mse=before.best_held_out_mse,
            best_slot=before.best_slot,
            passes_since_best=before.passes_since_best
            + self.accepted,  # a pass that went too far says nothing
        )


class Solver(Protocol):
    """What the passes and the loop ask of a solver."""

    @property
    def penalty(self) -> Penalty: ...

    @property
    def carries_w(self) -> bool:
        """Whether W must be kept from pass to pass."""
        ...

    @property
    def fits_h(self) -> bool:
        """Whether `fit_h` finds the H that is the best for a W: see `RightSolver`."""
        ...

    @property
    def may_overshoot(self) -> bool:
        """Whether the last H may be worse than `State.h_previous`, which only a read of V can tell."""
        ...

    @property
    def finest(self) -> int:
        """The highest level that `at_level` knows."""
        ...

    def at_level(self, level: int) -> Solver:
        """Return the solver for a level: each solves a pass's equations more exactly than the one before."""
        ...

    def accumulate(self, v: Block, w: Array, h: Array, exact: bool) -> Sums:
        """What H learns from a panel and its W; ``exact``: with the loss of ``h``, entry by entry."""
        ...

    def loss(self, v: Block, w: Array, h: Array, final: bool = False) -> float:
        """Return the loss of w h on a panel, without penalties.

        With ``final`` a divergence may be infinite, where an entry > 0 meets a 0 of w h.
        """
        ...

    def solve_w_final(self, v: Block, h: Array, w: Array | None) -> Array:
        """The W of a panel in the answer."""
        ...

    def result_store(self, store: RowStore) -> RowStore:
        """Return the place of a carried W, as one of a W of the result."""
        ...

    def update(self, state: State, totals: Any, sumsq: float) -> State:
        """The next state, from what a pass gave that began with ``state.h_input``."""
        ...


class PanelSolver(Solver, Protocol):
    """A solver whose passes go over panels."""

    def solve_w(self, v: Block, h: Array, w: Array | None) -> Array:
        """Return the W of a panel, (r, k), in a pass; ``w`` is the one before, if W is carried."""
        ...


class StratumSolver(Solver, Protocol):
    """A solver whose passes go over blocks, stratum by stratum."""

    def steps(self, state: State) -> SGDOptions:
        """Return how the next sweep goes on from a state."""
        ...


class RightSolver(PanelSolver, Protocol):
    """A solver that finds the factor that panels are given, (k, n), for the one that they hold."""

    @property
    def one_pass(self) -> bool:
        """Whether it follows from the sums of one pass: they have its normal equations."""
        ...

    def with_penalty(self, penalty: Penalty) -> Self:
        """Return the same solver with other penalties."""
        ...

    def update_h(self, h: Array, totals: Sums) -> Array:
        """Return H (k, n) after one step from the one that a pass was given."""
        ...

    def find_h(self, known: KnownW, read: Read) -> tuple[Array, Sums]:
        """Return the best H (k, n) for a W, and the sums of its last read of V.

        ``read`` makes one read of V, from H and W to their sums.
        """
        ...

    def fit_h(self, h: Array, totals: Sums, look: Look, sumsq: float) -> tuple[Array, float]:
        """Return the best H (k, n) for a W whose sums with ``h`` are known, and the loss.

        Parameters
        ----------
        look : one more read of V, from H to the sums with the same W.
        sumsq : ‖V‖².
        """
        ...


class SolverDefaults:
    """What holds for a solver unless it says otherwise."""

    finest: ClassVar[int] = 0
    fits_h: ClassVar[bool] = False
    may_overshoot: ClassVar[bool] = False

    def at_level(self, level: int) -> Self:
        """Return the solver itself: its updates have no inner solve that could be more exact."""
        return self

    def result_store(self, store: RowStore) -> RowStore:
        """Return the place of a carried W itself: it has no column beside those of the result."""
        return store


class SolvesRight:
    """What solvers share that find either factor exactly for the other, and so carry no W."""

    carries_w: ClassVar[Literal[False]] = False
    fits_h: ClassVar[bool] = True


def extrapolate(h: Array, before: Array, beta: float) -> Array:
    """H extrapolated: ``max(0, H + β (H − H_before))``."""
    return np.asarray(np.maximum(h + h.dtype.type(beta) * (h - before), 0))


def reject_step(state: State, stalled: bool) -> State:
    """The state after a pass of `HALS` that raised the loss; ``stalled``: it began with the H of before."""
    return replace(
        state,
        h_input=state.h,
        beta=state.beta / SHRINK,
        beta_max=state.last_beta,
        accepted=False,
        stalled=stalled,
    )


def accept_step(state: State, **reached: Any) -> State:
    """The state after a pass of `HALS` that did not: what it ``reached``, and a larger β."""
    return State(
        level=state.level,
        beta=min(state.beta_max, GROW * state.beta),
        beta_max=min(1.0, GROW_CEILING * state.beta_max),
        last_beta=state.beta,
        **reached,
    )


class SquaredError:
    """The loss ‖V − W H‖², for solvers that work with normal equations."""

    def accumulate(self, v: Block, w: Array, h: Array, exact: bool) -> Sums:
        return row_sums.block_sums(v, w, h if exact else None)

    def loss(self, v: Block, w: Array, h: Array, final: bool = False) -> float:
        return row_sums.residual(v, w, h)


def loss_of_h(sumsq: float, totals: Sums, given: Array, h: Array) -> float:
    """‖V − W h‖² where the sums are those of W and, if they have one, the residual is that of ``given``."""
    if np.isnan(totals.residual):
        return row_sums.expanded_loss(sumsq, totals, h)
    step = (h - given).astype(np.float64)
    slope = least_squares.apply_gram((h + given).T.astype(np.float64), totals.gram).T - 2 * totals.num
    return totals.residual + float(np.vdot(step, slope))


class Problem(NamedTuple):
    """What a solver is made for: the settings, and what is known of V after its first read."""

    settings: Settings
    penalty: Penalty  # in the units of the fit
    level: float  # the mean of what is fitted, about 1
    scale: float  # a power of two, by which V counts
    dtype: np.dtype[Any]
    columns: int  # of the panels
    transposed: bool  # the panels are columns of V

    @property
    def floor(self) -> float:
        """The least number that a divergence divides by."""
        return smallest_divisor(self.level, self.dtype)

    @property
    def factor_scale(self) -> float:
        """The size of an entry of W and H that gives V its mean."""
        return factor_scale(self.level, self.settings.n_components)


def factor_scale(mean: float, rank: int) -> float:
    """Return √(mean(V) / k): the size of an entry of W and H that gives V its mean."""
    return float(np.sqrt(mean / rank))


def smallest_divisor(mean: float, dtype: np.dtype[Any]) -> float:
    """Return the least number that a divergence divides by, for a V of that mean."""
    limits = np.finfo(dtype)
    return max(float(limits.eps) * mean, float(limits.tiny))


IN_ONE_GO = 4096  # rows of Hᵀ below which threads do not pay


def in_threads(solve: Callable[[slice, Array], Array], num: Array, gram: Array) -> Array:
    """Return what ``solve`` gives for slices of the rows of ``num`` and their gram matrices."""
    rows, k = num.shape
    if rows <= IN_ONE_GO:
        return solve(slice(None), gram)
    count = os.cpu_count() or 1
    cuts = np.linspace(0, rows, 4 * count + 1, dtype=int)
    slices = [slice(*pair) for pair in pairwise(cuts.tolist())]
    grams = (gram if least_squares.is_shared_gram(gram, k) else gram[some] for some in slices)
    with ThreadPoolExecutor(count) as pool:
        return np.concatenate(list(pool.map(solve, slices, grams)))


def refit_rows(start: Array, num: Array, gram: Array, tol: float) -> Array:
    """`least_squares.refit`, its rows shared among the threads of this process."""
    return in_threads(lambda some, own: least_squares.refit(start[some], num[some], own, tol), num, gram)


def solve_rows(num: Array, gram: Array) -> Array:
    """`least_squares.solve_exactly`, its rows shared among the threads of this process."""
    return in_threads(lambda some, own: least_squares.solve_exactly(num[some], own), num, gram)


class KnownW(NamedTuple):
    """A factor that H is looked for."""

    w: Array  # (rows, k)
    columns: int  # of V
    mean: float  # of V, about
    uniform: bool  # whether all entries of V count alike
    most: int  # reads of V, where one is not enough

    @property
    def equal_entries(self) -> Array:
        """The H (k, columns) of equal entries with which W H has the mean of V."""
        k = self.w.shape[1]
        size = self.mean / max(k * float(self.w.mean()), float(np.finfo(self.w.dtype).tiny))
        return np.full((k, self.columns), size, self.w.dtype)
