"""Where a fit is: its stages, reads and panels, told to whoever shows them.

These are records of a logger of their own, which reaches no other handler than those that are added to it.
"""

from __future__ import annotations

import logging
from typing import Any

LOGGER = logging.getLogger("dask_nmf.progress")
LOGGER.propagate = False
LOGGER.setLevel(logging.DEBUG)


def stage(title: str) -> None:
    """A part of the fit begins, such as "first read" or "pass 3"."""
    _tell("stage", title)


def read(panels: int) -> None:
    """A read of V begins, of so many panels."""
    _tell("read", numbers={"panels": panels})


def panel() -> None:
    """A panel of the read is done."""
    _tell("panel")


def passed(text: str, numbers: dict[str, Any]) -> None:
    """A pass is done: its line and its numbers, as in the log."""
    _tell("pass", text, numbers)


def done(text: str) -> None:
    """The fit is done."""
    _tell("done", text)


def _tell(event: str, text: str = "", numbers: dict[str, Any] | None = None) -> None:
    LOGGER.debug("%s", text, extra={"nmf": {**(numbers or {}), "event": event}})
