"""The engine of a grid: V is cut along rows and columns, because H does not fit in the memory of a worker.

H is in pieces that are never together in one process. Three stores hold the last H, the one before, and the
next one. The `State` names their slots and the extrapolation of H; its own arrays have no columns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import reduce
from operator import add
from typing import Any, Protocol, cast, runtime_checkable

import numpy as np
from dask.delayed import Delayed

from dask_nmf.execution import executor
from dask_nmf.execution.engine import FinalFactors, Model, Sink
from dask_nmf.execution.graphs import grid, grid_summary
from dask_nmf.execution.graphs.grid import (
    ColumnResult,
    ExtrapolatedH,
    GridPass,
    GridPassSpec,
)
from dask_nmf.execution.graphs.grid_blocks import Blocks
from dask_nmf.execution.graphs.grid_summary import GridDraw, Look
from dask_nmf.execution.tasks.factor_store import FactorSlots, FactorStore, InUnits
from dask_nmf.kernels.blocks import masking
from dask_nmf.kernels.row_sums import NOTHING, Sums
from dask_nmf.kernels.summary.digests import merge_digests
from dask_nmf.kernels.summary.residual_loops import largest
from dask_nmf.kernels.summary.residual_sums import Places, joined
from dask_nmf.kernels.summary.row_sample import Candidates, SampleSpec, Summary
from dask_nmf.planning.grid import GridPlan
from dask_nmf.solvers.parts.state import State
from dask_nmf.solvers.piecewise import GridTotals, PiecewiseHALS, PiecewiseState
from dask_nmf.sources.matrix import Matrix
from dask_nmf.types import Array


@runtime_checkable
class GridSlots(FactorSlots, Protocol):
    """Stores of Hᵀ, by the slots of a `State`, and of the W of a pass; `Run` is one."""

    def new_h_pieces(self, slot: int) -> FactorStore:
        """Return a store for a new Hᵀ, which then is the one in the slot."""
        ...

    def temporary_w(self) -> FactorStore:
        """Return a store for the W of a pass."""
        ...


class GridEngine:
    """An engine over V in blocks, which is cut along rows and columns.

    Parameters
    ----------
    matrix : V.
    tiling : the edges of the blocks, and how often a pass reads each.
    """

    def __init__(self, matrix: Matrix, tiling: GridPlan) -> None:
        self.matrix = matrix
        self.tiling = tiling
        self.name = ""  # the time of tasks is not counted
        self.scale = 1.0  # a power of two that V is multiplied by; known after the first read

    @property
    def bytes(self) -> int:
        """Bytes of V that a pass reads."""
        return self.tiling.pass_bytes

    def sample_of(self, draw: SampleSpec) -> GridDraw:
        """Return the draw of a sample of rows and columns, as many as the plan says; none for size 0."""
        rows, columns = self.tiling.sample if draw.size else (0, 0)
        layout = self.matrix.layout
        return GridDraw(draw.seed, rows / layout.rows, columns / layout.columns)

    def summarize(self, draw: SampleSpec) -> Summary:
        """Check, measure and digest V, and draw a sample of its rows and columns, in one read.

        The candidates of the summary are the drawn rows, restricted to the drawn columns.
        """
        sample = self.sample_of(draw)
        looks: list[Look] = self.compute(lambda blocks: grid_summary.summarize_rows(blocks, sample))
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

        A task loads its block once for all models; each model has slots of its own.
        """
        return self._run_pass([_spec_of(model) for model in models])

    def finalize(self, model: Model, new_sink: Callable[[], Sink] | None = None) -> FinalFactors:
        """Solve for W in the last pass, and then for H if V is transposed; write both to the sink.

        The sink must have a store for each factor.
        """
        assert new_sink is not None
        sink = new_sink()
        assert sink.right is not None
        solver, slots = cast(PiecewiseHALS, model.solver), model.slots
        assert isinstance(slots, GridSlots)
        penalty = solver.penalty
        stores = InUnits(sink.left, 1 / penalty.left_unit), InUnits(sink.right, 1 / penalty.right_unit)
        as_it_is = replace(model.state, accepted=False)  # so that H is not extrapolated
        update_h = solver.solve_h if self.matrix.orientation.by_columns else None
        spec = GridPassSpec(solver, h_before_pass(slots, as_it_is), *stores, update_h, last=True)
        places = Places.of((self.tiling.rows[-1], self.tiling.columns[-1]), 2.0)
        on_w, on_h, worst = self._compute_pass(GridPass((spec,), self.scale, places))
        columns = [column for (column,) in on_h]
        totals = _totals_of(spec, [norms for (norms,) in on_w], columns)
        parts = [
            (first, column.residuals)
            for first, column in zip(self.tiling.columns, columns, strict=False)
            if column.residuals is not None
        ]
        residuals = joined(places, parts, largest(np.hstack(worst)))
        sums = Sums(NOTHING, NOTHING, totals.loss)
        return FinalFactors(sink.left, sink.right, sums, residuals=residuals)

    def _run_pass(self, specs: Sequence[GridPassSpec]) -> list[GridTotals]:
        """Make one pass for all specs, and return the totals of each."""
        on_w, on_h, _ = self._compute_pass(GridPass(tuple(specs), self.scale))
        parts = zip(specs, zip(*on_w, strict=True), zip(*on_h, strict=True), strict=True)
        return [_totals_of(*each) for each in parts]

    def _compute_pass(self, grid_pass: GridPass) -> tuple[list[Any], list[Any], list[Any]]:
        """Make one pass, and return the results of the rows and of the columns of blocks, and worst rows."""
        down, across = self.tiling.shape
        if self.tiling.reads == 1:
            found = self.compute(lambda blocks: grid.single_read_pass(blocks, grid_pass))
        else:
            found = self.compute(lambda blocks: grid.w_half_pass(blocks, grid_pass))
            found += self.compute(lambda blocks: grid.h_half_pass(blocks, grid_pass))
        return found[:down], found[down : down + across], found[down + across :]

    def write_h(self, place: FactorStore, make: Callable[[int, int], Array]) -> None:
        """Write the Hᵀ of a start; ``make(first, last)`` returns some of its rows, (columns, k)."""
        executor.compute_with_retries(lambda: grid.write_h(place, self.tiling.columns, make))

    def compute(self, build: Callable[[Blocks], list[Delayed]]) -> list[Any]:
        """Build a graph over the blocks of V and return the values of its nodes."""
        down, across = self.tiling.shape
        return executor.compute_with_retries(
            lambda: build(Blocks.of(self.matrix, self.tiling)), reads=down * across
        )

    def close(self) -> None:
        """Release nothing, because no block is cached between passes."""


def _spec_of(model: Model) -> GridPassSpec:
    """Return the instructions of a pass for a model; they name new stores for its next factors."""
    solver, state, slots = cast(PiecewiseHALS, model.own_solver), model.state, model.slots
    assert isinstance(slots, GridSlots)
    stores = slots.temporary_w(), slots.new_h_pieces(state.next_slot)
    return GridPassSpec(solver, h_before_pass(slots, state), *stores, solver.update_h, model.exact)


def _totals_of(spec: GridPassSpec, w_norms: Sequence[Array], columns: Sequence[ColumnResult]) -> GridTotals:
    loss, h_norms = sum(column.loss for column in columns), reduce(add, (column.norms for column in columns))
    same = all(column.same for column in columns)
    return GridTotals(loss, reduce(add, w_norms), h_norms, spec.exact, same)


def h_before_pass(slots: FactorSlots, state: State[PiecewiseState]) -> ExtrapolatedH:
    """Return the H that the next pass begins with."""
    own = state.own
    if state.w_slot < 0:  # no pass has written one so far
        return ExtrapolatedH(slots.factor(own.previous_slot))
    last = slots.factor(state.w_slot)
    if not state.accepted or own.previous_slot < 0:
        return ExtrapolatedH(last, scales=own.scales)
    before = slots.factor(own.previous_slot)
    return ExtrapolatedH(last, before, own.extrapolation.last_beta, own.scales, own.previous_scales)
