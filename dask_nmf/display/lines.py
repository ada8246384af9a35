"""What a person sees of a fit: a live line on a terminal or in a notebook; else plain or JSON lines."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from threading import get_ident
from typing import Any

from tqdm import tqdm as plain_bar
from tqdm.auto import tqdm as any_bar  # a widget in a notebook that has ipywidgets
from tqdm.notebook import tqdm as widget

from dask_nmf import progress
from dask_nmf.cluster.client import PANELS_DONE, active_client
from dask_nmf.display.text import visible

FIRST, EVERY, SECONDS = 10, 10, 10  # passes that get a line on a terminal: see `Above`
COLUMNS, ROWS = 80, 24  # of a terminal that does not say
STAGE = "{desc}{postfix}"
READING = "{desc} |{bar}| {n_fmt}/{total_fmt} panels{postfix}"
# Of a cluster that is lost they print tracebacks, from their own threads; what fails is raised here too.
SILENT = ("asyncio", "distributed", "distributed.client", "tornado.application")


class Lines(logging.Formatter):
    """A line a record: its message."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line."""
        return visible(record.getMessage())


class JsonLines(logging.Formatter):
    """One JSON object a record: time, level, message, and the record's numbers."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": "message",
            "message": record.getMessage(),
            **numbers_of(record),
        }
        return json.dumps(line)


def numbers_of(record: logging.LogRecord) -> dict[str, Any]:
    """Return the numbers of a record, with its event, if it has any."""
    numbers: dict[str, Any] = getattr(record, "nmf", {})
    return numbers


class LiveLine(logging.Handler):
    """One line that follows `progress`: the stage, the panels of its read that are done, error, time left."""

    def __init__(self, bar: Any, stays: bool) -> None:
        super().__init__()
        where = {} if issubclass(bar, widget) else screen()
        self.bar = bar(desc="opening V", total=1, bar_format="{desc}", leave=stays, miniters=1, **where)

    def emit(self, record: logging.LogRecord) -> None:
        """Follow an event of `progress`."""
        numbers = numbers_of(record)
        event = numbers["event"]
        if event == "panel":
            self.panel_done()
        elif event == "read":
            self.bar.bar_format = READING
            self.bar.reset(numbers["panels"])
        elif event == "stage":
            self.bar.bar_format = STAGE
            self.bar.set_description_str(record.getMessage())
        elif event == "pass":
            left = plain_bar.format_interval(numbers["seconds_left_at_most"])
            self.bar.set_postfix_str(f"relative error {_error(numbers)}, at most {left} left", refresh=False)
        elif event == "done":
            self.bar.n = self.bar.total
            self.bar.bar_format = "{desc}"
            self.bar.set_description_str(record.getMessage())

    def panel_done(self, event: Any = None) -> None:
        """A panel of the read in work is done."""
        self.bar.update(1)

    def close(self) -> None:
        """Take the line away, or leave its end."""
        self.bar.close()
        super().close()


class Above(logging.Handler):
    """The log, above the live line, with few enough passes that 200 of them can be read.

    These are the first ten, each tenth, those after ten seconds without one, and the last.
    """

    def __init__(self) -> None:
        super().__init__()
        self.shown = time.monotonic()

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record as a line."""
        numbers = numbers_of(record)
        if numbers.get("event") != "pass" or self._is_worth(numbers):
            self.shown = time.monotonic()
            plain_bar.write(self.format(record), file=sys.stderr)

    def _is_worth(self, numbers: dict[str, Any]) -> bool:
        number = numbers["pass"]
        late = time.monotonic() - self.shown >= SECONDS
        return number <= FIRST or number % EVERY == 0 or late or numbers["outcome"] is not None


def _error(numbers: dict[str, Any]) -> str:
    error = numbers["relative_error"]
    return "not known" if error is None else f"{error:.6f}"


def screen() -> dict[str, Any]:
    """Return how a bar finds its width: some terminals (of CI, at a start) say that they have none."""
    with suppress(OSError, ValueError):
        if os.get_terminal_size(sys.stderr.fileno()).columns > 0:
            return {"file": sys.stderr, "dynamic_ncols": True}
    return {"file": sys.stderr, "ncols": COLUMNS, "nrows": ROWS}


@contextmanager
def shown(log_format: str, terminal: bool) -> Iterator[Callable[[], None]]:
    """Show the log of this package on standard error; what it gives begins to follow the active client."""
    logger = logging.getLogger("dask_nmf")
    live = LiveLine(plain_bar, stays=False) if terminal and log_format == "text" else None
    handler = logging.StreamHandler(sys.stderr) if live is None else Above()
    handler.setFormatter(JsonLines() if log_format == "json" else Lines())
    if log_format == "text" and _goes_to_one_place():  # the command prints its result there, too
        handler.addFilter(lambda record: numbers_of(record).get("event") != "done")
    level = logger.level

    logger.setLevel(logging.INFO)
    for name in SILENT:
        logging.getLogger(name).setLevel(logging.CRITICAL)

    def follow() -> None:
        client = active_client()
        if live is not None and client is not None:
            client.subscribe_topic(PANELS_DONE, live.panel_done)

    try:
        with warnings.catch_warnings(), attached(logger, handler), attached(progress.LOGGER, live):
            warnings.showwarning = lambda *parts: logger.warning("%s", parts[0])  # a line as any other
            yield follow
    finally:
        logger.setLevel(level)


@contextmanager
def watched(verbose: int) -> Iterator[None]:
    """Show a fit of this thread, if that is asked.

    A terminal, or a notebook that has ipywidgets, gets a bar; else each pass is a line on standard output.
    """
    if not verbose:
        yield
        return
    mine, client = get_ident(), active_client()
    if not (sys.stderr.isatty() or issubclass(any_bar, widget)):
        lines = logging.StreamHandler(sys.stdout)
        lines.addFilter(lambda record: record.thread == mine and numbers_of(record)["event"] == "pass")
        with attached(progress.LOGGER, lines):
            yield
        return
    live = LiveLine(any_bar, stays=True)
    live.addFilter(lambda record: record.thread == mine or numbers_of(record)["event"] == "panel")
    with attached(progress.LOGGER, live), ExitStack() as stack:
        if client is not None:
            client.subscribe_topic(PANELS_DONE, live.panel_done)
            stack.callback(client.unsubscribe_topic, PANELS_DONE)
        yield


@contextmanager
def attached(logger: logging.Logger, handler: logging.Handler | None) -> Iterator[None]:
    """Have a logger use a handler meanwhile, if there is one."""
    if handler is None:
        yield
        return
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        handler.close()


def _goes_to_one_place() -> bool:
    """Whether standard output and standard error are the same terminal, file or pipe."""
    with suppress(OSError, ValueError):
        return os.path.sameopenfile(sys.stdout.fileno(), sys.stderr.fileno())
    return False
