"""Choose the cluster that a command runs on: one that runs already, or one that is started for it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace

import dask
from dask.utils import parse_bytes
from distributed import Client

from dask_nmf.cluster import config, versions
from dask_nmf.cluster.backends.existing import existing_cluster
from dask_nmf.cluster.backends.local import WorkerSizes, local_cluster, local_workers
from dask_nmf.cluster.backends.slurm import slurm_cluster
from dask_nmf.cluster.backends.ssh import ssh_cluster
from dask_nmf.cluster.client import is_loopback
from dask_nmf.cluster.config import ClusterSpec, Configuration
from dask_nmf.cluster.watch import wait_for_workers
from dask_nmf.planning import worker_memory
from dask_nmf.process_settings import CPU_COUNT

logger = logging.getLogger(__name__)

EXISTING, THREADS = "existing", "threads"  # not started: a cluster that runs already; this process
SMALL = 64 * 2**20  # bytes: for a V of at most this size the threads of this process suffice


@contextmanager
def connect_cluster(spec: ClusterSpec, size: int) -> Iterator[None]:
    """Run the body on the cluster of the spec, on the one that Dask's configuration names, or on a local one.

    If none of them is given, a small V is computed by the threads of this process.

    Parameters
    ----------
    size : bytes of V

    Raises
    ------
    ValueError
        If options contradict each other, something that the start needs is missing, or the cluster cannot
        work with this process.
    MemoryError
        If the memory limit is too small for any worker.
    NoWorkers
        If no scheduler answers, or no worker comes.
    """
    configured = config.read()
    kind, address = _choose(spec, configured, size)
    if kind == THREADS:
        yield
        return
    cluster = (
        existing_cluster(address, spec.scheduler_file, configured.wait)
        if kind == EXISTING
        else _start(kind, spec, configured)
    )
    with cluster as client:
        if kind != "local":
            wait_for_workers()
            versions.check(client, spec.upload_package)
            _warn_if_open(client.scheduler.address)
        yield


def planned_workers(spec: ClusterSpec, size: int) -> WorkerSizes | None:
    """Return the workers that `connect_cluster` would start on this machine, without a start.

    None stands for a cluster of which this is not known: one that runs already, or one on other machines.
    The arguments and the errors are those of `connect_cluster`.
    """
    configured = config.read()
    kind, _ = _choose(spec, configured, size)
    if kind == THREADS:
        return WorkerSizes(1, CPU_COUNT, None)
    if kind != "local":
        return None
    spec = _with_sizes(spec, configured)
    return local_workers(spec.workers, spec.threads_per_worker, spec.memory_limit)


def _choose(spec: ClusterSpec, configured: Configuration, size: int) -> tuple[str, str | None]:
    """Return the kind of cluster to take, and the address of the scheduler if that is given."""
    if spec.cluster and (spec.scheduler or spec.scheduler_file):
        raise ValueError("--cluster starts a cluster, and a scheduler is given; leave one of them out")
    address = spec.scheduler or dask.config.get("scheduler-address", None)
    exists = not spec.cluster and bool(address or spec.scheduler_file)
    if exists and spec.sized:
        raise ValueError(
            "--workers, --threads-per-worker and --memory-limit are of a cluster that is started, such as a "
            "local cluster, and a scheduler is given; leave one of them out"
        )
    if exists:
        return EXISTING, address
    kind = spec.cluster or configured.cluster
    if kind is None and not spec.sized and size <= SMALL:
        return THREADS, None
    return kind or "local", None


def _with_sizes(spec: ClusterSpec, configured: Configuration) -> ClusterSpec:
    """Return the spec with the number of workers that is configured, and the memory limit in bytes."""
    return replace(spec, workers=spec.workers or configured.workers, memory_limit=_size(spec.memory_limit))


def _start(kind: str, spec: ClusterSpec, configured: Configuration) -> AbstractContextManager[Client]:
    spec = _with_sizes(spec, configured)
    starts = {
        "local": lambda: local_cluster(spec.workers, spec.threads_per_worker, spec.memory_limit),
        "ssh": lambda: ssh_cluster(spec, configured),
        "slurm": lambda: slurm_cluster(spec),
    }
    if kind not in starts:
        raise ValueError(f"dask_nmf.cluster is {kind!r}; it must be one of {', '.join(starts)}")
    return starts[kind]()


def _size(memory: int | str | None) -> int | None:
    """Return a memory limit in bytes.

    Raises
    ------
    ValueError, MemoryError
        If it is no size; if it is too small for any worker.
    """
    if memory is None:
        return None
    try:
        size = int(parse_bytes(memory))
    except (ValueError, OverflowError):
        raise ValueError(f'memory limit {memory!r} is no size; write it as "600MB" or "2GiB"') from None
    worker_memory.check_limit(size, "the memory limit of each worker (--memory-limit)")
    return size


def _warn_if_open(address: str) -> None:
    """Warn of a scheduler without TLS, which executes the code of anyone who can connect to it."""
    if address.startswith("tcp://") and not is_loopback(address):
        logger.warning(
            "the scheduler at %s is reached without TLS: whoever can connect to it or to a worker can run "
            "code there as you; see docs/clusters.md",
            address,
        )
