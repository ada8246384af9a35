"""The passes of a fit from one start or several, each committed to the run of its start."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from dask_nmf.fitting.cuts.cut import Cut, FitProgress
from dask_nmf.fitting.passes.reports import report_shared_pass, report_step
from dask_nmf.fitting.passes.shared import RunningModel, make_shared_pass
from dask_nmf.iteration.loop import Passes, Step
from dask_nmf.progress import report_stage


def make_passes(cut: Cut, starts: Sequence[FitProgress]) -> list[FitProgress]:
    """Make the remaining passes of all starts, which share each read of V, until each start has ended."""
    after = list(starts)
    running = {
        number: RunningModel(_passes(cut, start), start.slots)
        for number, start in enumerate(starts)
        if not start.final
    }
    while running:
        report_stage(f"pass {max(model.passes.number for model in running.values()) + 1}")
        steps = make_shared_pass(cut.engine, cut.plan, list(running.values()))
        made = {
            number: _in_units(step, cut, after[number]) for number, step in zip(running, steps, strict=True)
        }
        for number, step in made.items():
            after[number] = _after(after[number], step)
        _report(cut, list(made.values()), len(starts))
        running = {number: running[number] for number, step in made.items() if step.outcome is None}
    return after


def _passes(cut: Cut, start: FitProgress) -> Passes:
    measures, request = start.measures, cut.request
    unit = measures.error_unit(request.settings.beta)
    stop = replace(request.stop, unit=1 / unit if unit else math.inf)
    return Passes(start.solver, start.state, measures.baseline, stop, start.number)


def _in_units(step: Step, cut: Cut, start: FitProgress) -> Step:
    """Return a step with its bytes, and with its held-out error in the units of the user."""
    unit = start.measures.error_unit(cut.request.settings.beta)
    return step._replace(bytes_read=cut.engine.bytes, validation_error=step.validation_error * unit)


def _after(start: FitProgress, step: Step) -> FitProgress:
    """Return a start after a pass, which is committed to its run if there is one."""
    if start.run is not None:
        start.run.commit(step)
    return replace(
        start,
        state=step.state,
        number=step.number,
        history=(*start.history, step.relative_error),
        ending=step.ending,
    )


def _report(cut: Cut, steps: Sequence[Step], starts: int) -> None:
    """Report a pass, and call the callback of the fit with the step of each start."""
    if starts == 1:
        report_step(steps[0], cut.request.settings.max_iter)
    else:
        report_shared_pass(steps, starts, cut.request.settings.max_iter)
    if cut.request.callback is not None:
        for step in steps:
            cut.request.callback(step)
