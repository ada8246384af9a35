"""Clusters: what the active one offers, and how one is started or found."""

from __future__ import annotations

import os
from typing import NamedTuple

from dask_nmf.client import active_client, wait_for_workers


class Resources(NamedTuple):
    """What one worker has: the least of all workers."""

    memory_limit: int | None  # bytes; None where nothing limits it
    threads: int
    workers: int


def resources() -> Resources:
    """Of the active cluster, or of this process's threads where there is none."""
    client = active_client()
    if client is None:
        return Resources(None, os.cpu_count() or 1, 1)
    wait_for_workers()
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    limits = [worker["memory_limit"] for worker in workers if worker["memory_limit"]]
    return Resources(min(limits, default=None), max(w["nthreads"] for w in workers), len(workers))


def shares_this_disk() -> bool:
    """Whether the workers are sure to see the files of this machine."""
    client = active_client()
    if client is None:
        return True
    address: str = client.scheduler.address
    return address.startswith(("inproc://", "tcp://127.", "tls://127.", "tcp://[::1]", "tls://[::1]"))
