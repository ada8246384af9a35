"""One fit, from its first read to its result, in a run or in memory."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from dask_nmf.fitting.cuts.cut import Cut, FitProgress
from dask_nmf.fitting.cuts.expectation import expected_of
from dask_nmf.fitting.cuts.grid_cut import check_blocks, cut_in_blocks
from dask_nmf.fitting.cuts.panel_cut import cut_in_panels
from dask_nmf.fitting.finalize import Output, finish
from dask_nmf.fitting.passes.best import best_of
from dask_nmf.fitting.passes.iterate import make_passes
from dask_nmf.fitting.request import FitRequest
from dask_nmf.fitting.result import Result
from dask_nmf.fitting.starts import initialize, problem
from dask_nmf.fitting.starts.problem import Measures
from dask_nmf.fitting.starts.sampled.trial import SampledStart
from dask_nmf.iteration.outcome import Ending, Outcome
from dask_nmf.kernels.summary.digests import Digest
from dask_nmf.progress import report_stage
from dask_nmf.runs.resume import NewRun, identity_of, source_listing, temporary_run
from dask_nmf.runs.run import Run
from dask_nmf.sources.labels.names import NO_LABELS
from dask_nmf.sources.matrix import Matrix

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
    cut = cut_for(matrix, request, where if isinstance(where, Run) and where.passes is not None else None)
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
        starts = _resume(cut, where)
    else:
        run, starts = _begin(cut, request, where, named=not keep)
    if request.fixed:
        progress = replace(starts[0], ending=_ending_of_fixed(request))
    else:
        starts = make_passes(cut, starts)
        progress = starts[0] if request.settings.n_init == 1 else _best_of(cut, starts, run)
    result = finish(cut, Output(run, keep or run is None, request.settings.normalize), progress)
    if run is not None and request.settings.n_init > 1 and progress.final:
        run.delete_starts()
    return result


def _best_of(cut: Cut, starts: Sequence[FitProgress], run: Run | None) -> FitProgress:
    """Return the best start, whose passes become those of the run of the fit."""
    kept, progress = best_of(cut, starts)
    if run is not None and progress.run is not None and progress.ending is not None:
        run.keep_start(progress.run, progress.ending, progress.objectives, kept)
    return progress


def cut_for(matrix: Matrix, request: FitRequest, old: Run | None) -> Cut:
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
    sampled: SampledStart | None  # if the start has a sample: see `Cut.sampled_start`
    digests: Sequence[Digest]  # of V and of its weights
    seconds: float  # that V was read


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
    begun = time.monotonic()
    summary = cut.engine.summarize(cut.draw)
    seconds = time.monotonic() - begun
    matrix.check_entries(summary.invalid)
    factors = problem.Factors(*matrix.orientation.turn_factors(*request.first_factors))
    measures = initialize.measures_of(summary, matrix, request.settings.beta, factors)
    cut.engine.scale = measures.scale
    initialize.log_summary(measures)
    return FirstRead(measures, cut.sampled_start(summary.candidates, measures), summary.digests, seconds)


def _begin(
    cut: Cut, request: FitRequest, where: Run | NewRun | None, named: bool
) -> tuple[Run | None, list[FitProgress]]:
    """Read V for the first time, and return the starts before their first pass, committed to runs.

    A run is laid out only when V is known to be good. ``named``: the run also has the names of V.
    """
    found, matrix = first_read(cut.for_start(0)), cut.matrix
    measures, sampled, digests, _ = found
    run = (
        where.create(identity_of(matrix, request.settings, request.given))
        if isinstance(where, NewRun)
        else where
    )
    if run is not None:
        run.set_layout(*cut.edges)
        run.set_labels(matrix.labels if named else NO_LABELS)
    listing = source_listing(matrix, request.weights)
    if request.settings.n_init == 1:
        start = _start(cut, measures, sampled, run)
        if run is not None:
            run.commit_start(start.state, digests, {**_parts(cut, found), "listing": listing})
        return run, [start]
    starts = _several_starts(cut, found, run)
    if run is not None:
        no_h = np.empty((request.settings.n_components, 0), matrix.dtype)
        state = cut.solver(measures).begin(no_h)
        run.commit_start(state, digests, {**_parts(cut, found), "listing": listing})
    return run, starts


def _parts(cut: Cut, first: FirstRead) -> dict[str, Any]:
    """Return what the first read tells of V and of the passes, as parts of the record of a run."""
    expected = expected_of(cut, first.measures, first.seconds, first.sampled)
    return {"measures": first.measures._asdict(), "expected": expected}


def _start(cut: Cut, measures: Measures, sampled: SampledStart | None, run: Run | None) -> FitProgress:
    """Return a start before its first pass."""
    slots = cut.slots(run)
    state = cut.initial_state(measures, None if sampled is None else sampled.h, slots)
    return FitProgress(cut.solver(measures), measures, slots, state, run=run)


def _several_starts(cut: Cut, first: FirstRead, run: Run | None) -> list[FitProgress]:
    """Return all starts before their first pass, each committed to a run of its own below that of the fit."""
    if run is not None:
        run.delete_starts()  # those of a command that was killed meanwhile
    cuts = [cut.for_start(number) for number in range(cut.request.settings.n_init)]
    starts = []
    for number, (own, sampled) in enumerate(zip(cuts, _samples(cuts, first), strict=True)):
        own_run = None
        if run is not None:
            own_run = run.begin_start(number, *identity_of(cut.matrix, own.request.settings, {}))
            own_run.set_layout(*cut.edges)
        own_first = first._replace(sampled=sampled)
        start = _start(own, first.measures, sampled, own_run)
        if own_run is not None:
            own_run.commit_start(start.state, (), {**_parts(cut, own_first), "listing": {}})
        starts.append(start)
    return starts


def _samples(cuts: Sequence[Cut], first: FirstRead) -> Iterator[SampledStart | None]:
    """Yield what the sample of each start gives; others than the first are drawn in reads of their own."""
    yield first.sampled
    draws = [cut.draw for cut in cuts[1:]]
    if not any(draw.size for draw in draws):
        yield from (None for _ in draws)
        return
    for cut, candidates in zip(cuts[1:], cuts[0].draw_candidates(draws), strict=True):
        yield cut.sampled_start(candidates, first.measures)


def _resume(cut: Cut, run: Run) -> list[FitProgress]:
    """Return the starts of a recovered run at their last commits."""
    measures = Measures(**run.record["measures"])
    cut.engine.scale = measures.scale
    return [_progress(cut.for_start(number), measures, own) for number, own in enumerate(run.starts or [run])]


def _progress(cut: Cut, measures: Measures, run: Run) -> FitProgress:
    """Return a start at the last commit of its run."""
    record = run.record
    ending = Ending(Outcome(record["outcome"]), record["message"]) if record["outcome"] else None
    history = tuple(record["history"]["relative_error"])
    slots, solver = cut.slots(run), cut.solver(measures)
    return FitProgress(solver, measures, slots, run.state(), record["pass"], history, ending, run)


def _ending_of_fixed(request: FitRequest) -> Ending:
    name, other = ("W", "H") if request.fixed_H is None else ("H", "W")
    return Ending(Outcome.FIXED, f"converged: {name} is fixed, and {other} is the best for it")
