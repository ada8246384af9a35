"""Which signals a running process handles."""

import re
import signal
from pathlib import Path


def handles(pid: int, number: int = signal.SIGTERM) -> bool:
    """Return whether a process handles a signal, as Linux tells it; one that has ended handles none.

    The command handles SIGTERM from its first lines on. Python itself does not, and prints a traceback if
    SIGINT comes while it starts.
    """
    status = Path(f"/proc/{pid}/status")
    caught = re.search(r"^SigCgt:\s*(\w+)", status.read_text(), re.MULTILINE) if status.exists() else None
    return caught is not None and bool(int(caught[1], 16) >> (number - 1) & 1)
