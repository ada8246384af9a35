"""What the command shows of a fit: a live line on a terminal, plain or JSON lines in a log."""

from __future__ import annotations

import json
import logging
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from tqdm import tqdm

from dask_nmf.client import PANELS_DONE, active_client
from dask_nmf.text import visible


class Lines(logging.Formatter):
    """A line a record: its message."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line."""
        return visible(record.getMessage())


# Of a cluster that is lost they print tracebacks, from their own threads; what fails is raised here too.
SILENT = ("asyncio", "distributed", "distributed.client", "tornado.application")


class JsonLines(logging.Formatter):
    """One JSON object a record: time, level, message, and the record's numbers."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": "message",
            "message": record.getMessage(),
            **getattr(record, "nmf", {}),
        }
        return json.dumps(line)


class LiveLine(logging.Handler):
    """One line that follows the fit: panels of the pass in work, loss, speed, time left."""

    def __init__(self) -> None:
        super().__init__()
        self.bar: tqdm[Any] | None = None
        self.panels = 0
        self.last = ""

    def emit(self, record: logging.LogRecord) -> None:
        """Take a pass into the line; print anything else above it."""
        numbers = getattr(record, "nmf", {})
        if numbers.get("event") == "plan":
            self.panels = numbers["panels"]
            self._begin("first read")
        elif numbers.get("event") == "pass":
            left = numbers["seconds_left_at_most"]
            self.last = (
                f"relative error {numbers['relative_error']:.6f}, {numbers['mb_per_s']:.0f} MB/s, "
                f"at most {tqdm.format_interval(left)} left"
            )
            self._begin("last read" if numbers["outcome"] else f"pass {numbers['pass'] + 1}")
        else:
            tqdm.write(self.format(record), file=sys.stderr)

    def panel_done(self, event: Any) -> None:
        """A panel of the pass in work is done."""
        if self.bar is not None:
            self.bar.update(1)

    def finish(self) -> None:
        """Take the line away."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None

    def _begin(self, title: str) -> None:
        self.finish()
        self.bar = tqdm(
            total=self.panels,
            desc=title,
            postfix=self.last or None,
            bar_format="{desc} |{bar:20}| {n_fmt}/{total_fmt} panels{postfix}",
            file=sys.stderr,
            leave=False,
        )


@contextmanager
def shown(log_format: str, terminal: bool) -> Iterator[Callable[[], None]]:
    """Show the log of this package on standard error; what it gives begins to follow the active client."""
    logger = logging.getLogger("dask_nmf")
    live = LiveLine() if terminal and log_format == "text" else None
    handler = live or logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if log_format == "json" else Lines())
    level = logger.level

    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    for name in SILENT:
        logging.getLogger(name).setLevel(logging.CRITICAL)

    def follow() -> None:
        client = active_client()
        if live is not None and client is not None:
            client.subscribe_topic(PANELS_DONE, live.panel_done)

    try:
        with warnings.catch_warnings():
            warnings.showwarning = lambda *parts: logger.warning("%s", parts[0])  # a line as any other
            yield follow
    finally:
        if live is not None:
            live.finish()
        logger.removeHandler(handler)
        logger.setLevel(level)
