"""The section about the passes of a fit: the error against passes and against time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dask_nmf.report.drawing.charts import Words, line_chart
from dask_nmf.report.facts import columns
from dask_nmf.report.facts.words import duration, number
from dask_nmf.report.pages.page import Section, Table
from dask_nmf.types import Array
from dask_nmf.wording import counted

MOST_ROWS = 200  # of a table


def passes_section(history: dict[str, list[float | None]]) -> Section:
    """Return the section; ``history`` has the relative error and the seconds of each pass."""
    errors = np.array([np.nan if error is None else error for error in history["relative_error"]])
    seconds = np.array(history["seconds"], np.float64)
    if not len(errors):
        return Section("passes", "Error and time", ["No pass was made: one factor was fixed."])
    elapsed, numbers = np.cumsum(seconds), np.arange(1, len(errors) + 1)
    text = (
        f"{counted(len(errors), 'pass')} took {duration(elapsed[-1])}, on average "
        f"{duration(seconds.mean())} each."
    )
    text += " Times are those of the passes alone, without the first and the last read of V."
    first, last = errors[0], errors[-1]
    words = Words(
        "Relative error after each pass",
        f"Line: the relative error is {number(first, 5)} after the first pass and {number(last, 5)} after "
        f"pass {len(errors)}.",
    )
    table = Table(
        "Error and time of each pass",
        ["pass", "relative error", "change", "seconds", "seconds so far"],
        _rows(errors, seconds, elapsed),
    )
    in_time = Words(
        "Relative error against time",
        f"Line: the relative error falls to {number(last, 5)} in {duration(elapsed[-1])}.",
    )
    figures = [
        line_chart(numbers, errors, words, ("pass", "relative error"), table),
        line_chart(elapsed, errors, in_time, ("seconds", "relative error")),
    ]
    return Section("passes", "Error and time", [text], figures=figures)


def _rows(errors: Array, seconds: Array, elapsed: Array) -> list[Sequence[str]]:
    """Return the rows of the table of passes: if there are many, the first and the last ones."""
    changes = np.diff(errors, prepend=np.nan)
    some = range(len(errors))
    kept = [*some] if len(some) <= MOST_ROWS else [*some[: MOST_ROWS // 2], *some[-MOST_ROWS // 2 :]]
    return list(
        zip(
            (str(place + 1) for place in kept),
            columns.column(errors[kept], 6),
            columns.column(changes[kept], 2),
            columns.seconds(seconds[kept]),
            columns.seconds(elapsed[kept]),
            strict=True,
        )
    )
