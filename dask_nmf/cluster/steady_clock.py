"""A clock for Dask's event loops in this process that does not jump when the system's clock is set.

Tornado and Dask keep deadlines as times of day. A stream that has sent a message sends the next one only when
a deadline some milliseconds later has passed, and periodic calls, heartbeats among them, follow such
deadlines too. If the clock is set back by a day at such a moment, they wait for a day, and no setting of
either library changes that.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from distributed import batched


def set_steady_clock() -> None:
    """Make event loops and streams of this process use a monotonic clock instead of the time of day."""
    offset = time.time() - time.monotonic()

    def steady(*_: object) -> float:
        return time.monotonic() + offset

    batched.IOLoop.time = batched.time = steady  # Tornado's loops, and Dask's streams


@contextmanager
def steady_clock() -> Iterator[None]:
    """Return a context in which the clock is steady."""
    before = batched.IOLoop.time, batched.time
    set_steady_clock()
    try:
        yield
    finally:
        batched.IOLoop.time, batched.time = before
