"""The choice among the starts of a fit: the one with the least objective is kept."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from dask_nmf.fitting.cuts.cut import Cut, FitProgress
from dask_nmf.fitting.passes.reports import report_starts
from dask_nmf.iteration.outcome import Ending


def best_of(cut: Cut, starts: Sequence[FitProgress]) -> tuple[int, FitProgress]:
    """Return the start with the least objective after its last pass, and its number; the first one of equals.

    It gets the objectives of all starts, and the ending of the time limit if that came before the end of one.
    """
    settings = cut.request.settings
    kept = least_loss([start.state.loss for start in starts])
    best = starts[kept]
    unit = best.measures.error_unit(settings.beta)
    objectives = tuple(math.sqrt(max(start.state.loss, 0.0)) * unit for start in starts)
    report_starts(objectives, kept, settings.at_start(kept).random_state)
    return kept, replace(best, objectives=objectives, ending=_ending(starts) or best.ending)


def least_loss(losses: Sequence[float]) -> int:
    """Return the number of the least loss, the first one of equals.

    NaN is more than any other loss. A loss that rounding has taken below 0 is 0, as in an objective.
    """
    return min(range(len(losses)), key=lambda number: (math.isnan(losses[number]), max(losses[number], 0.0)))


def _ending(starts: Sequence[FitProgress]) -> Ending | None:
    """Return the ending of a start that the time limit has stopped; None if all have ended."""
    return next((start.ending for start in starts if not start.final), None)
