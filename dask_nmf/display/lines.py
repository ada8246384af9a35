"""The progress of a fit and its log: a bar on a terminal or in a notebook, else lines of text or JSON."""

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

from dask_nmf import progress
from dask_nmf.cluster.client import PANELS_DONE, active_client
from dask_nmf.display.load import LoadGauge
from dask_nmf.display.text import escape_control
from dask_nmf.wording import counted

FIRST, EVERY, SECONDS = 10, 10, 10  # passes that get a line on a terminal: see `LogAboveBar`
COLUMNS, ROWS = 80, 24  # size of a terminal that does not report one
PASSES = "pass", "shared pass"  # the events that are lines where there is no bar
MEGABYTES = "MB"  # the unit of a read whose speed is shown
STAGE = "{desc}{postfix}"
READING = "{desc} |{bar}| {n_fmt}/{total_fmt} {unit}{postfix}"
READING_BYTES = "{desc} |{bar}| {n_fmt}/{total_fmt} {unit}, {rate_fmt}, {remaining} left{postfix}"
# These loggers print tracebacks about a lost cluster from threads of their own; the error is raised here too.
SILENCED = ("asyncio", "distributed", "distributed.client", "tornado.application")


class LineFormatter(logging.Formatter):
    """A formatter that gives one line for each record: its message."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line."""
        return escape_control(record.getMessage())


class JsonFormatter(logging.Formatter):
    """A formatter that gives one JSON object for each record: time, level, message and its numbers."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": "message",
            "message": record.getMessage(),
            **record_numbers(record),
        }
        return json.dumps(line)


def record_numbers(record: logging.LogRecord) -> dict[str, Any]:
    """Return the numbers of a record, with its event, if it has any."""
    numbers: dict[str, Any] = getattr(record, "nmf", {})
    return numbers


class ProgressBar(logging.Handler):
    """A bar that shows the events of `progress`: stage, panels read so far, relative error, time left."""

    def __init__(self, bar: Any, stays: bool) -> None:
        super().__init__()
        where = {} if is_widget(bar) else bar_width()
        self._error: float | None = None
        self._load = LoadGauge()
        self.bar = bar(desc="opening V", total=1, bar_format="{desc}", leave=stays, miniters=1, **where)

    def emit(self, record: logging.LogRecord) -> None:
        """Show an event of `progress`."""
        numbers = record_numbers(record)
        event = numbers["event"]
        if event == "panel":
            self.panel_done()
        elif event == "read":
            self.bar.bar_format = READING_BYTES if numbers["unit"] == MEGABYTES else READING
            self.bar.unit = numbers["unit"]
            self.bar.reset(numbers["panels"])
        elif event == "stage":
            self.bar.bar_format = STAGE
            self.bar.set_description_str(record.getMessage())
        elif event == "pass":
            error = f"relative error {_error(numbers)}{self._change(numbers['relative_error'])}"
            speed = f"{numbers['mb_per_s']:.0f} MB/s"
            text = ", ".join([error, _left(numbers), speed, self._load.text])
            self.bar.set_postfix_str(text, refresh=False)
        elif event == "shared pass":
            models = f"{numbers['running']} of {counted(numbers['models'], 'model')}"
            self.bar.set_postfix_str(f"{models}, {_left(numbers)}, {self._load.text}", refresh=False)
        elif event == "done":
            self.bar.n = self.bar.total
            self.bar.bar_format = "{desc}"
            self.bar.set_description_str(record.getMessage())

    def _change(self, error: float | None) -> str:
        """Return the change of the relative error since the pass before, if both are known."""
        before, self._error = self._error, error
        return "" if error is None or before is None else f" ({error - before:+.1e})"

    def panel_done(self, event: Any = None) -> None:
        """Show that a panel of the current read is done."""
        self.bar.update(1)

    def close(self) -> None:
        """Remove the bar, or leave its last state."""
        self.bar.close()
        super().close()


class LogAboveBar(logging.Handler):
    """A handler that prints the log above a bar, with so few passes that a log of 200 can be read.

    These are the first ten, every tenth, those after ten seconds without one, and the last.
    """

    def __init__(self) -> None:
        super().__init__()
        self.shown = time.monotonic()

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record, unless it is one of many passes."""
        numbers = record_numbers(record)
        if numbers.get("event") != "pass" or self._is_worth(numbers):
            self.shown = time.monotonic()
            plain_bar.write(self.format(record), file=sys.stderr)

    def _is_worth(self, numbers: dict[str, Any]) -> bool:
        number = numbers["pass"]
        late = time.monotonic() - self.shown >= SECONDS
        return number <= FIRST or number % EVERY == 0 or late or numbers["outcome"] is not None


def _left(numbers: dict[str, Any]) -> str:
    return f"at most {plain_bar.format_interval(numbers['seconds_left_at_most'])} left"


def _error(numbers: dict[str, Any]) -> str:
    error = numbers["relative_error"]
    return "not known" if error is None else f"{error:.6f}"


def is_widget(bar: type[plain_bar]) -> bool:
    """Return whether a bar is a widget; the module of widgets is only imported where there can be one."""
    return any(base.__module__ == "tqdm.notebook" for base in bar.__mro__)


def bar_width() -> dict[str, Any]:
    """Return the options by which a bar finds its width; some terminals, such as those of CI, report none."""
    with suppress(OSError, ValueError):
        if os.get_terminal_size(sys.stderr.fileno()).columns > 0:
            return {"file": sys.stderr, "dynamic_ncols": True}
    return {"file": sys.stderr, "ncols": COLUMNS, "nrows": ROWS}


@contextmanager
def logging_to_terminal(log_format: str, terminal: bool) -> Iterator[Callable[[], None]]:
    """Show the log of this package on standard error meanwhile.

    Yields a function that makes the bar, if there is one, follow the panels of the active client.
    """
    logger = logging.getLogger("dask_nmf")
    live = ProgressBar(plain_bar, stays=False) if terminal and log_format == "text" else None
    handler = logging.StreamHandler(sys.stderr) if live is None else LogAboveBar()
    handler.setFormatter(JsonFormatter() if log_format == "json" else LineFormatter())
    if log_format == "text" and _share_a_stream():  # the command prints its result there, too
        handler.addFilter(lambda record: record_numbers(record).get("event") != "done")
    level = logger.level

    logger.setLevel(logging.INFO)
    for name in SILENCED:
        logging.getLogger(name).setLevel(logging.CRITICAL)

    def follow() -> None:
        client = active_client()
        if live is not None and client is not None:
            client.subscribe_topic(PANELS_DONE, live.panel_done)

    try:
        with warnings.catch_warnings(), with_handler(logger, handler), with_handler(progress.LOGGER, live):
            warnings.showwarning = lambda *parts: logger.warning(
                "%s", parts[0]
            )  # they become lines of the log
            yield follow
    finally:
        logger.setLevel(level)


@contextmanager
def showing_progress(verbose: int) -> Iterator[None]:
    """Show the progress of the fits of this thread meanwhile, if ``verbose`` is not 0.

    A terminal, or a notebook with ipywidgets, gets a bar; otherwise each pass is a line on standard output.
    """
    if not verbose:
        yield
        return
    mine, client = get_ident(), active_client()
    if not (sys.stderr.isatty() or is_widget(any_bar)):
        lines = logging.StreamHandler(sys.stdout)
        lines.addFilter(lambda record: record.thread == mine and record_numbers(record)["event"] in PASSES)
        with with_handler(progress.LOGGER, lines):
            yield
        return
    live = ProgressBar(any_bar, stays=True)
    live.addFilter(lambda record: record.thread == mine or record_numbers(record)["event"] == "panel")
    with with_handler(progress.LOGGER, live), ExitStack() as stack:
        if client is not None:
            client.subscribe_topic(PANELS_DONE, live.panel_done)
            stack.callback(client.unsubscribe_topic, PANELS_DONE)
        yield


@contextmanager
def with_handler(logger: logging.Logger, handler: logging.Handler | None) -> Iterator[None]:
    """Add a handler, if one is given, to a logger meanwhile, and close it."""
    if handler is None:
        yield
        return
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        handler.close()


def _share_a_stream() -> bool:
    """Return whether standard output and standard error are the same terminal, file or pipe."""
    with suppress(OSError, ValueError):
        return os.path.sameopenfile(sys.stdout.fileno(), sys.stderr.fileno())
    return False
