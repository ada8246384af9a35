"""The load of the processes of a fit: how many there are, and the memory that they take."""

from __future__ import annotations

import resource
import sys
import time
from contextlib import suppress
from typing import Any, NamedTuple

from dask_nmf.cluster.client import active_client
from dask_nmf.cluster.watch import call_watched

SECONDS = 2.0  # that a measurement is kept


class Load(NamedTuple):
    """The number of workers, and their memory in bytes; without a cluster, the peak of this process."""

    workers: int
    memory: int


class LoadGauge:
    """A gauge of the load, which asks the scheduler at most once in `SECONDS`."""

    def __init__(self) -> None:
        self._load = Load(1, 0)
        self._until = 0.0

    def read(self) -> Load:
        """Return the load of now, or the last known one if the scheduler does not answer."""
        if time.monotonic() >= self._until:
            with suppress(Exception):  # a lost cluster is reported by the pass that needs it
                self._load = _measure()
            self._until = time.monotonic() + SECONDS
        return self._load

    @property
    def text(self) -> str:
        """The load for people."""
        workers, memory = self.read()
        return f"{workers} worker{'s' * (workers != 1)}, {memory / 2**30:.1f} GiB"


def _measure() -> Load:
    client = active_client()
    if client is None:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return Load(1, peak if sys.platform == "darwin" else peak * 1024)  # bytes there, KiB on Linux
    workers: dict[str, Any] = call_watched(lambda: client.scheduler_info(n_workers=-1)["workers"])
    return Load(len(workers), sum(worker["metrics"].get("memory", 0) for worker in workers.values()))
