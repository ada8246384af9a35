"""The section about the passes of a fit: the error against passes and against time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from dask_nmf.report.drawing.charts import Words, line_chart
from dask_nmf.report.facts import columns
from dask_nmf.report.facts.words import duration, number
from dask_nmf.report.pages.page import Section, Table
from dask_nmf.types import Array
from dask_nmf.wording import counted

MOST_ROWS = 200  # of a table
EARLIER = 1e-3  # share by which the error of an earlier pass is larger than that of the last one


def passes_section(
    history: Mapping[str, Sequence[float | None]],
    expected: Mapping[str, Any] | None = None,
    watched: float | None = None,
) -> Section:
    """Return the section.

    Parameters
    ----------
    history : the relative error and the seconds of each pass.
    expected : what was expected of the passes when they began, as a run records it; None if it did not.
    watched : the relative error of the result if it is that of the pass with the least held-out error.
    """
    expected = expected or {}
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
    if watched is not None and watched > (1 + EARLIER) * errors[-1]:
        text += (
            f" The result is that of an earlier pass, at which the error of the held-out entries was least: "
            f"its relative error is {number(watched, 5)}."
        )
    first, last, near = errors[0], errors[-1], expected.get("relative_error")
    level = "" if near is None else f" A level line is at {number(near, 5)}, which was expected."
    words = Words(
        "Relative error after each pass",
        f"Line: the relative error is {number(first, 5)} after the first pass and {number(last, 5)} after "
        f"pass {len(errors)}.{level}",
    )
    table = Table(
        "Error and time of each pass",
        ["pass", "relative error", "change", "seconds", "seconds so far"],
        _rows(errors, seconds, elapsed),
    )
    in_time = Words(
        "Relative error against time",
        f"Line: the relative error falls to {number(last, 5)} in {duration(elapsed[-1])}.{level}",
    )
    figures = [
        line_chart(numbers, errors, words, ("pass", "relative error"), table, near),
        line_chart(elapsed, errors, in_time, ("seconds", "relative error"), None, near),
    ]
    compared = [table for table in [_compared(expected, last, seconds)] if table.rows]
    sentences = [text, *_expectations(expected, last, seconds)]
    return Section("passes", "Error and time", sentences, tables=compared, figures=figures)


def _expectations(expected: Mapping[str, Any], error: float, seconds: Array) -> Iterator[str]:
    """Yield a sentence about what was expected of the passes, if anything was."""
    parts = []
    if expected.get("relative_error") is not None:
        parts.append(
            f"The error ended at {number(error, 4)}; after its fit, the sample of V from which the passes "
            f"began had {number(expected['relative_error'], 4)}."
        )
    if expected.get("pass_seconds") is not None:
        parts.append(
            f"A pass took {duration(seconds.mean())} on average; from the sample and the first read, "
            f"{duration(expected['pass_seconds'])} were expected of processors that do nothing else."
        )
    elif parts:
        parts.append(
            "No seconds were expected, because the sample was fitted by passes of another kind than "
            "those over V."
        )
    elif expected:
        parts.append(
            "Neither an error nor seconds were expected, because the start was not from a sample of V "
            "that was fitted with this loss."
        )
    if parts:
        yield " ".join(parts)


def _compared(expected: Mapping[str, Any], error: float, seconds: Array) -> Table:
    """Return the table of what was expected, as far as anything was, beside what came."""
    one, few, many = (expected.get(name) for name in ("pass_seconds", "fewest_passes", "most_passes"))
    passes = columns.UNKNOWN if few is None else f"{few} to {many}"
    whole = columns.UNKNOWN
    if few is not None and many is not None and one is not None:
        whole = " to ".join(columns.seconds([few * one, many * one]))
    rows = [
        ("relative error at the end", *columns.column([expected.get("relative_error"), error], 5)),
        ("passes", passes, str(len(seconds))),
        ("seconds of a pass", *_seconds([one, seconds.mean()])),
        ("seconds of all passes", whole, *_seconds([seconds.sum()])),
    ]
    known = [row for row in rows if row[1] != columns.UNKNOWN]
    return Table("Expected when the passes began, and found", ["measure", "expected", "found"], known)


def _seconds(values: Iterable[float | None]) -> list[str]:
    """Return seconds as text; a dash for those that are not known."""
    return [columns.UNKNOWN if value is None else columns.seconds([value])[0] for value in values]


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
