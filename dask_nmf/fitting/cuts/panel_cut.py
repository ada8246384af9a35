"""A fit over panels, or over strata of blocks if the solver is `SGD`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from dask_nmf.execution import partition
from dask_nmf.execution.engine import Engine, FinalFactors, Sink
from dask_nmf.execution.engines.panels import PanelEngine
from dask_nmf.execution.engines.strata import StrataEngine
from dask_nmf.execution.graphs import shared_reads
from dask_nmf.execution.graphs.strata import BlockGrid
from dask_nmf.execution.partition import CutOptions
from dask_nmf.execution.tasks.block_pass import PassSpec, keep_w
from dask_nmf.execution.tasks.factor_store import FactorSlots, InMemorySlots
from dask_nmf.fitting.cuts.cut import CutEdges, FitProgress
from dask_nmf.fitting.request import FitRequest
from dask_nmf.fitting.starts import initialize, nndsvd, problem
from dask_nmf.fitting.starts.problem import Factors, Measures
from dask_nmf.fitting.starts.sampled.trial import SampledStart
from dask_nmf.kernels.blocks import scaling
from dask_nmf.kernels.blocks.masking import EntryMask
from dask_nmf.kernels.summary.row_sample import Candidates, SampleSpec
from dask_nmf.options.settings import Settings
from dask_nmf.planning.model_groups import ModelGroups, group_models, ranks_to_plan, times_in_words
from dask_nmf.planning.row_panels import PanelPlan
from dask_nmf.planning.worker_memory import MIB
from dask_nmf.progress import report_stage
from dask_nmf.runs.run import Run
from dask_nmf.solvers.parts.state import State
from dask_nmf.solvers.solver import Solver
from dask_nmf.sources.matrix import Matrix
from dask_nmf.types import Array
from dask_nmf.wording import counted

logger = logging.getLogger(__name__)

WEIGHTED, MISSING, STEPS = 40, 15, 4  # times the time of a pass over whole blocks, measured on dense float32


class PanelCut(NamedTuple):
    """V in panels, for one fit: see `Cut`."""

    request: FitRequest
    panels: PanelEngine
    engine: Engine  # the engine of the passes: that of the panels, or one over them
    plan: PanelPlan
    needs_run: str | None = None

    @property
    def matrix(self) -> Matrix:
        return self.panels.matrix

    @property
    def ranks(self) -> tuple[int, ...]:
        return _ranks(self.request.settings)

    @property
    def cache_bytes(self) -> int:
        return self.panels.cache_bytes

    @property
    def edges(self) -> CutEdges:
        return CutEdges(self.panels.edges)

    @property
    def draw(self) -> SampleSpec:
        rows = 0 if self.request.fixed else self.plan.sample_rows
        return initialize.draw_for(self.panels, self.request.settings, rows)

    def draw_candidates(self, draws: Sequence[SampleSpec]) -> Iterator[Candidates]:
        no_h, at_once = (
            np.empty((0, self.matrix.layout.columns)),
            self.plan.memory.samples_at_once(len(draws)),
        )
        for first in range(0, len(draws), at_once):
            some = draws[first : first + at_once]
            yield from self.panels.compute(no_h, shared_reads.candidates_for(some))

    def sampled_start(self, candidates: Candidates, measures: Measures) -> SampledStart | None:
        """Return the start from the sample: see `initialize.start_of_sample`."""
        if self.request.fixed:
            return None
        return initialize.start_of_sample(self.panels, self.request.settings, measures, candidates, self.draw)

    def for_start(self, number: int) -> PanelCut:
        settings = self.request.settings.at_start(number)
        return self._replace(request=replace(self.request, settings=settings))

    def slots(self, run: Run | None) -> FactorSlots | None:
        if not self.request.carries:
            return None
        return run or InMemorySlots(self.panels.edges[-1], self.request.settings.carried, self.matrix.dtype)

    def initial_state(
        self, measures: Measures, sampled: Array | None, slots: FactorSlots | None
    ) -> State[Any]:
        settings = self.request.settings
        if self.request.fixed:
            no_h = np.zeros((settings.n_components, self.matrix.layout.columns), self.matrix.dtype)
            return self.solver(measures).begin(no_h)
        place = None if slots is None else partial(slots.new_factor, 0)
        return initialize.initial_state(self.panels, settings, measures, self._factors, sampled, place)

    def solver(self, measures: Measures) -> Solver:
        return problem.make_solver(self.request.settings, measures, self.matrix)

    def finalize(self, progress: FitProgress, new_sink: Callable[[], Sink] | None) -> FinalFactors:
        """Find the left factor for the right one in a last read, or the best factor for a fixed one."""
        if self.request.fixed:
            return self._factors_with_fixed(progress.measures, new_sink)
        report_stage("last read")
        return self.engine.finalize(progress.model, new_sink)

    @property
    def _factors(self) -> Factors:
        return Factors(*self.matrix.orientation.turn_factors(*self.request.first_factors))

    def _factors_with_fixed(self, measures: Measures, new_sink: Callable[[], Sink] | None) -> FinalFactors:
        """Return the best factor for a fixed one, and the fixed one."""
        solver = problem.fixed_factor_solver(self.request.settings, measures, self.matrix)
        left, right = problem.in_units(self._factors, solver.penalty, self.matrix.dtype)
        if left is None:
            assert right is not None
            right, solve_w = np.ascontiguousarray(right), solver.solve_w_final
        else:
            right, solve_w = initialize.right_of(self.panels, solver, measures.level, left), keep_w
        spec = PassSpec(solve_w, solver, residual=True, residual_only=True, unit=solver.penalty.left_unit)
        report_stage("last read")
        final = self.panels.last_pass(right, spec, new_sink, left)
        return final._replace(right=scaling.multiply(right, solver.penalty.right_unit))


def cut_in_panels(matrix: Matrix, request: FitRequest, run: Run | None) -> PanelCut:
    """Cut V into panels that fit the workers, or into the panels of a given run.

    Raises
    ------
    MemoryError
        If no panel fits.
    DataError
        If a worker does not see V or its weights.
    """
    settings, edges = request.settings, None if run is None else run.edges
    by_blocks = settings.algorithm.by_strata
    ranks = _ranks(settings)
    grams = settings.algorithm.column_grams or settings.beta == 2
    wide = ranks_to_plan(ranks)[:-1]  # the first plan that is tried is that of a start alone
    options = CutOptions(edges, by_blocks, grams, request.cache, ranks, wide, request.offer)
    panels, planned = partition.cut_into_panels(
        matrix, ranks[0], request.weights, request.entry_mask(matrix), options
    )
    log_plan(matrix, planned, ranks)
    if slower := _times_slower(panels.mask, by_blocks):
        logger.info(
            "not every entry counts alike, so that each is visited by itself: a pass over a dense V takes "
            "some %d times as long as if all did",
            slower,
        )
    engine: Engine = panels
    if by_blocks:
        grid = BlockGrid(planned.edges, planned.column_edges, planned.tiled)
        engine = StrataEngine(panels, grid, settings.random_state)
    return PanelCut(request, panels, engine, planned)


def _ranks(settings: Settings) -> tuple[int, ...]:
    """Return the number of columns that the factors of each start have at most, in its start too."""
    width = nndsvd.width(settings.n_components) if settings.by_svd else settings.carried
    return (width,) * settings.n_init


def log_plan(
    matrix: Matrix, planned: PanelPlan, ranks: Sequence[int], groups: ModelGroups | None = None
) -> None:
    """Write to the log how V is cut, and how many reads a pass of all models takes.

    Parameters
    ----------
    ranks : the number of components of each model.
    groups : the groups of models that share a read; by default as many models as fit a worker.
    """
    groups, panels = groups or group_models(planned, ranks), len(planned.edges) - 1
    of_models = (
        f" a pass of {counted(len(ranks), 'model')} reads V {times_in_words(groups.reads)};"
        if ranks[1:]
        else ""
    )
    numbers = {"event": "plan", "panels": panels, "bytes": groups.reads * planned.pass_bytes}
    logger.info(
        "V is %d x %d %s, in %s;%s a worker may take up to %d MiB",
        *matrix.shape,
        matrix.dtype,
        counted(panels, "panel"),
        of_models,
        groups.worker_bytes // MIB,
        extra={"nmf": {**numbers, "reads": groups.reads, "models": len(ranks)}},
    )


def _times_slower(rule: EntryMask, by_strata: bool) -> int:
    """Return how many times longer a pass takes because single cells are visited; 0 if it is not."""
    if rule.beta != 2 or rule.missing == "unstored":
        return 0
    if by_strata:
        return STEPS if rule.missing or rule.held_out else 0
    return WEIGHTED if rule.weighted else MISSING if rule.missing else 0
