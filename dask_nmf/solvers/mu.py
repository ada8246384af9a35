"""The solver `MU`: multiplicative updates for any loss that has their terms."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, Self

import numpy as np

from dask_nmf.kernels.blocks.masked import Cells
from dask_nmf.kernels.divergence import BetaDivergence
from dask_nmf.kernels.row_sums import Sums
from dask_nmf.solvers.parts.loss_terms import DivergenceTerms, LossTerms, SquaredTerms
from dask_nmf.solvers.parts.penalties import NO_PENALTY, Penalty
from dask_nmf.solvers.parts.state import NoRecord, State
from dask_nmf.solvers.solver import LIFT, KnownW, Problem, Read, ReadAgain, SolverDefaults, smallest_divisor
from dask_nmf.types import Array, Block

MOST_UPDATES, SETTLED = 5000, 1e-7  # of a W for a fixed H: the most updates, and their tolerance
GAIN = 1e-9  # share of the loss: the updates of H end when one gains no more than this


@dataclass(frozen=True)
class MU(SolverDefaults):
    """Multiplicative updates, W first and then H; W is carried between passes.

    ``w_first`` is False if the panels are columns of V. The panels then hold H, so that a pass updates H
    and then W; the factors that belong together are the updated H and the W that the pass was given.
    """

    terms: LossTerms
    floor: float = 0.0  # least entry of a new W: a zero would stay zero
    penalty: Penalty = NO_PENALTY
    inner_iter: int = 1
    w_first: bool = True
    carries_w: ClassVar[bool] = True

    @property
    def shares_products(self) -> bool:
        return self.terms.shares_products

    def accumulate(self, v: Block, w: Array, h: Array, exact: bool) -> Sums:
        return self.terms.accumulate(v, w, h, exact)

    def loss(self, v: Block, w: Array, h: Array, final: bool = False) -> float:
        return self.terms.loss(v, w, h, final)

    def solve_w(self, v: Block, h: Array, w: Array | None) -> Array:
        if w is None:
            w = clip_below(self.terms.new_w(v, h, self.penalty), self.floor)
        return self.terms.update_w(v, h, w, self.penalty, self.inner_iter)

    def solve_w_final(self, v: Block, h: Array, w: Array | None) -> Array:
        assert w is not None
        return w

    def update(self, state: State[NoRecord], totals: Sums, sumsq: float) -> State[NoRecord]:
        before = state.h_input
        updated = self.update_h(before, totals)
        h = updated if self.w_first else before
        measured, loss = self.terms.known_loss(totals, sumsq, before, h)
        penalty = self.penalty.of(totals, measured)
        return State(
            h=h,
            h_input=updated,
            own=state.own,
            loss=loss + penalty,
            penalty=penalty,
            exact=not np.isnan(totals.residual),
            w_slot=state.next_slot,
        ).track_held_out(state, totals, before)

    def update_h(self, h: Array, totals: Sums) -> Array:
        """Return H (k, n) after its update from the sums."""
        return self.terms.update_h(h, totals, self.penalty, self.inner_iter)


def clip_below(factor: Array, floor: float) -> Array:
    """Return a factor with entries of at least ``floor``, so that a multiplicative update can move them."""
    return np.asarray(np.maximum(factor, factor.dtype.type(floor)))


@dataclass(frozen=True)
class ConvergedMU(MU):
    """Multiplicative updates of W for a fixed H until they converge, for losses without a better solver."""

    terms: DivergenceTerms
    carries_w: ClassVar[bool] = False
    one_pass: ClassVar[Literal[False]] = False

    def with_penalty(self, penalty: Penalty) -> Self:
        return replace(self, penalty=penalty)

    def find_h(self, known: KnownW, read: Read) -> tuple[Array, Sums]:
        state = self.begin(known.equal_entries)
        for _ in range(known.most):
            totals = read(state.h_input, known.w)
            before, state = state, self.update(state, totals, 0.0)
            if before.loss - state.loss <= GAIN * state.loss:
                break
        return state.h, totals

    def fit_h(self, h: Array, totals: Sums, read_again: ReadAgain, sumsq: float) -> tuple[Array, float]:
        return h, totals.residual

    def solve_w(self, v: Cells, h: Array, w: Array | None) -> Array:
        wide = h.astype(np.float64)  # float32 may underflow
        return self.terms.iterate_w(v, wide, self.penalty, MOST_UPDATES, SETTLED).astype(h.dtype)

    def solve_w_final(self, v: Cells, h: Array, w: Array | None) -> Array:
        return self.solve_w(v, h, w)


def make(problem: Problem) -> MU:
    """Return the solver by multiplicative updates for the loss of the settings."""
    settings, scale = problem.settings, problem.factor_scale
    terms: LossTerms = DivergenceTerms(BetaDivergence(settings.beta, problem.floor), scale)
    if settings.beta == 2:
        terms = SquaredTerms(*_deltas(problem))
    return MU(terms, LIFT * scale, problem.penalty, settings.inner_iter, not problem.orientation.by_columns)


def _deltas(problem: Problem) -> tuple[Any, ...]:
    """Return δ for W and for H: it is added to products of V and the other factor."""
    delta, units = problem.settings.delta, (problem.penalty.right_unit, problem.penalty.left_unit)
    trifle = smallest_divisor(problem.level * problem.factor_scale, problem.dtype)
    return tuple(trifle if delta is None else delta * problem.scale / unit for unit in units)
