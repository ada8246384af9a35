"""Events of a fit for whoever shows its progress: stages, reads, panels, passes and the end.

An event is a record of a logger that passes nothing on to other loggers.
"""

from __future__ import annotations

import logging
from typing import Any

LOGGER = logging.getLogger("dask_nmf.progress")
LOGGER.propagate = False
LOGGER.setLevel(logging.DEBUG)


def report_stage(title: str) -> None:
    """Report that a part of the fit begins, such as "first read" or "pass 3"."""
    _report("stage", title)


def report_read(panels: int, unit: str = "panels") -> None:
    """Report that a read of V begins, which has this number of panels, or of another unit."""
    _report("read", numbers={"panels": panels, "unit": unit})


def report_panel() -> None:
    """Report that a panel of the current read is done."""
    _report("panel")


def report_pass(text: str, numbers: dict[str, Any]) -> None:
    """Report that a pass is done, with its line and its numbers, as in the log."""
    _report("pass", text, numbers)


def report_shared_pass(text: str, numbers: dict[str, Any]) -> None:
    """Report that a pass that many models share is done, with its line and its numbers, as in the log."""
    _report("shared pass", text, numbers)


def report_end(text: str) -> None:
    """Report that the fit is done."""
    _report("done", text)


def _report(event: str, text: str = "", numbers: dict[str, Any] | None = None) -> None:
    LOGGER.debug("%s", text, extra={"nmf": {**(numbers or {}), "event": event}})
