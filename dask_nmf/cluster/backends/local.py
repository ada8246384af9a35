"""A cluster of processes on this machine."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from math import ceil
from typing import NamedTuple

import dask
from dask.utils import parse_bytes
from distributed import Client, LocalCluster
from distributed.deploy.utils import nprocesses_nthreads
from distributed.system import MEMORY_LIMIT
from distributed.worker_memory import parse_memory_limit

from dask_nmf.cluster.backends.worker_settings import OF_NANNIES, PRE_SPAWN, TUNED
from dask_nmf.cluster.steady_clock import steady_clock
from dask_nmf.errors import NoWorkers
from dask_nmf.process_settings import CPU_COUNT, SharedSetting

logger = logging.getLogger(__name__)

STEADY = "from dask_nmf.cluster.steady_clock import set_steady_clock; set_steady_clock()"
# A terminal sends Ctrl-C to the workers too, but this process ends them.
DEAF_TO_CTRL_C = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)"

LOCAL: dict[str, object] = {
    "distributed.deploy.lost-worker-timeout": "1h",  # or a worker that dies twice is given up
    "distributed.worker.preload": [DEAF_TO_CTRL_C, STEADY],
    **TUNED,
}


def _warn_if_too_much(workers: int | None, memory_limit: int | None) -> None:
    """Warn if the limits of all workers are more than this machine has, which then kills some of them."""
    count = workers or 1  # Dask itself gives one worker no more than the machine has
    if memory_limit is not None and count * memory_limit > MEMORY_LIMIT:
        logger.warning(
            "%d x %.1f GiB (workers x --memory-limit) are more than the %.1f GiB of this machine, which ends "
            "workers when it is full; give --memory-limit %dMiB or less",
            count,
            memory_limit / 2**30,
            MEMORY_LIMIT / 2**30,
            MEMORY_LIMIT // count // 2**20,
        )


class WorkerSizes(NamedTuple):
    """The number of workers, the threads of each, and its memory limit in bytes; None: there is none."""

    workers: int
    threads: int
    memory_limit: int | None


def local_workers(workers: int | None, threads: int | None, memory_limit: int | str | None) -> WorkerSizes:
    """Return the workers that `local_cluster` starts for these arguments.

    A limit of more than this machine has, which Dask lowers, stays as it is: it is that of another machine.
    """
    if workers is None and threads is None:
        workers, threads = nprocesses_nthreads()
    workers = workers or max(1, CPU_COUNT // (threads or 1))
    threads = threads or max(1, ceil(CPU_COUNT / workers))
    if memory_limit is None:
        return WorkerSizes(workers, threads, parse_memory_limit("auto", threads, logger=logger))
    return WorkerSizes(workers, threads, int(parse_bytes(memory_limit)))


@contextmanager
def local_cluster(
    workers: int | None, threads: int | None, memory_limit: int | str | None
) -> Iterator[Client]:
    """Start a cluster of processes on this machine, which can be reached from this machine only.

    Parameters
    ----------
    workers, threads : processes, and threads of each; by default the cores are divided as `LocalCluster` does
    memory_limit : of each process, in bytes or as text (``"2GiB"``); by default its share of the machine

    Raises
    ------
    NoWorkers, OSError
        If a worker does not start.
    """
    _warn_if_too_much(workers, None if memory_limit is None else int(parse_bytes(memory_limit)))
    with _local_settings.held(), ExitStack() as stack:
        with _reporting_failed_start():
            cluster = LocalCluster(
                n_workers=workers,
                threads_per_worker=threads,
                memory_limit="auto" if memory_limit is None else memory_limit,
                host="127.0.0.1",
                silence_logs=logging.CRITICAL,  # errors are raised here
                dashboard_address="127.0.0.1:0",
            )
        stack.enter_context(cluster)
        yield stack.enter_context(Client(cluster))


@contextmanager
def _set_for_local() -> Iterator[None]:
    """Set the options that local workers need; restore the variables that nannies set in this process."""
    with dask.config.set(LOCAL), steady_clock():
        names = (*dask.config.get(PRE_SPAWN), *OF_NANNIES)
        before = {name: os.environ.get(name) for name in names}
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value


_local_settings = SharedSetting(_set_for_local)


@contextmanager
def _reporting_failed_start() -> Iterator[None]:
    """Raise the error of the operating system that kept a worker from starting, or else `NoWorkers`."""
    try:
        yield
    except RuntimeError as error:
        cause: BaseException | None = error
        while isinstance(cause, RuntimeError):
            cause = cause.__cause__
        if isinstance(cause, OSError) and cause.errno is not None:
            raise cause from error
        raise NoWorkers(f"a worker on this machine died as it started ({error}); run this again") from error
