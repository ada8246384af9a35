"""The choice among the starts of a fit: the one with the least objective is kept."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from dask_nmf.fitting.cuts.cut import Cut, FitProgress
from dask_nmf.fitting.passes.reports import report_starts
from dask_nmf.fitting.passes.shared import exact_losses
from dask_nmf.iteration.loop import CANCELS
from dask_nmf.iteration.outcome import Ending

# Shares of ‖V‖² by which rounding lets the losses of two exact fits differ.
TIES = {np.dtype(np.float32): 1e-13, np.dtype(np.float64): 1e-15}


def best_of(cut: Cut, starts: Sequence[FitProgress]) -> tuple[int, FitProgress]:
    """Return the start with the least objective after its last pass, and its number.

    Objectives that differ by no more than the rounding of exact fits are equal, and the first one is kept.
    It gets the objectives of all starts, and the ending of the time limit if that came before the end of one.
    """
    settings = cut.request.settings
    losses = comparable_losses(cut, starts)
    kept = least_loss(losses, TIES[starts[0].state.h.dtype] * starts[0].measures.baseline)
    best = starts[kept]
    unit = best.measures.error_unit(settings.beta)
    objectives = tuple(math.sqrt(max(loss, 0.0)) * unit for loss in losses)
    report_starts(objectives, kept, settings.at_start(kept).random_state)
    return kept, replace(best, objectives=objectives, ending=_ending(starts) or best.ending)


def comparable_losses(cut: Cut, starts: Sequence[FitProgress]) -> list[float]:
    """Return the loss of each start.

    The expanded form of the squared error has a rounding error, which may be more than what near an exact fit
    one start is better than another. If a start with such a loss comes near the best one, and another one has
    its loss from the residual, one more read takes the residuals of all that come near.
    """
    losses = [start.state.loss for start in starts]
    if cut.request.settings.beta != 2 or not all(start.final for start in starts):
        return losses
    near = nearly_least(losses, CANCELS[starts[0].state.h.dtype] * starts[0].measures.baseline)
    if len({starts[number].state.exact for number in near}) < 2:
        return losses
    models = [starts[number].model for number in near]
    exact = exact_losses(cut.engine, cut.plan, models, starts[0].measures.baseline)
    known = dict(zip(near, exact, strict=True))
    return [known.get(number, loss) for number, loss in enumerate(losses)]


def nearly_least(losses: Sequence[float], margin: float) -> list[int]:
    """Return the numbers of the losses that are at most a margin above the least one."""
    least = max(losses[least_loss(losses)], 0.0)
    return [number for number, loss in enumerate(losses) if loss <= least + margin]


def least_loss(losses: Sequence[float], margin: float = 0.0) -> int:
    """Return the number of the first loss that is at most a margin, such as rounding, above the least one.

    NaN is more than any other loss. A loss that rounding has taken below 0 is 0, as in an objective.
    """
    best = min(range(len(losses)), key=lambda number: (math.isnan(losses[number]), max(losses[number], 0.0)))
    limit = max(losses[best], 0.0) + margin
    return next((number for number, loss in enumerate(losses) if loss <= limit), best)


def _ending(starts: Sequence[FitProgress]) -> Ending | None:
    """Return the ending of a start that the time limit has stopped; None if all have ended."""
    return next((start.ending for start in starts if not start.final), None)
