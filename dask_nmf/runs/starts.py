"""The runs of several starts, below the run of their fit until the best one is its result."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from dask_nmf.errors import InvalidRunError
from dask_nmf.iteration.outcome import Ending
from dask_nmf.runs.commits import Commits, open_group
from dask_nmf.runs.record.states import or_none
from dask_nmf.storage.arrays import write_once
from dask_nmf.storage.locations import Location

START = re.compile(r"start-\d+", re.ASCII)  # their names


def start_location(location: Location, number: int) -> Location:
    """Return the location of the run of one of several starts, below that of their fit."""
    return location.within(f"start-{number}")


def describe_starts(location: Location, number: int) -> dict[str, list[Any]]:
    """Return how far several starts have come, as JSON holds it; None for a start that is not there yet."""
    described: dict[str, list[Any]] = {"passes": [], "relative_errors": []}
    for start in range(number):
        passes, error = None, None
        with suppress(FileNotFoundError, InvalidRunError):
            record = open_group(start_location(location, start))[1]
            passes, error = record["pass"], (record["history"]["relative_error"] or [None])[-1]
        described["passes"].append(passes)
        described["relative_errors"].append(error)
    return described


def with_starts(summary: dict[str, Any], location: Location, number: int) -> dict[str, Any]:
    """Return the summary of a run with how far its starts have come, as long as none of them is kept."""
    if "starts" not in summary or summary["starts"] is not None:
        return summary
    return {**summary, "starts": describe_starts(location, number)}


def parts_of_kept(
    record: dict[str, Any], ending: Ending, objectives: Sequence[float], kept: int
) -> dict[str, Any]:
    """Return what the record of a fit takes over from that of the start that is kept."""
    passes: dict[str, Any] = {
        name: record[name] for name in ("pass", "history", "expected") if name in record
    }
    end = {**ending._asdict(), "final": ending.outcome.final}
    spread = {"objectives": [or_none(one) for one in objectives], "kept": kept}
    return {**passes, **end, "starts": spread}


def delete_starts(commits: Commits) -> None:
    """Delete the runs of starts below a run."""
    commits.check_held()
    write_once.delete_below(commits.group, START)
