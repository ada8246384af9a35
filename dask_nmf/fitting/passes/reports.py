"""Lines about passes and starts for the log, with their numbers in ``extra["nmf"]`` for machines."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np

from dask_nmf import progress
from dask_nmf.fitting.result import starts_in_words
from dask_nmf.iteration.loop import Step
from dask_nmf.wording import counted

logger = logging.getLogger(__name__)


def report_step(step: Step, max_iter: int) -> None:
    """Write a line about a pass of the only start to the log."""
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
        "seconds_left_at_most": round((max_iter - step.number) * step.seconds),
    }
    error, held_out = step.relative_error, step.validation_error
    beside = "" if np.isnan(held_out) else f", held out {held_out:.6g}"
    text = f"pass {step.number}: relative error {error:.6f}{beside}, {step.seconds:.2f} s, {speed:.0f} MB/s"
    logger.info("%s", text, extra={"nmf": numbers})
    progress.report_pass(text, numbers)


def report_shared_pass(steps: Sequence[Step], starts: int, max_iter: int) -> None:
    """Write a line about a pass of several starts to the log.

    Parameters
    ----------
    steps : the steps of the starts that have made the pass.
    starts : the number of all starts.
    """
    number, seconds = max(step.number for step in steps), max(step.seconds for step in steps)
    running = sum(step.outcome is None for step in steps)
    errors = [step.relative_error for step in steps]
    text = (
        f"pass {number}: {running} of {counted(starts, 'start')} go on, relative error {min(errors):.6f} to "
        f"{max(errors):.6f}, {seconds:.2f} s"
    )
    numbers = {
        "event": "shared pass",
        "pass": number,
        "running": running,
        "models": starts,
        "relative_errors": [_known(error) for error in errors],
        "seconds": round(seconds, 3),
        "seconds_left_at_most": round((max_iter - number) * seconds),
    }
    logger.info("%s", text, extra={"nmf": numbers})
    progress.report_shared_pass(text, numbers)


def report_starts(objectives: Sequence[float], kept: int, seed: int) -> None:
    """Write the spread of the objectives of several starts to the log.

    Parameters
    ----------
    seed : that of the start that is kept.
    """
    numbers = {
        "event": "starts",
        "objectives": [one if np.isfinite(one) else None for one in objectives],
        "kept": kept,
        "seed": seed,
    }
    spread = starts_in_words(np.asarray(objectives))
    logger.info("starts: %s; start %d is kept (seed %d)", spread, kept, seed, extra={"nmf": numbers})


def _known(number: float) -> float | None:
    """Return a number for JSON: None if it is NaN."""
    return None if np.isnan(number) else number
