"""A fit over V cut into blocks, by rows and by columns; its H is stored in pieces in the run."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import NamedTuple

from dask_nmf.execution import executor, partition
from dask_nmf.execution.engine import Model, Sink
from dask_nmf.execution.engines.grid import GridEngine
from dask_nmf.fitting import components, finalize
from dask_nmf.fitting.cuts.cut import resumed
from dask_nmf.fitting.finalize import Output, Progress, Result
from dask_nmf.fitting.request import Job
from dask_nmf.fitting.starts import grid_start, initialize, problem
from dask_nmf.fitting.starts.problem import Measures
from dask_nmf.planning.worker_memory import MIB
from dask_nmf.progress import report_stage
from dask_nmf.runs.resume import NewRun, identity_of, source_listing
from dask_nmf.runs.run import Run
from dask_nmf.solvers.piecewise import PiecewiseHALS
from dask_nmf.sources.matrix import Matrix
from dask_nmf.storage.locations import Location
from dask_nmf.types import Array

logger = logging.getLogger(__name__)


class GridCut(NamedTuple):
    """V in blocks, for one fit."""

    job: Job
    engine: GridEngine
    needs_run: str | None = "V is cut both ways and its H is kept on disk between passes"

    def begin(self, where: Run | NewRun | None) -> tuple[Run | None, Progress]:
        """Read V for the first time; a run is laid out only when V is known to be good."""
        engine, settings = self.engine, self.job.settings
        matrix, tiling = engine.matrix, engine.tiling
        report_stage("first read")
        summary = engine.summarize(grid_start.draw_for(engine, settings))
        if summary.invalid is not None:
            raise summary.invalid.at(0, matrix.transposed)
        measures = initialize.measures_of(summary, matrix, settings.beta, problem.NO_FACTORS)
        initialize.tell(measures)
        run = (
            where.create(identity_of(matrix, settings, self.job.given))
            if isinstance(where, NewRun)
            else where
        )
        assert run is not None
        run.set_layout(tiling.rows, tiling.columns)
        engine.scale = measures.scale
        state = grid_start.initial_state(engine, settings, measures, summary, run)
        run.commit_start(state, measures._asdict(), summary.digests, source_listing(matrix, None))
        return run, Progress(self._solver(measures), measures, run, state)

    def resume(self, run: Run) -> Progress:
        """Return the fit of a run at its last commit."""
        measures = Measures(**run.record["measures"])
        self.engine.scale = measures.scale
        return resumed(run, self._solver(measures), measures, run)

    def _solver(self, measures: Measures) -> PiecewiseHALS:
        penalty = problem.own_penalty(self.job.settings, measures, self.engine.matrix)
        return PiecewiseHALS(penalty.bounded)

    def finish(self, output: Output, progress: Progress) -> Result:
        """Read V for the last time, and return the result, committed to the run."""
        engine, run, how = self.engine, output.run, output.normalize
        assert run is not None
        transposed = engine.matrix.transposed
        names = ("H", "W") if transposed else ("W", "H")
        places = run.create_factors()
        left, right = (places[name] if how is None else run.temporary_factor(name) for name in names)
        report_stage("last read")
        model = Model(progress.solver, progress.state, slots=progress.carried)
        loss = engine.finalize(model, lambda: Sink(left, right)).sums.residual
        if how is not None:
            moves = (components.Moved(left, places[names[0]]), components.Moved(right, places[names[1]]))
            sides = (moves[0], engine.tiling.rows), (moves[1], engine.tiling.columns)
            components.arrange_pieces(*sides, how, transposed)
        finalize.tell(loss, progress)
        stored = run.commit_result(max(loss, 0.0), float("nan"), progress.ending)
        result = finalize.result_of(stored)
        return kept_in_memory(result, run) if output.keep else result


def cut_in_blocks(matrix: Matrix, job: Job, run: Run | None) -> GridCut:
    """Cut V into blocks that fit the workers, or into the blocks of a given run.

    Raises
    ------
    MemoryError
        If no block fits.
    DataError
        If a worker does not see V.
    """
    settings = job.settings
    kept = None if run is None or run.cuts is None else (run.edges, run.cuts)
    tiling = partition.tile(matrix, settings.n_components, kept)
    (down, across), block = tiling.shape, tiling.block
    logger.info(
        "V is %d x %d %s, cut both ways: %d x %d blocks of %d x %d, read %s a pass; "
        "a worker may take up to %d MiB; the start is %s",
        *matrix.shape,
        matrix.dtype,
        *((down, across) if not matrix.transposed else (across, down)),
        *(block if not matrix.transposed else block[::-1]),
        "once" if tiling.reads == 1 else "twice",
        tiling.worker_bytes // MIB,
        "random"
        if settings.start == "random"
        else "that of {} rows and {} columns".format(
            *(tiling.sample if not matrix.transposed else tiling.sample[::-1])
        ),
        extra={"nmf": {"event": "plan", "panels": down * across, "bytes": tiling.pass_bytes}},
    )
    return GridCut(job, GridEngine(matrix, tiling))


def check_blocks(matrix: Matrix, job: Job, refusal: MemoryError) -> None:
    """Check that blocks can be used where panels do not fit.

    Raises
    ------
    MemoryError
        With the message of ``refusal``, and the requirement that the fit does not meet.
    """
    settings = job.settings
    for holds, needed in (
        (matrix.reader.any_box and not matrix.in_memory, "a Zarr or Dask array or an .npy file"),
        (settings.beta in settings.algorithm.grid_betas, "solver 'hals' and beta_loss 'frobenius'"),
        (
            job.rule(matrix).uses_whole_blocks,
            "every entry to count alike: none missing, weighted or held out",
        ),
        (
            settings.start in ("sample", "random") and not job.fixed,
            "init 'sample' or 'random', and no factors",
        ),
    ):
        if not holds:
            raise MemoryError(f"{refusal}; V may be cut both ways instead, but that takes {needed}") from None


def kept_in_memory(result: Result, run: Run) -> Result:
    """Return the result in the memory of the cluster, because its run is about to be deleted."""
    W, H = executor.persist(
        *(factor.map_blocks(_read_in_time, run.location) for factor in (result.W, result.H))
    )
    return replace(result, W=W, H=H)


def _read_in_time(block: Array, location: Location) -> Array:
    """Return a block of a factor, after a check that its run still exists: otherwise Zarr gives zeros.

    Raises
    ------
    FileNotFoundError
        If the run is gone.
    """
    if not location.exists():
        raise FileNotFoundError(
            f"a part of the answer was lost with a worker, and its copy in {location.name} is gone; "
            "give store= to keep it"
        )
    return block
