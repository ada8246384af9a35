"""The work of a fit in its record: seconds of the tasks of each worker, and peak memory beside the plan."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SECONDS = ("read", "multiply", "solve", "sums", "wait")  # of all tasks of a worker: see `stopwatch.PARTS`
LATER = {"multiply"}  # parts that runs begun earlier count with other ones
OF_WORKER = ("threads", *SECONDS, "elapsed", "peak_bytes")
EXPECTED = (  # what a fit expected when its passes began, each None if it was not known: see `expected_of`
    "relative_error", "read_seconds", "pass_seconds", "fewest_passes", "most_passes", "worker_bytes",
    "client_bytes",
)  # fmt: skip


def idle_seconds(worker: Mapping[str, Any]) -> float:
    """Return the seconds of the threads of a worker in which they had no task of the fit."""
    busy = sum(seconds_of(worker))
    return float(max(worker["threads"] * worker["elapsed"] - busy, 0.0))


def seconds_of(worker: Mapping[str, Any]) -> list[float]:
    """Return the seconds of a worker by `SECONDS`; 0 for a part that it did not count by itself."""
    return [worker.get(part, 0.0) for part in SECONDS]


def total_work(work: Mapping[str, Any]) -> dict[str, Any]:
    """Return the work of all workers as one mapping of numbers: sums of seconds, and the largest memory."""
    workers = work["workers"]
    return {
        "workers": len(workers),
        **{f"{part}_seconds": round(sum(one.get(part, 0.0) for one in workers), 3) for part in SECONDS},
        "idle_seconds": round(sum(map(idle_seconds, workers)), 3),
        "worker_peak_bytes": max((int(one["peak_bytes"]) for one in workers), default=None),
        "planned_bytes": work["planned_bytes"],
        "client_peak_bytes": work["client_bytes"],
    }
