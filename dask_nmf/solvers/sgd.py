"""The solver `SGD`: minibatch sweeps over a grid of blocks, see `dask_nmf.execution.graphs.strata`.

Its factors have one more component, the accumulator of AdaGrad: see `dask_nmf.kernels.gradient`. A sweep
measures the loss of the factors that it begins with while it changes them. Factors are thus known to be good
one sweep later only, and until then the previous factors are kept too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple

import numpy as np

from dask_nmf.kernels.gradient import SGDOptions, with_accumulator
from dask_nmf.solvers.parts.penalties import Penalty
from dask_nmf.solvers.parts.squared_error import SquaredError
from dask_nmf.solvers.parts.state import RowStore, Snapshot, State
from dask_nmf.solvers.solver import Problem, SolverDefaults
from dask_nmf.types import Array, Block

FASTER, SLOWER = 1.05, 0.5  # of the rate, by the bold driver; SLOWER also follows any rejected step
MOST = 10  # times ‖V‖²: a larger residual means that the steps were too long
NOISE = 0.05  # share by which the loss may rise by chance; the bold driver allows none
ZERO = 1e-6  # a residual that differs from ‖V‖² by a smaller share belongs to factors that are nearly 0
SHORT = 2.0**-4  # share of the first rate: if such steps lead to zero too, zero is the solution
STALLED = 2.0**-30  # share of the first rate: with a lower rate the fit has diverged


class SweepSums(NamedTuple):
    """The result of a sweep over all blocks. All fields but H add over blocks."""

    right: Array  # (k + 1, n)
    residual: float  # Σ e² over the entries that count, each at its visit
    penalty: float  # the penalties, each at its visit
    held_out_loss: float  # Σ e² over the entries held out, each at its visit
    held_out_weight: float  # the number of entries held out


@dataclass(frozen=True)
class WithoutAccumulator:
    """A view of a store of extended factors, (rows, k + 1), as a store of factors, (rows, k)."""

    store: RowStore

    def read(self, first: int, last: int) -> Array:
        return np.ascontiguousarray(self.store.read(first, last)[:, :-1])

    def write(self, first: int, w: Array) -> None:
        self.store.write(first, with_accumulator(w))


@dataclass(frozen=True)
class SGDState:
    """The record of `SGD`: how far it is."""

    rate: float = 1.0  # the learning rate, relative to the first one
    epoch: int = 0  # the number of accepted sweeps


@dataclass(frozen=True)
class SGD(SquaredError, SolverDefaults):
    """Stochastic gradient descent with factors kept ≥ 0, in strata of blocks (Gemulla et al. 2011)."""

    options: SGDOptions
    schedule: str
    penalty: Penalty
    carries_w: ClassVar[bool] = True

    def solve_w_final(self, v: Block, h: Array, w: Array | None) -> Array:
        assert w is not None
        return w

    def result_store(self, store: RowStore) -> RowStore:
        return WithoutAccumulator(store)

    def begin(self, h: Array, w_slot: int = -1) -> State[SGDState]:
        return State(h, np.ascontiguousarray(with_accumulator(h.T).T), SGDState(), w_slot=w_slot)

    def steps(self, state: State[SGDState]) -> SGDOptions:
        """Return the options of the next sweep, with its learning rate."""
        by_time = 1 / (1 + state.own.epoch) if self.schedule == "inverse-time" else 1.0
        return self.options._replace(rate=self.options.rate * state.own.rate * by_time)

    def epoch(self, state: State[SGDState]) -> int:
        """Return the number of accepted sweeps."""
        return state.own.epoch

    def update(self, state: State[SGDState], totals: SweepSums, sumsq: float) -> State[SGDState]:
        if sumsq == 0:
            nothing = np.zeros_like(totals.right)
            return State(nothing[:-1], nothing, state.own, loss=0.0, w_slot=state.next_slot)
        loss = totals.residual + totals.penalty
        bold = self.schedule == "bold-driver"
        rises = loss > state.loss * (1 + (0 if bold else NOISE))
        if not state.accepted:  # after a rejected sweep, one with shorter steps may well meet a larger loss
            rises = False
        collapsed = abs(totals.residual - sumsq) < ZERO * sumsq and not self._zero_is_best(state, loss)
        fits = totals.residual <= MOST * sumsq and np.isfinite(totals.right).all()
        if collapsed or rises or not fits:
            return self._undone(state)
        return State(
            h=np.ascontiguousarray(totals.right[:-1]),
            h_input=totals.right,
            own=SGDState(state.own.rate * (FASTER if bold else 1), state.own.epoch + 1),
            loss=loss,
            penalty=totals.penalty,
            comparable=state.accepted,
            w_slot=state.next_slot,
            measured=Snapshot(state.h_input, state.w_slot),
        ).track_held_out(state, totals, totals.right)

    def _zero_is_best(self, state: State[SGDState], loss: float) -> bool:
        """Return whether zero factors may be the solution, because the penalties are strong.

        Factors whose product is t everywhere, at the best scales, change the loss of each entry of a V with
        mean μ by ``t² − 2 μ t + 2 √(α_w α_h) t + 4 √(λ_w λ_h t)``, where α are L2 and λ L1 penalties. If that
        is below 0 for some t, zero factors are not the best. Otherwise they are accepted if the loss falls
        to theirs, or if shorter steps lead to them too.
        """
        ridge = math.sqrt(self.options.w_l2 * self.options.h_l2)
        lasso = math.sqrt(self.options.w_l1 * self.options.h_l1)
        if 3 * (2 * lasso) ** (2 / 3) < 2 * (self.options.unit - ridge):
            return False
        return loss <= state.loss < np.inf or state.own.rate <= SHORT

    def _undone(self, state: State[SGDState]) -> State[SGDState]:
        """Return the state of the last good factors, with half the learning rate, after a rejected sweep."""
        good, slot = state.measured.h, state.measured.slot
        if good is None:
            good, slot = state.h_input, state.w_slot
        own = replace(state.own, rate=state.own.rate * SLOWER)
        return replace(
            state,
            h=np.ascontiguousarray(good[:-1]),
            h_input=good,
            own=own,
            accepted=False,
            diverged=own.rate < STALLED,
            w_slot=slot,
            measured=Snapshot(),
        )


def make(problem: Problem) -> SGD:
    """Return SGD by minibatches of rows, or of cells if not all of them count."""
    settings, penalty = problem.settings, problem.penalty
    by_cell = settings.missing is not None or settings.validation_fraction > 0
    adaptive = settings.schedule == "adagrad"
    batch = settings.batch_size or (1 if by_cell else 32)
    unit = problem.level or 1.0
    together = 1 if by_cell else max(batch, problem.columns)
    relative = 0.1 if settings.start == "random" else 0.03  # larger steps would spoil a good start
    rate, tilt = relative if adaptive else 0.5 / (unit * together), 1.0
    if settings.learning_rate is not None:
        rate = settings.learning_rate / (1.0 if adaptive else problem.scale)
        if settings.start == "custom" and not adaptive:  # the textbook's steps, in the units of the fit
            tilt = penalty.right_unit / penalty.left_unit
    alphas = penalty.left, penalty.right, penalty.left_l1, penalty.right_l1
    return SGD(SGDOptions(rate, adaptive, unit, *alphas, batch, tilt), settings.schedule, penalty)
