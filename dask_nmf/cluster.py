"""Clusters: what the active one offers, how V is cut for it, and how one is started or found."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import NamedTuple

import dask
from distributed import Client, LocalCluster
from distributed.system import MEMORY_LIMIT

from dask_nmf import plan, tiling
from dask_nmf.client import NoWorkers, active_client, wait_for_workers
from dask_nmf.errors import DataError
from dask_nmf.fit import EVERYTHING, Panels
from dask_nmf.matrix import Matrix
from dask_nmf.observed import Rule
from dask_nmf.plan import Plan
from dask_nmf.tiling import Edges, Tiling

GIB = str(2**30)
KEPT = 0.8  # of the memory that a plan leaves: what stays long leaves gaps between what does not
# Dask's nanny makes malloc hand back every large temporary, which then faults its pages in anew: reads of
# Zarr take twice as long. These take effect before a worker starts, so only in clusters that we start.
# One arena: Zarr decodes in threads of its own, and each would keep what its arena once held (measured: up to
# 100 MB of resident memory above the plan).
MALLOC = {"MALLOC_MMAP_THRESHOLD_": GIB, "MALLOC_TRIM_THRESHOLD_": GIB, "MALLOC_ARENA_MAX": "1"}
# A terminal sends Ctrl-C to the workers too; it is this process that ends them.
DEAF_TO_CTRL_C = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)"


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


def check_sight(matrix: Matrix) -> None:
    """Refuse a V in files that some worker does not see: Zarr reads a chunk that is not there as zeros.

    Raises
    ------
    DataError
        With the worker's address.
    """
    client = active_client()
    if client is None or matrix.reader is None or matrix.in_memory:
        return
    ours = matrix.fingerprint()
    for address, theirs in client.run(matrix.fingerprint, on_error="return").items():
        if theirs != ours:
            raise DataError(
                f"the worker at {address} does not see {matrix.source} as this process does; "
                "put V where all workers reach it under the same path"
            )


def cut(
    matrix: Matrix,
    rank: int,
    weights: Matrix | None = None,
    rule: Rule = EVERYTHING,
    edges: tuple[int, ...] | None = None,
    blocks: bool = False,
    grams: bool = True,
    cache: int | None = 0,
) -> tuple[Panels, Plan]:
    """V in panels that fit the workers, who are found to see it; see `plan.make` and `plan.Layout`.

    ``cache``: most bytes of panels that a worker keeps from pass to pass, of what the plan leaves free; None:
    all of that.

    Raises
    ------
    MemoryError, DataError
        If a panel does not fit; if a worker does not see V or its weights.
    """
    offer = resources()
    layout = replace(
        matrix.layout,
        observed=not rule.whole,
        grams=grams,
        ahead=matrix.read_anew,
        beside=None if weights is None else weights.layout,
        chunk_columns=matrix.layout.chunk_columns if matrix.at_hand else None,
    )
    planned = plan.make(layout, rank, offer.memory_limit, offer.threads, edges, blocks)
    for part in (matrix, weights):
        if part is not None:
            check_sight(part)
    room = 0 if blocks and offer.workers > 1 else _spare(offer.memory_limit, planned, cache)
    return Panels(matrix, planned.edges, weights, rule, room, planned.ahead), planned


def _spare(memory_limit: int | None, planned: Plan, cache: int | None) -> int:
    """Bytes of panels that a worker may keep; where nothing limits it, a quarter of the machine's."""
    if cache == 0:
        return 0
    if memory_limit is not None:
        spare = KEPT * (memory_limit * plan.USABLE - planned.worker_bytes)
    else:
        spare = MEMORY_LIMIT / 4
    return max(0, int(spare if cache is None else min(spare, cache)))


def tile(matrix: Matrix, rank: int, kept: Edges | None = None) -> Tiling:
    """V in blocks that fit the workers, who are found to see it; see `tiling.make`. Raises as `cut` does."""
    offer = resources()
    made = tiling.make(matrix.layout, rank, offer.memory_limit, offer.threads, kept)
    check_sight(matrix)
    return made


@contextmanager
def local(workers: int | None, threads: int | None, memory_limit: int | str | None) -> Iterator[Client]:
    """A cluster of processes on this machine, reachable from this machine only.

    Its workers neither spill nor pause: the plan keeps them under their limit, and as malloc does not give
    back what it had, a worker that once paused would never go on. The nanny still ends one at 95 %.

    Parameters
    ----------
    workers, threads : processes, and threads of each; by default as `LocalCluster` divides the cores.
    memory_limit : of each process, in bytes or as text (``"2GiB"``); by default its share of the machine.
    """
    settings: dict[str, object] = {
        "distributed.deploy.lost-worker-timeout": "1h",  # or a worker that dies twice is given up
        "distributed.worker.preload": [DEAF_TO_CTRL_C],
        **{f"distributed.worker.memory.{name}": False for name in ("target", "spill", "pause")},
        **{f"distributed.nanny.pre-spawn-environ.{name}": size for name, size in MALLOC.items()},
    }
    with (
        dask.config.set(settings),
        LocalCluster(
            n_workers=workers,
            threads_per_worker=threads,
            memory_limit="auto" if memory_limit is None else memory_limit,
            host="127.0.0.1",
            silence_logs=logging.CRITICAL,  # what fails is raised here
            dashboard_address="127.0.0.1:0",
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client


@contextmanager
def remote(address: str | None, scheduler_file: str | None) -> Iterator[Client]:
    """A running cluster, by the address of its scheduler or by the file that the scheduler wrote.

    Raises
    ------
    NoWorkers
        If there is no scheduler.
    """
    try:
        client = Client(address, scheduler_file=scheduler_file)
    except (OSError, TimeoutError) as error:
        raise NoWorkers(
            f"no scheduler answers at {address or scheduler_file}; start it and run this again"
        ) from error
    with client:
        yield client
