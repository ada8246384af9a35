"""One fit, from its first read to its answer, in a run or in memory."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count
from typing import Any

import numpy as np

from dask_nmf.execution import partition, strata_engine
from dask_nmf.execution.graphs.passes import PassSpec
from dask_nmf.execution.graphs.strata import BlockGrid, SweepSpec
from dask_nmf.execution.panel_engine import PanelEngine
from dask_nmf.execution.tasks.factor_store import FactorSlots, InMemorySlots
from dask_nmf.fitting import grid_fit
from dask_nmf.fitting.finalize import Output, Progress, Result, answer, answer_fixed
from dask_nmf.fitting.grid_fit import Pieces, Reached
from dask_nmf.fitting.starts import initialize, nndsvd
from dask_nmf.fitting.starts.initialize import Factors, Measures
from dask_nmf.iteration import loop
from dask_nmf.iteration.loop import Step, Stop
from dask_nmf.iteration.outcome import Ending, Outcome
from dask_nmf.kernels.blocks.masking import Rule
from dask_nmf.kernels.least_squares import Sums
from dask_nmf.planning import row_panels
from dask_nmf.progress import report_pass, report_stage
from dask_nmf.runs.resume import NewRun, identity_of, source_listing, temporary_run
from dask_nmf.runs.run import Run
from dask_nmf.settings import Settings
from dask_nmf.solvers.sgd import SGD, Swept
from dask_nmf.solvers.solver import Solver, State
from dask_nmf.sources.matrix import Matrix
from dask_nmf.types import Array

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """What to factorise and how; everything but V that `nmf` takes."""

    settings: Settings
    W: Array | None = None
    H: Array | None = None
    fixed_W: Array | None = None
    fixed_H: Array | None = None
    weights: Matrix | None = None  # of V's entries
    dtype: str | None = None
    store: str | None = None
    overwrite: bool = False
    time_limit: float | None = None  # seconds
    cache: int | None = (
        None  # bytes of V that each worker keeps from pass to pass; None: what the plan leaves
    )
    callback: Callable[[Step], None] | None = None
    began: float = field(default_factory=time.monotonic)

    @property
    def fixed(self) -> bool:
        """Whether one factor is as given, and stays so."""
        return self.fixed_W is not None or self.fixed_H is not None

    @property
    def carries(self) -> bool:
        """Whether a W (or H, in panels of columns) is kept outside of the graphs between passes."""
        return not self.fixed and (self.settings.solver != "hals" or self.settings.start == "custom")

    @property
    def given(self) -> dict[str, Array | Matrix | None]:
        """What a fit is given beside V and its settings."""
        factors = {"W": self.W, "H": self.H, "fixed_W": self.fixed_W, "fixed_H": self.fixed_H}
        return {**factors, "weights": self.weights}

    def rule(self, matrix: Matrix) -> Rule:
        """By which the entries of V count."""
        asked = self.settings
        weighted = self.weights is not None
        return Rule(
            asked.missing,
            asked.validation_fraction,
            asked.random_state,
            matrix.transposed,
            weighted,
            asked.beta,
        )

    @property
    def stop(self) -> Stop:
        """The stop rules, the time limit counted from when the job was made."""
        deadline = float("inf") if self.time_limit is None else self.began + self.time_limit
        return Stop(self.settings.max_iter, self.settings.tol, deadline, self.settings.stop_below)


def fit_and_answer(matrix: Matrix, job: Job, where: Run | NewRun | None, keep: bool = False) -> Result:
    """Fit and answer. ``where``: an open run, one that is to begin, or nowhere.

    ``keep``: the answer stays in (distributed) memory, as it does where there is no run.
    """
    old = where if isinstance(where, Run) and where.passes is not None else None
    if old is not None and old.cuts is not None:
        return _fit_in_blocks(matrix, job, old, keep)
    try:
        panels, grid, sample_rows = _cut(matrix, job, old)
    except MemoryError as refusal:
        if old is not None:
            raise
        _check_blocks(matrix, job, refusal)
        return _fit_in_blocks(matrix, job, where, keep, refusal)
    try:
        return _fit_in_panels(panels, grid, sample_rows, job, old or where, keep)
    finally:
        panels.close()


def _fit_in_panels(
    panels: PanelEngine, grid: BlockGrid, sample_rows: int, job: Job, where: Run | NewRun | None, keep: bool
) -> Result:
    matrix = panels.matrix
    given = initialize.orient(job.W, job.H, matrix.transposed)
    run, progress = (
        (where, _resume(where, panels, job))
        if isinstance(where, Run) and where.passes is not None
        else _start(panels, job, given, sample_rows, where)
    )
    output = Output(run, keep or run is None, job.settings.normalize)
    if job.fixed:
        fixed = initialize.orient(job.fixed_W, job.fixed_H, matrix.transposed)
        return answer_fixed(panels, job.settings, fixed, output, progress)
    progress = _iterate(_sweeper(panels, grid, job, progress), panels.bytes, job, run, progress)
    return answer(panels, output, progress)


def _fit_in_blocks(
    matrix: Matrix, job: Job, where: Run | NewRun | None, keep: bool, refusal: MemoryError | None = None
) -> Result:
    """The same where V is cut both ways, for H fits no worker; ``refusal``: that of panels."""
    settings = job.settings
    mine = identity_of(matrix, settings, job.given)
    if where is None:
        why = "V is cut both ways and its H is kept on disk between passes"
        with temporary_run(mine, why) as run:
            return _fit_in_blocks(matrix, job, run, True, refusal)
    try:
        tiles = grid_fit.cut(matrix, settings, where if isinstance(where, Run) else None)
    except MemoryError as error:
        raise MemoryError("; ".join(str(part) for part in (refusal, error) if part)) from None
    if isinstance(where, Run) and where.passes is not None:
        measures = Measures(**where.record["measures"])
        solver = Pieces(initialize.own_penalty(settings, measures, matrix).bounded)
        run, progress = where, _resumed(where, solver, None)
    else:
        measures, sample, draw, digest = grid_fit.first_read(tiles, settings)
        run = where.create(mine) if isinstance(where, NewRun) else where
        run.set_layout(tiles.tiling.rows, tiles.tiling.columns)
        state = grid_fit.begin(tiles, settings, measures, sample, draw, run)
        run.commit_start(state, measures._asdict(), [digest], source_listing(matrix, None))
        solver = Pieces(initialize.own_penalty(settings, measures, matrix).bounded)
        progress = Progress(solver, measures, None, state)
    tiles = tiles._replace(scale=measures.scale)

    def sweep(state: State, exact: bool) -> Reached:
        return grid_fit.sweep(tiles, solver.at_level(state.level), run, state, exact)

    progress = _iterate(sweep, tiles.tiling.pass_bytes, job, run, progress)
    result = grid_fit.answered(tiles, settings, run, progress)
    return grid_fit.kept(result, run) if keep else result


def _check_blocks(matrix: Matrix, job: Job, refusal: MemoryError) -> None:
    """Refuse, as panels are, what blocks do not take."""
    settings = job.settings
    for holds, needed in (
        (matrix.reader.any_box and not matrix.in_memory, "a Zarr or Dask array or an .npy file"),
        (settings.solver == "hals" and settings.beta == 2, "solver 'hals' and beta_loss 'frobenius'"),
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


def _cut(matrix: Matrix, job: Job, run: Run | None) -> tuple[PanelEngine, BlockGrid, int]:
    """V in panels that fit the workers (those of the run, if any); the grid of blocks; rows to sample."""
    settings, edges = job.settings, None if run is None else run.edges
    by_blocks = settings.solver == "sgd"
    width = nndsvd.width(settings.n_components) if settings.by_svd else settings.carried
    grams = settings.solver == "hals" or settings.beta == 2
    panels, planned = partition.cut(
        matrix, width, job.weights, job.rule(matrix), edges, by_blocks, grams, job.cache
    )
    logger.info(
        "V is %d x %d %s, in %d panels; a worker may take up to %d MiB",
        *matrix.shape,
        matrix.dtype,
        len(planned.edges) - 1,
        planned.worker_bytes // row_panels.MIB,
        extra={"nmf": {"event": "plan", "panels": len(planned.edges) - 1, "bytes": planned.pass_bytes}},
    )
    return panels, BlockGrid(planned.edges, planned.column_edges, planned.tiled), planned.sample_rows


def _start(
    panels: PanelEngine, job: Job, given: Factors, sample_rows: int, where: Run | NewRun | None
) -> tuple[Run | None, Progress]:
    """The first read, and pass 0. A run is laid out only when V is known to be good."""
    matrix, settings = panels.matrix, job.settings
    held = initialize.orient(job.fixed_W, job.fixed_H, matrix.transposed) if job.fixed else given
    sampled_rows = 0 if job.fixed else sample_rows
    measures, sampled, digests = initialize.first_read(panels, settings, sampled_rows, held)
    run = where.create(identity_of(matrix, settings, job.given)) if isinstance(where, NewRun) else where
    if run is not None:
        run.set_layout(panels.edges)
    carried = _carried(panels, job, run)
    if job.fixed:
        nothing = np.zeros((settings.n_components, matrix.layout.columns), matrix.dtype)
        state = State(nothing, nothing)
    else:
        place = None if carried is None else partial(carried.new_factor, 0)
        state = initialize.begin(panels, settings, measures, given, sampled, place)
    if run is not None:
        run.commit_start(state, measures._asdict(), digests, source_listing(matrix, job.weights))
    return run, Progress(initialize.make_solver(settings, measures, matrix), measures, carried, state)


def _resume(run: Run, panels: PanelEngine, job: Job) -> Progress:
    measures = Measures(**run.record["measures"])
    panels.scale = measures.scale
    return _resumed(
        run, initialize.make_solver(job.settings, measures, panels.matrix), _carried(panels, job, run)
    )


def _resumed(run: Run, solver: Solver, carried: FactorSlots | None) -> Progress:
    record = run.record
    return Progress(
        solver,
        Measures(**record["measures"]),
        carried,
        run.state(),
        record["pass"],
        tuple(record["history"]["relative_error"]),
        Ending(Outcome(record["outcome"]), record["message"]) if record["outcome"] else None,
    )


def _carried(panels: PanelEngine, job: Job, run: Run | None) -> FactorSlots | None:
    if not job.carries:
        return None
    return run or InMemorySlots(panels.edges[-1], job.settings.carried, panels.matrix.dtype)


def _sweeper(
    panels: PanelEngine, grid: BlockGrid, job: Job, progress: Progress
) -> Callable[[State, bool], Any]:
    """A pass over panels, or over blocks in the order of `SGD`."""
    solver, carried = progress.solver, progress.carried

    def sweep(state: State, exact: bool) -> Sums | Swept:
        if isinstance(solver, SGD):
            assert carried is not None
            places = carried.factor(state.slot), carried.new_factor(state.next_slot)
            what = SweepSpec(solver.steps(state), job.settings.random_state, state.epoch, *places)
            return strata_engine.sweep_blocks(panels, grid, state.entering, what)
        finer = solver.at_level(state.level)
        weighing = PassSpec(finer.solve_w, finer, residual=exact)
        if carried is not None and solver.carries_w:
            before = carried.factor(state.slot) if state.slot >= 0 else None
            weighing = weighing._replace(before=before, after=carried.new_factor(state.next_slot))
        return panels.run_pass(state.entering, weighing)

    return sweep


def _iterate(
    sweep: Callable[[State, bool], Any], read: int, job: Job, run: Run | None, progress: Progress
) -> Progress:
    """The passes that are missing, each committed; each reads so many bytes of V."""
    if progress.final:
        return progress
    numbers = count(progress.number + 1)
    measures, unit = progress.measures, progress.measures.error_unit(job.settings.beta)
    stop = replace(job.stop, unit=1 / unit if unit else math.inf)

    def staged(state: State, exact: bool) -> Any:
        report_stage(f"pass {next(numbers)}")
        return sweep(state, exact)

    for step in loop.iterate(
        staged, progress.solver, progress.state, measures.baseline, stop, progress.number
    ):
        step = step._replace(bytes_read=read, validation_error=step.validation_error * unit)
        if run is not None:
            run.commit(step)
        progress = replace(
            progress,
            state=step.state,
            number=step.number,
            history=(*progress.history, step.relative_error),
            ending=step.ending,
        )
        _report(step, job)
        if job.callback is not None:
            job.callback(step)
    return progress


def _report(step: Step, job: Job) -> None:
    """A line in the log, with its numbers in ``extra["nmf"]`` for logs that machines read."""
    speed = step.bytes_read / 1e6 / max(step.seconds, 1e-9)
    numbers = {
        "event": "pass",
        "pass": step.number,
        "relative_error": _known(step.relative_error),
        "validation_error": _known(step.validation_error),
        "seconds": round(step.seconds, 3),
        "mb_per_s": round(speed, 1),
        "outcome": step.outcome,
        "message": step.message,
        "seconds_left_at_most": round((job.settings.max_iter - step.number) * step.seconds),
    }
    error, held_out = step.relative_error, step.validation_error
    beside = "" if np.isnan(held_out) else f", held out {held_out:.6g}"
    text = f"pass {step.number}: relative error {error:.6f}{beside}, {step.seconds:.2f} s, {speed:.0f} MB/s"
    logger.info("%s", text, extra={"nmf": numbers})
    report_pass(text, numbers)


def _known(number: float) -> float | None:
    """Return a number as JSON holds it: None where it is NaN."""
    return None if np.isnan(number) else number
