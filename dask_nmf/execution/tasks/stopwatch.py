"""The time that the tasks of a fit spend in this process, by what they do, and the memory of the process.

Clocks are read a few times for each panel, and nothing that is computed depends on them.
"""

from __future__ import annotations

import os
import resource
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

READ, MULTIPLY, SOLVE, SUMS, WAIT = "read", "multiply", "solve", "sums", "wait"
# V read, products with V, W solved for, sums for H and losses, waits for a compute slot; products are in the
# two parts after them if the solver does not take them by themselves
PARTS = (READ, MULTIPLY, SOLVE, SUMS, WAIT)
STATUS = Path("/proc/self/status")
MOST_FITS = 100  # whose times a process keeps: fits that were killed do not take theirs

SINCE, ELAPSED = "since", "elapsed"
_spent: dict[str, dict[str, float]] = {}  # seconds by part, and the clock at its first one, of each fit
_lock = threading.Lock()
_task = threading.local()  # the fit of the task of this thread


def _renew_after_fork() -> None:
    """Forget all times in a forked process, and renew the lock, whose holder does not exist there."""
    global _lock
    _spent.clear()
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_renew_after_fork)


@contextmanager
def of_fit(fit: str) -> Iterator[None]:
    """Count the time of the parts of the task of this thread for a fit."""
    before, _task.fit = getattr(_task, "fit", None), fit
    try:
        yield
    finally:
        _task.fit = before


@contextmanager
def spending(part: str) -> Iterator[None]:
    """Count the time of the body as that of a part, if the thread has a task of a fit."""
    fit = getattr(_task, "fit", None)
    if not fit:
        yield
        return
    begun = time.perf_counter()
    try:
        yield
    finally:
        _add(fit, part, begun, time.perf_counter())


def _add(fit: str, part: str, begun: float, ended: float) -> None:
    with _lock:
        if fit not in _spent and len(_spent) >= MOST_FITS:
            del _spent[next(iter(_spent))]
        if fit not in _spent:
            _spent[fit] = {**dict.fromkeys(PARTS, 0.0), SINCE: begun}
        parts = _spent[fit]
        parts[part] += ended - begun


def take(fit: str) -> dict[str, float]:
    """Return the seconds of each part of a fit in this process, which forgets them, and its peak memory.

    Returns
    -------
    The seconds of `PARTS`, ``elapsed`` since the first of them began, and ``peak_bytes``.
    """
    now = time.perf_counter()
    with _lock:
        parts = _spent.pop(fit, {**dict.fromkeys(PARTS, 0.0), SINCE: now})
    since = parts.pop(SINCE)
    return {**parts, ELAPSED: now - since, "peak_bytes": peak_memory()}


def peak_memory() -> int:
    """Return the largest resident memory that this process had, in bytes.

    Linux tells it in /proc; its ``getrusage`` may tell that of the process from which this one was started.
    """
    with suppress(OSError):
        for line in STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024  # KiB
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # bytes there, KiB elsewhere
