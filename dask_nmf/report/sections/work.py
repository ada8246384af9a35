"""The section on where the time of a fit went, and on its memory beside the plan."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from dask_nmf.report.drawing.charts import WIDE, Words, bar_chart
from dask_nmf.report.facts import columns
from dask_nmf.report.facts.words import duration, number, size
from dask_nmf.report.pages.page import Section, Table
from dask_nmf.runs.record.work import idle_seconds, seconds_of, total_work
from dask_nmf.wording import counted

PARTS = {
    "read": "read V",
    "multiply": "multiply with V",
    "solve": "solve for W",
    "sums": "sums for H, loss",
    "wait": "wait for a slot",
    "idle": "no task",
}
MOST_WORKERS = 200  # of the table


def work_section(work: Mapping[str, Any] | None, expected: Mapping[str, Any] | None = None) -> Section:
    """Return the section; ``work`` and ``expected`` are in the record of a result, None if unknown."""
    title = "Where the time went, and memory"
    if not work or not work["workers"]:
        return Section("work", title, ["This was not counted for this fit."])
    total, workers = total_work(work), work["workers"]
    seconds = np.array([total[f"{part}_seconds"] for part in PARTS])
    text = (
        f"The tasks of {counted(len(workers), 'worker')} took {duration(float(seconds[:-1].sum()))}, added "
        "up over their threads. Products with V are in solving for W and in the sums where entries of V do "
        "not count alike, for divergences, and in the last read. Threads had no task "
        f"for {duration(float(seconds[-1]))}, while H was updated, passes were committed, or other tasks "
        "were awaited. This counts the command that finished the fit, with its first and its last read of V."
    )
    memory = (
        f"By the plan a worker takes at most {size(total['planned_bytes'])}{_of_client(expected)}. The "
        f"largest peak of a worker was {size(total['worker_peak_bytes'])}, and that of the client "
        f"{size(total['client_peak_bytes'])}; a process that did other work before the fit has the peak of "
        "that too."
    )
    longest = list(PARTS)[int(seconds.argmax())]
    words = Words(
        "Seconds of threads by what they did",
        f"Bars: most of the time, {duration(float(seconds.max()))}, is {PARTS[longest]}.",
    )
    chart = bar_chart(list(PARTS.values()), seconds, words, "seconds", width=WIDE / 1.3)
    head = ["worker", "threads", *PARTS.values(), "peak memory"]
    rows = [
        (
            str(place),
            number(worker["threads"]),
            *columns.seconds(seconds_of(worker)),
            *columns.seconds([idle_seconds(worker)]),
            size(worker["peak_bytes"]),
        )
        for place, worker in enumerate(workers[:MOST_WORKERS])
    ]
    listed = "each worker" if len(workers) <= MOST_WORKERS else f"the first {MOST_WORKERS} workers"
    table = Table(f"Seconds of threads, and memory, of {listed}", head, rows)
    return Section("work", title, [text, memory], tables=[table], figures=[chart])


def _of_client(expected: Mapping[str, Any] | None) -> str:
    """Return the end of a sentence about the memory that was expected of the client, if it is known."""
    planned = (expected or {}).get("client_bytes")
    return "" if planned is None else f", and the client {size(int(planned))}"
