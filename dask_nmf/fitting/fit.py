"""One fit, from its first read to its result, in a run or in memory."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import count
from typing import Any, NamedTuple

import numpy as np

from dask_nmf.execution.engine import Engine, Model
from dask_nmf.fitting.cuts.cut import Cut, FitProgress
from dask_nmf.fitting.cuts.grid_cut import check_blocks, cut_in_blocks
from dask_nmf.fitting.cuts.panel_cut import cut_in_panels
from dask_nmf.fitting.finalize import Output, finish
from dask_nmf.fitting.request import FitRequest
from dask_nmf.fitting.result import Result
from dask_nmf.fitting.starts import initialize, problem
from dask_nmf.fitting.starts.problem import Measures
from dask_nmf.iteration import loop
from dask_nmf.iteration.loop import Step
from dask_nmf.iteration.outcome import Ending, Outcome
from dask_nmf.kernels.summary.digests import Digest
from dask_nmf.progress import report_pass, report_stage
from dask_nmf.runs.resume import NewRun, identity_of, source_listing, temporary_run
from dask_nmf.runs.run import Run
from dask_nmf.solvers.parts.state import State
from dask_nmf.sources.matrix import Matrix
from dask_nmf.types import Array

logger = logging.getLogger(__name__)


def fit_and_answer(
    matrix: Matrix, request: FitRequest, where: Run | NewRun | None, keep: bool = False
) -> Result:
    """Cut V, fit, and return the result.

    Parameters
    ----------
    where : an open run, one that is to begin, or None for a fit without a run.
    keep : whether the result stays in (distributed) memory; without a run it always does.
    """
    cut = _cut_for(matrix, request, where if isinstance(where, Run) and where.passes is not None else None)
    try:
        if where is None and cut.needs_run is not None:
            with temporary_run(identity_of(matrix, request.settings, request.given), cut.needs_run) as run:
                return run_fit(cut, request, run, keep=True)
        return run_fit(cut, request, where, keep)
    finally:
        cut.engine.close()


def run_fit(cut: Cut, request: FitRequest, where: Run | NewRun | None, keep: bool) -> Result:
    """Begin or resume a fit, make its passes, and return its result."""
    if isinstance(where, Run) and where.passes is not None:
        run: Run | None = where
        progress = _resume(cut, where)
    else:
        run, progress = _begin(cut, request, where)
    if request.fixed:
        progress = replace(progress, ending=_ending_of_fixed(request))
    else:
        progress = _iterate(cut.engine, request, run, progress)
    return finish(cut, Output(run, keep or run is None, request.settings.normalize), progress)


def _cut_for(matrix: Matrix, request: FitRequest, old: Run | None) -> Cut:
    """Cut V into panels, or into blocks if no panel fits or the run has blocks."""
    if old is not None and old.cuts is not None:
        return cut_in_blocks(matrix, request, old)
    try:
        return cut_in_panels(matrix, request, old)
    except MemoryError as error:
        if old is not None:
            raise
        refusal = error
    check_blocks(matrix, request, refusal)
    try:
        return cut_in_blocks(matrix, request, None)
    except MemoryError as error:
        raise MemoryError(f"{refusal}; {error}") from None


class FirstRead(NamedTuple):
    """The findings of the first read of V."""

    measures: Measures
    sampled: Array | None  # the H of a sample, if the start has one: see `Cut.sampled_h`
    digests: Sequence[Digest]  # of V and of its weights


def first_read(cut: Cut) -> FirstRead:
    """Check, measure and digest V, and factorise a sample of it if the start needs one.

    The engine multiplies V by its scale from then on.

    Raises
    ------
    InvalidEntryError
        For the first entry that is negative or not finite.
    """
    report_stage("first read")
    request, matrix = cut.request, cut.matrix
    summary = cut.engine.summarize(cut.draw)
    matrix.check_entries(summary.invalid)
    factors = problem.Factors(*matrix.orientation.turn_factors(*request.first_factors))
    measures = initialize.measures_of(summary, matrix, request.settings.beta, factors)
    cut.engine.scale = measures.scale
    initialize.log_summary(measures)
    return FirstRead(measures, cut.sampled_h(summary, measures), summary.digests)


def _begin(cut: Cut, request: FitRequest, where: Run | NewRun | None) -> tuple[Run | None, FitProgress]:
    """Read V for the first time, and return the fit before its first pass, committed to its run.

    A run is laid out only when V is known to be good.
    """
    measures, sampled, digests = first_read(cut)
    matrix = cut.matrix
    run = (
        where.create(identity_of(matrix, request.settings, request.given))
        if isinstance(where, NewRun)
        else where
    )
    if run is not None:
        run.set_layout(*cut.edges)
    slots = cut.slots(run)
    state = cut.initial_state(measures, sampled, slots)
    if run is not None:
        run.commit_start(state, measures._asdict(), digests, source_listing(matrix, request.weights))
    return run, FitProgress(cut.solver(measures), measures, slots, state)


def _resume(cut: Cut, run: Run) -> FitProgress:
    """Return the fit of a run at its last commit."""
    record = run.record
    measures = Measures(**record["measures"])
    cut.engine.scale = measures.scale
    solver = cut.solver(measures)
    ending = Ending(Outcome(record["outcome"]), record["message"]) if record["outcome"] else None
    history = tuple(record["history"]["relative_error"])
    return FitProgress(solver, measures, cut.slots(run), run.state(), record["pass"], history, ending)


def _ending_of_fixed(request: FitRequest) -> Ending:
    name, other = ("W", "H") if request.fixed_H is None else ("H", "W")
    return Ending(Outcome.FIXED, f"converged: {name} is fixed, and {other} is the best for it")


def _iterate(engine: Engine, request: FitRequest, run: Run | None, progress: FitProgress) -> FitProgress:
    """Make the remaining passes, and commit each to the run if there is one."""
    if progress.final:
        return progress
    numbers, slots = count(progress.number + 1), progress.slots
    measures, unit = progress.measures, progress.measures.error_unit(request.settings.beta)
    stop = replace(request.stop, unit=1 / unit if unit else math.inf)

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
        _report(step, request)
        if request.callback is not None:
            request.callback(step)
    return progress


def _report(step: Step, request: FitRequest) -> None:
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
        "seconds_left_at_most": round((request.settings.max_iter - step.number) * step.seconds),
    }
    error, held_out = step.relative_error, step.validation_error
    beside = "" if np.isnan(held_out) else f", held out {held_out:.6g}"
    text = f"pass {step.number}: relative error {error:.6f}{beside}, {step.seconds:.2f} s, {speed:.0f} MB/s"
    logger.info("%s", text, extra={"nmf": numbers})
    report_pass(text, numbers)


def _known(number: float) -> float | None:
    """Return a number for JSON: None if it is NaN."""
    return None if np.isnan(number) else number
