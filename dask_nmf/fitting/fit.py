"""One fit, from its first read to its result, in a run or in memory."""

from __future__ import annotations

import logging
import math
from dataclasses import replace
from itertools import count
from typing import Any

import numpy as np

from dask_nmf.execution.engine import Engine, Model
from dask_nmf.fitting.cuts.cut import Cut
from dask_nmf.fitting.cuts.grid_cut import check_blocks, cut_in_blocks
from dask_nmf.fitting.cuts.panel_cut import cut_in_panels
from dask_nmf.fitting.finalize import Output, Progress, Result
from dask_nmf.fitting.request import Job
from dask_nmf.iteration import loop
from dask_nmf.iteration.loop import Step
from dask_nmf.progress import report_pass, report_stage
from dask_nmf.runs.resume import NewRun, identity_of, temporary_run
from dask_nmf.runs.run import Run
from dask_nmf.solvers.parts.state import State
from dask_nmf.sources.matrix import Matrix

logger = logging.getLogger(__name__)


def fit_and_answer(matrix: Matrix, job: Job, where: Run | NewRun | None, keep: bool = False) -> Result:
    """Cut V, fit, and return the result.

    Parameters
    ----------
    where : an open run, one that is to begin, or None for a fit without a run.
    keep : whether the result stays in (distributed) memory; without a run it always does.
    """
    cut = _cut_for(matrix, job, where if isinstance(where, Run) and where.passes is not None else None)
    try:
        if where is None and cut.needs_run is not None:
            with temporary_run(identity_of(matrix, job.settings, job.given), cut.needs_run) as run:
                return run_fit(cut, job, run, keep=True)
        return run_fit(cut, job, where, keep)
    finally:
        cut.engine.close()


def run_fit(cut: Cut, job: Job, where: Run | NewRun | None, keep: bool) -> Result:
    """Begin or resume a fit, make its passes, and return its result."""
    if isinstance(where, Run) and where.passes is not None:
        run: Run | None = where
        progress = cut.resume(where)
    else:
        run, progress = cut.begin(where)
    if not job.fixed:
        progress = _iterate(cut.engine, job, run, progress)
    return cut.finish(Output(run, keep or run is None, job.settings.normalize), progress)


def _cut_for(matrix: Matrix, job: Job, old: Run | None) -> Cut:
    """Cut V into panels, or into blocks if no panel fits or the run has blocks."""
    if old is not None and old.cuts is not None:
        return cut_in_blocks(matrix, job, old)
    try:
        return cut_in_panels(matrix, job, old)
    except MemoryError as error:
        if old is not None:
            raise
        refusal = error
    check_blocks(matrix, job, refusal)
    try:
        return cut_in_blocks(matrix, job, None)
    except MemoryError as error:
        raise MemoryError(f"{refusal}; {error}") from None


def _iterate(engine: Engine, job: Job, run: Run | None, progress: Progress) -> Progress:
    """Make the remaining passes, and commit each to the run if there is one."""
    if progress.final:
        return progress
    numbers, slots = count(progress.number + 1), progress.carried
    measures, unit = progress.measures, progress.measures.error_unit(job.settings.beta)
    stop = replace(job.stop, unit=1 / unit if unit else math.inf)

    def sweep(state: State[Any], exact: bool) -> Any:
        report_stage(f"pass {next(numbers)}")
        return engine.sweep([Model(progress.solver, state, exact, slots)])[0]

    for step in loop.iterate(
        sweep, progress.solver, progress.state, measures.baseline, stop, progress.number
    ):
        step = step._replace(bytes_read=engine.bytes, validation_error=step.validation_error * unit)
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
    """Write a line about a pass to the log, with its numbers in ``extra["nmf"]`` for machines."""
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
    """Return a number for JSON: None if it is NaN."""
    return None if np.isnan(number) else number
