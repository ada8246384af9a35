"""The engine of a grid: V cut both ways, because H fits no worker.

H is in pieces that are never together in a process. Three places have the last H, the one before, and room
for the next. The `State` says which is which, and by how much H is extrapolated; its own arrays have no
columns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol, cast, runtime_checkable

import numpy as np
from dask.delayed import Delayed

from dask_nmf.execution import executor
from dask_nmf.execution.engine import FinalFactors, Model, Sink
from dask_nmf.execution.graphs import grid
from dask_nmf.execution.graphs.grid import Blocks, ExtrapolatedH, GridDraw, GridPassSpec, InUnits, Look, Piece
from dask_nmf.execution.graphs.reduction import NOTHING
from dask_nmf.execution.tasks.factor_store import FactorSlots, FactorStore
from dask_nmf.kernels.blocks import masking
from dask_nmf.kernels.row_sums import Sums
from dask_nmf.kernels.summary.digests import merge_digests
from dask_nmf.kernels.summary.row_sample import Candidates, SampleSpec, Summary
from dask_nmf.planning.grid import GridPlan
from dask_nmf.solvers.hals import HALS
from dask_nmf.solvers.parts.state import State, accept_step, reject_step
from dask_nmf.sources.matrix import Matrix
from dask_nmf.types import Array


@runtime_checkable
class GridSlots(FactorSlots, Protocol):
    """Places for Hᵀ, by the slots of a `State`, and for the W of a pass; `Run` is one."""

    def new_h_pieces(self, slot: int) -> FactorStore:
        """Return a place for another H, which is then the one that is in the slot."""
        ...

    def temporary_w(self) -> FactorStore:
        """Return a place for the W of a pass."""
        ...


class GridTotals(NamedTuple):
    """What a pass gives beside H, which it has updated already."""

    loss: float  # without the penalty; less ‖V‖², where it was not taken entry by entry
    w_norms: Array  # see `Piece.norms`
    h_norms: Array
    exact: bool
    same: bool  # the pass began with the H of before


@dataclass(frozen=True)
class PiecewiseHALS(HALS):
    """`HALS` with H in pieces: the tasks of a pass update H, and the state says where it is."""

    def update(self, state: State, totals: Any, sumsq: float) -> State:
        """Return the next state, from `GridTotals`: that of `HALS`, but for H."""
        scales, penalty = self.penalty.balance(tuple(totals.w_norms), tuple(totals.h_norms))
        loss = totals.loss + penalty + (0.0 if totals.exact else sumsq)
        if loss > state.loss:
            return reject_step(state, totals.same)
        return accept_step(
            state,
            h=state.h,
            h_input=state.h_input,
            loss=loss,
            penalty=penalty,
            exact=totals.exact,
            w_slot=state.next_slot,
            previous_slot=state.w_slot,
            scales=divisors(scales),
            previous_scales=divisors(scales * (state.scales or 1.0)),
        )


def divisors(scales: Array) -> tuple[float, ...]:
    """Return the scales of components as a `State` has them: () where all are 1."""
    return () if (scales == 1).all() else tuple(scales.tolist())


class GridEngine:
    """V cut both ways into blocks.

    Parameters
    ----------
    matrix : V.
    tiling : where the blocks are, and how often a pass reads them.
    """

    def __init__(self, matrix: Matrix, tiling: GridPlan) -> None:
        self.matrix = matrix
        self.tiling = tiling
        self.scale = 1.0  # a power of two, by which V counts; it is known from the first read on

    @property
    def bytes(self) -> int:
        """Bytes of V that a pass reads."""
        return self.tiling.pass_bytes

    def sample_of(self, draw: SampleSpec) -> GridDraw:
        """Return which rows and columns of V a sample has: the plan says how many, if it is not none."""
        rows, columns = self.tiling.sample if draw.size else (0, 0)
        layout = self.matrix.layout
        return GridDraw(draw.seed, rows / layout.rows, columns / layout.columns)

    def summarize(self, draw: SampleSpec) -> Summary:
        """Check, measure and digest V, and draw a sample of its rows and columns, in one read.

        The candidates of the summary are the sample, with the drawn columns alone.
        """
        sample = self.sample_of(draw)
        looks: list[Look] = self.compute(lambda blocks: grid.summarize_rows(blocks, sample))
        rows = sample.of_rows((0, self.matrix.layout.rows))
        unused = np.zeros(len(rows))
        return Summary(
            sum(look.total for look in looks),
            sum(look.sumsq for look in looks),
            sum(look.stored for look in looks),
            sum(look.empty_rows for look in looks),
            0,
            float(self.matrix.layout.rows),
            next((look.bad for look in looks if look.bad is not None), None),
            Candidates(rows, unused, unused, masking.vstack([look.sample for look in looks])),
            digests=(merge_digests([look.digest for look in looks]),),
        )

    def sweep(self, models: Sequence[Model]) -> list[GridTotals]:
        """Return the totals of a pass for each model, whose H is then in its next slot.

        V is read as often for each model as for one alone.
        """
        return [self._sweep_for(model) for model in models]

    def _sweep_for(self, model: Model) -> GridTotals:
        solver, state, slots = cast(PiecewiseHALS, model.own_solver), model.state, model.slots
        assert isinstance(slots, GridSlots)
        h, w_out, h_out = given_h(slots, state), slots.temporary_w(), slots.new_h_pieces(state.next_slot)
        return self._pass(
            GridPassSpec(solver, h, w_out, h_out, solver.update_h, model.exact, scale=self.scale)
        )

    def finalize(self, model: Model, new_sink: Callable[[], Sink] | None = None) -> FinalFactors:
        """Solve for W in the last pass, and then for H where V was cut along its columns.

        Both factors go to the sink, which must have a place for each.
        """
        assert new_sink is not None
        sink = new_sink()
        assert sink.right is not None
        solver, slots = cast(PiecewiseHALS, model.solver), model.slots
        assert isinstance(slots, GridSlots)
        penalty = solver.penalty
        places = InUnits(sink.left, penalty.left_unit), InUnits(sink.right, penalty.right_unit)
        as_it_is = replace(model.state, accepted=False)  # H is not extrapolated
        update_h = solver.solve_h if self.matrix.transposed else None
        spec = GridPassSpec(solver, given_h(slots, as_it_is), *places, update_h, last=True, scale=self.scale)
        return FinalFactors(sink.left, sink.right, Sums(NOTHING, NOTHING, self._pass(spec).loss))

    def _pass(self, spec: GridPassSpec) -> GridTotals:
        rows = len(self.tiling.rows) - 1
        if self.tiling.reads == 1:
            found = self.compute(lambda blocks: grid.single_read_pass(blocks, spec))
            on_w, pieces = found[:rows], found[rows:]
        else:
            on_w = self.compute(lambda blocks: grid.w_half_pass(blocks, spec))
            pieces = self.compute(lambda blocks: grid.h_half_pass(blocks, spec))
        losses, on_h, same = zip(*(Piece(*piece) for piece in pieces), strict=True)
        return GridTotals(sum(losses), sum(on_w), sum(on_h), spec.exact, all(same))

    def write_h(self, place: FactorStore, make: Callable[[int, int], Array]) -> None:
        """Write an Hᵀ to begin with; ``make(first, last)`` returns some of its rows, (columns, k)."""
        executor.compute_with_retries(lambda: grid.write_h(place, self.tiling.columns, make))

    def compute(self, build: Callable[[Blocks], list[Delayed]]) -> list[Any]:
        """Build a graph of blocks and compute it."""
        down, across = self.tiling.shape
        return executor.compute_with_retries(
            lambda: build(Blocks.of(self.matrix, self.tiling)), reads=down * across
        )

    def close(self) -> None:
        """Release nothing, as no block is kept from pass to pass."""


def given_h(slots: FactorSlots, state: State) -> ExtrapolatedH:
    """Return the H that the next pass begins with."""
    if state.w_slot < 0:  # no pass so far has given one
        return ExtrapolatedH(slots.factor(state.previous_slot))
    last = slots.factor(state.w_slot)
    if not state.accepted or state.previous_slot < 0:
        return ExtrapolatedH(last, scales=state.scales)
    before = slots.factor(state.previous_slot)
    return ExtrapolatedH(last, before, state.last_beta, state.scales, state.previous_scales)
