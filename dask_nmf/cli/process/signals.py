"""SIGINT and SIGTERM: the first one stops the command in order, the second one at once."""

from __future__ import annotations

import os
import signal
import sys
import threading
from types import FrameType

_received: list[int] = []  # the signals so far
_resent: list[int] = []  # those of them that are sent again, and have not come yet


class Terminated(BaseException):
    """SIGTERM was received."""


def handle_signals() -> None:
    """Raise `KeyboardInterrupt` or `Terminated` at the first signal, and exit at the second."""
    sys.unraisablehook = _on_unraisable
    signal.signal(signal.SIGINT, _on_signal)
    signal.signal(signal.SIGTERM, _on_signal)  # last: who sees it handled may send either


def end_at_signals(status: int) -> None:
    """Let a signal from now on end the process at once, with the exit code of its work, which is done."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: os._exit(status))


def interrupted() -> bool:
    """Return whether a signal was received, even if an import or a library has hidden its exception."""
    return bool(_received)


def terminated() -> bool:
    """Return whether SIGTERM was received."""
    return signal.SIGTERM in _received


def _on_signal(number: int, frame: FrameType | None) -> None:
    if number in _received and not _resent:
        os._exit(128 + number)
    _received.append(number)
    _resent.clear()
    raise Terminated if number == signal.SIGTERM else KeyboardInterrupt


def _on_unraisable(unraisable: sys.UnraisableHookArgs) -> None:
    """Send a signal again that came in a callback of the garbage collector, which drops exceptions."""
    if not _received:
        sys.__unraisablehook__(unraisable)
    elif isinstance(unraisable.exc_value, KeyboardInterrupt | Terminated):
        _resent.append(_received[-1])
        again = threading.Timer(0.1, os.kill, (os.getpid(), _received[-1]))
        again.daemon = True  # a process that ends meanwhile does not wait for it
        again.start()
