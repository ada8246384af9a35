"""A fit over panels, or over strata of blocks if the solver is `SGD`."""

from __future__ import annotations

import logging
from functools import partial
from typing import NamedTuple

import numpy as np

from dask_nmf.execution import partition
from dask_nmf.execution.engine import Engine
from dask_nmf.execution.engines.panels import PanelEngine
from dask_nmf.execution.engines.strata import StrataEngine
from dask_nmf.execution.graphs.strata import BlockGrid
from dask_nmf.execution.partition import CutOptions
from dask_nmf.execution.tasks.factor_store import FactorSlots, InMemorySlots
from dask_nmf.fitting.cuts.cut import resumed
from dask_nmf.fitting.finalize import Output, Progress, Result, answer, answer_fixed
from dask_nmf.fitting.request import Job
from dask_nmf.fitting.starts import initialize, nndsvd, problem
from dask_nmf.fitting.starts.problem import Measures
from dask_nmf.planning import worker_memory
from dask_nmf.runs.resume import NewRun, identity_of, source_listing
from dask_nmf.runs.run import Run
from dask_nmf.sources.matrix import Matrix

logger = logging.getLogger(__name__)


class PanelCut(NamedTuple):
    """V in panels, for one fit."""

    job: Job
    panels: PanelEngine
    engine: Engine  # the engine of the passes: that of the panels, or one over them
    sample_rows: int  # the most rows that a start may draw
    needs_run: str | None = None

    def begin(self, where: Run | NewRun | None) -> tuple[Run | None, Progress]:
        """Read V for the first time; a run is laid out only when V is known to be good."""
        panels, job, settings = self.panels, self.job, self.job.settings
        matrix = panels.matrix
        factors = (job.fixed_W, job.fixed_H) if job.fixed else (job.W, job.H)
        given = problem.orient(*factors, matrix.transposed)
        sample_rows = 0 if job.fixed else self.sample_rows
        measures, sampled, digests = initialize.first_read(panels, settings, sample_rows, given)
        run = where.create(identity_of(matrix, settings, job.given)) if isinstance(where, NewRun) else where
        if run is not None:
            run.set_layout(panels.edges)
        slots, solver = self._slots(run), problem.make_solver(settings, measures, matrix)
        if job.fixed:
            no_h = np.zeros((settings.n_components, matrix.layout.columns), matrix.dtype)
            state = solver.begin(no_h)
        else:
            place = None if slots is None else partial(slots.new_factor, 0)
            state = initialize.begin(panels, settings, measures, given, sampled, place)
        if run is not None:
            run.commit_start(state, measures._asdict(), digests, source_listing(matrix, job.weights))
        return run, Progress(solver, measures, slots, state)

    def resume(self, run: Run) -> Progress:
        """Return the fit of a run at its last commit."""
        measures = Measures(**run.record["measures"])
        self.panels.scale = measures.scale
        solver = problem.make_solver(self.job.settings, measures, self.panels.matrix)
        return resumed(run, solver, measures, self._slots(run))

    def _slots(self, run: Run | None) -> FactorSlots | None:
        if not self.job.carries:
            return None
        panels = self.panels
        return run or InMemorySlots(panels.edges[-1], self.job.settings.carried, panels.matrix.dtype)

    def finish(self, output: Output, progress: Progress) -> Result:
        """Read V for the last time, and return the result, committed to the run if there is one."""
        job, panels = self.job, self.panels
        if not job.fixed:
            return answer(self.engine, panels, output, progress)
        fixed = problem.orient(job.fixed_W, job.fixed_H, panels.matrix.transposed)
        return answer_fixed(panels, job.settings, fixed, output, progress)


def cut_in_panels(matrix: Matrix, job: Job, run: Run | None) -> PanelCut:
    """Cut V into panels that fit the workers, or into the panels of a given run.

    Raises
    ------
    MemoryError
        If no panel fits.
    DataError
        If a worker does not see V or its weights.
    """
    settings, edges = job.settings, None if run is None else run.edges
    by_blocks = settings.algorithm.by_strata
    width = nndsvd.width(settings.n_components) if settings.by_svd else settings.carried
    grams = settings.algorithm.column_grams or settings.beta == 2
    options = CutOptions(edges, by_blocks, grams, job.cache)
    panels, planned = partition.cut(matrix, width, job.weights, job.rule(matrix), options)
    logger.info(
        "V is %d x %d %s, in %d panels; a worker may take up to %d MiB",
        *matrix.shape,
        matrix.dtype,
        len(planned.edges) - 1,
        planned.worker_bytes // worker_memory.MIB,
        extra={"nmf": {"event": "plan", "panels": len(planned.edges) - 1, "bytes": planned.pass_bytes}},
    )
    engine: Engine = panels
    if by_blocks:
        grid = BlockGrid(planned.edges, planned.column_edges, planned.tiled)
        engine = StrataEngine(panels, grid, settings.random_state)
    return PanelCut(job, panels, engine, planned.sample_rows)
