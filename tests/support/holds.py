"""Holds: the command stands still once it has logged an event, for as long as a file says so.

A test that disturbs a fit holds it before its end, or a busy machine would let it end undisturbed. The file
names an event and a number, such as "pass 7". It is the number of the pass; of another event it tells how
many records of it the process has logged. The process of the command runs this file.
"""

import logging
import os
import select
from collections import Counter
from pathlib import Path

VARIABLE = "HOLD"  # the path of the file, which may be missing


def obey() -> None:
    """Let every later record of the log wait, once it is written, while the file holds the command there."""
    place = os.environ.get(VARIABLE)
    if not place:
        return
    write, seen = logging.Logger.callHandlers, Counter[str]()

    def write_and_wait(logger: logging.Logger, record: logging.LogRecord) -> None:
        write(logger, record)
        numbers = getattr(record, "nmf", {})
        event = numbers.get("event")
        if logger.propagate and event:  # the logger of progress has the same events
            seen[event] += 1
            while _holds(Path(place), event, numbers["pass"] if event == "pass" else seen[event]):
                select.select([], [], [], 0.01)  # as `time.sleep` fails where libfaketime sets the clock

    logging.Logger.callHandlers = write_and_wait  # type: ignore[method-assign]


def _holds(place: Path, event: str, number: int) -> bool:
    try:
        held, _, least = place.read_text().rpartition(" ")
    except FileNotFoundError:
        return False
    return event == held and number >= int(least)


def hold(place: Path, after: str) -> None:
    """Hold the command whose file is at a path after an event, from the record with a number on."""
    new = place.with_suffix(".new")
    new.write_text(after)
    new.rename(place)
