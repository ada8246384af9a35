"""Which signals a running process handles, or has not looked at yet."""

import re
import signal
from pathlib import Path


def handles(pid: int, number: int = signal.SIGTERM) -> bool:
    """Return whether a process handles a signal, as Linux tells it; one that has ended handles none.

    The command handles SIGTERM from its first lines on. Python itself does not, and prints a traceback if
    SIGINT comes while it starts.
    """
    return _has(pid, "SigCgt", number)


def is_pending(pid: int, number: int = signal.SIGTERM) -> bool:
    """Return whether a signal has been sent to a process that is stopped."""
    return _has(pid, "ShdPnd", number)


def _has(pid: int, kind: str, number: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    signals = re.search(rf"^{kind}:\s*(\w+)", status, re.MULTILINE)
    return signals is not None and bool(int(signals[1], 16) >> (number - 1) & 1)
