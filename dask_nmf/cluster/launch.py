"""The cluster that a command runs on: one that is there, or one that is started for it."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from importlib import import_module
from itertools import cycle, islice
from pathlib import Path
from typing import Any
from warnings import catch_warnings, filterwarnings

import dask
from dask.utils import parse_bytes, parse_timedelta
from distributed import Client, LocalCluster, SSHCluster
from distributed.comm import CommClosedError, connect
from distributed.security import Security
from distributed.system import MEMORY_LIMIT
from distributed.versions import VersionMismatchWarning

from dask_nmf.cluster import config, versions
from dask_nmf.cluster.client import is_loopback, wait_for_workers
from dask_nmf.cluster.config import Configuration
from dask_nmf.cluster.steady_clock import steady_clock
from dask_nmf.errors import NoWorkers
from dask_nmf.planning import row_panels
from dask_nmf.process_settings import SharedSetting

logger = logging.getLogger(__name__)

SMALL = 64 * 2**20  # bytes of a V that the threads of this process are enough for
POLL = 0.1  # seconds between looks at a file
GIB = str(2**30)
# Dask's nanny makes malloc hand back every large temporary, which then faults its pages in anew: reads of
# Zarr take twice as long. These take effect before a worker starts, so only in clusters that we start.
# One arena: Zarr decodes in threads of its own, and each would keep what its arena once held (measured: up to
# 100 MB of resident memory above the plan).
MALLOC = {"MALLOC_MMAP_THRESHOLD_": GIB, "MALLOC_TRIM_THRESHOLD_": GIB, "MALLOC_ARENA_MAX": "1"}
PRE_SPAWN = "distributed.nanny.pre-spawn-environ"
# Variables that nannies of any version set in their process besides those.
OF_NANNIES = ("PYTHONHASHSEED", "DASK_PARENT", "__DASK_PARENT_PID")
# Workers neither spill nor pause: the plan keeps them under their limit, and as malloc does not give back
# what it had, a worker that once paused would never go on. The nanny still ends one at 95 %.
TUNED: dict[str, object] = {
    **{f"distributed.worker.memory.{name}": False for name in ("target", "spill", "pause")},
    **{f"{PRE_SPAWN}.{name}": size for name, size in MALLOC.items()},
}
# A terminal sends Ctrl-C to the workers too; it is this process that ends them.
DEAF_TO_CTRL_C = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)"
STEADY = "from dask_nmf.cluster.steady_clock import set_steady_clock; set_steady_clock()"
LOCAL: dict[str, object] = {
    "distributed.deploy.lost-worker-timeout": "1h",  # or a worker that dies twice is given up
    "distributed.worker.preload": [DEAF_TO_CTRL_C, STEADY],
    **TUNED,
}


@dataclass(frozen=True)
class ClusterSpec:
    """What is asked for: a scheduler, or a cluster to start."""

    cluster: str | None = None  # local, ssh or slurm
    workers: int | None = None
    threads_per_worker: int | None = None
    memory_limit: int | str | None = None  # of each worker, in bytes or as text
    scheduler: str | None = None  # its address
    scheduler_file: str | None = None
    upload_package: bool = False  # to workers that lack it

    @property
    def sized(self) -> bool:
        """Whether a size is given, of a cluster to start."""
        return bool(self.workers or self.threads_per_worker or self.memory_limit)


@contextmanager
def connect_cluster(where: ClusterSpec, size: int) -> Iterator[None]:
    """The cluster that is asked for, or that Dask's configuration names, or one of our own.

    A small V needs no more processes than this one.

    Parameters
    ----------
    size : of V, in bytes.

    Raises
    ------
    ValueError
        If what is asked for does not go together, something to start with is missing, or the cluster cannot
        work with this process.
    MemoryError
        If no worker lives on the memory limit.
    NoWorkers
        If no scheduler answers, or no worker comes.
    """
    asked = config.read()
    if where.cluster and (where.scheduler or where.scheduler_file):
        raise ValueError("--cluster starts a cluster, and a scheduler is given; leave one of them out")
    address = where.scheduler or dask.config.get("scheduler-address", None)
    there = not where.cluster and bool(address or where.scheduler_file)
    if there and where.sized:
        raise ValueError(
            "--workers, --threads-per-worker and --memory-limit are of a cluster that is started, such as a "
            "local cluster, and a scheduler is given; leave one of them out"
        )
    kind = where.cluster or asked.cluster
    if kind is None and not there and not where.sized and size <= SMALL:
        yield
        return
    found = (
        existing_cluster(address, where.scheduler_file, asked.wait)
        if there
        else _start_kind(kind or "local", where, asked)
    )
    with found as client:
        if there or kind not in (None, "local"):
            wait_for_workers()
            versions.check(client, where.upload_package)
            _warn_if_open(client.scheduler.address)
        yield


def _start_kind(kind: str, where: ClusterSpec, asked: Configuration) -> AbstractContextManager[Client]:
    where = replace(where, workers=where.workers or asked.workers, memory_limit=_size(where.memory_limit))
    starts = {
        "local": lambda: local_cluster(where.workers, where.threads_per_worker, where.memory_limit),
        "ssh": lambda: ssh_cluster(where, asked),
        "slurm": lambda: slurm_cluster(where),
    }
    if kind not in starts:
        raise ValueError(f"dask_nmf.execution.partition is {kind!r}; it must be one of {', '.join(starts)}")
    return starts[kind]()


def _size(memory: int | str | None) -> int | None:
    """Return a memory limit in bytes, or refuse it.

    Raises
    ------
    ValueError, MemoryError
        If it is no size; if no worker lives on it.
    """
    if memory is None:
        return None
    try:
        size = int(parse_bytes(memory))
    except (ValueError, OverflowError):
        raise ValueError(f'memory limit {memory!r} is no size; write it as "600MB" or "2GiB"') from None
    row_panels.check_limit(size, "the memory limit of each worker (--memory-limit)")
    return size


def _warn_if_too_much(workers: int | None, memory_limit: int | None) -> None:
    """Say that workers may fill more than this machine has: the system then kills some of them."""
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


def _warn_if_open(address: str) -> None:
    """Dask without TLS executes code from anyone who can connect."""
    if address.startswith("tcp://") and not is_loopback(address):
        logger.warning(
            "the scheduler at %s is reached without TLS: whoever can connect to it or to a worker can run "
            "code there as you; see docs/clusters.md",
            address,
        )


@contextmanager
def local_cluster(
    workers: int | None, threads: int | None, memory_limit: int | str | None
) -> Iterator[Client]:
    """A cluster of processes on this machine, reachable from this machine only.

    Parameters
    ----------
    workers, threads : processes, and threads of each; by default as `LocalCluster` divides the cores.
    memory_limit : of each process, in bytes or as text (``"2GiB"``); by default its share of the machine.

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
                silence_logs=logging.CRITICAL,  # what fails is raised here
                dashboard_address="127.0.0.1:0",
            )
        stack.enter_context(cluster)
        yield stack.enter_context(Client(cluster))


@contextmanager
def _set_for_local() -> Iterator[None]:
    """Set what local workers need; restore the variables that their nannies then set in this process."""
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
_ssh_settings = SharedSetting(lambda: dask.config.set(TUNED))  # Dask sends them to the hosts


@contextmanager
def _reporting_failed_start() -> Iterator[None]:
    """Say why a worker did not start: an error of the operating system, as it was, or `NoWorkers`."""
    try:
        yield
    except RuntimeError as error:
        cause: BaseException | None = error
        while isinstance(cause, RuntimeError):
            cause = cause.__cause__
        if isinstance(cause, OSError) and cause.errno is not None:
            raise cause from error
        raise NoWorkers(f"a worker on this machine died as it started ({error}); run this again") from error


@contextmanager
def existing_cluster(address: str | None, scheduler_file: str | None, wait: float) -> Iterator[Client]:
    """A running cluster, by the address of its scheduler or by the file that the scheduler wrote.

    Parameters
    ----------
    wait : seconds for the file.

    Raises
    ------
    NoWorkers
        If there is no scheduler.
    ValueError
        If it is not to be reached with this configuration of TLS.
    """
    place = address or _address_in(str(scheduler_file), wait)
    try:
        asyncio.run(_handshake(place))
        with catch_warnings():
            filterwarnings("ignore", category=VersionMismatchWarning)  # `versions.check` says it in a line
            client = Client(place)
    except (CommClosedError, RuntimeError, TypeError) as error:  # it is there, and closes the door
        raise ValueError(
            f"cannot connect to {place}, for want of TLS or of a certificate that it trusts: {error}; "
            "see distributed.comm.tls in Dask's configuration"
        ) from error
    except (OSError, TimeoutError) as error:
        raise NoWorkers(f"no scheduler answers at {place}; start it and run this again") from error
    with client:
        yield client


async def _handshake(address: str) -> None:
    """Shake hands, in bounded time: a `Client` waits without end where the connection is taken in silence."""
    seconds = parse_timedelta(dask.config.get("distributed.comm.timeouts.connect"))
    greeting = connect(address, **Security().get_connection_args("client"))
    comm = await asyncio.wait_for(greeting, seconds)
    await comm.close()


def _address_in(file: str, wait: float) -> str:
    """Of a scheduler, from the file that it writes when it listens."""
    deadline = time.monotonic() + wait
    while True:
        try:
            return str(json.loads(Path(file).read_text())["address"])
        except (FileNotFoundError, ValueError, KeyError, TypeError) as error:  # not there, or not whole yet
            if time.monotonic() > deadline:
                raise NoWorkers(
                    f"no scheduler has written its address to {file} for {wait:g} s; "
                    "start it and run this again"
                ) from error
            time.sleep(POLL)


@contextmanager
def ssh_cluster(where: ClusterSpec, asked: Configuration) -> Iterator[Client]:
    """A scheduler on the first host of ``dask_nmf.ssh.hosts``, and workers on the others in turn.

    By default one on each. Raises as `connected` does.
    """
    _import_optional("asyncssh", "ssh")
    scheduler, *others = asked.ssh.get("hosts") or [None]
    if not others:
        raise ValueError(
            "dask_nmf.ssh.hosts in Dask's configuration must name the scheduler's host and at least one "
            "worker's (it may be the same)"
        )
    sizes = {"nthreads": where.threads_per_worker, "memory_limit": where.memory_limit}
    with (
        _ssh_settings.held(),
        _start_cluster(
            "ssh",
            lambda: SSHCluster(
                [scheduler, *islice(cycle(others), where.workers or len(others))],
                connect_options={"connect_timeout": asked.wait} | asked.ssh.get("connect_options", {}),
                worker_options=asked.ssh.get("worker_options", {}) | {k: v for k, v in sizes.items() if v},
                scheduler_options=asked.ssh.get("scheduler_options", {}),
                remote_python=asked.ssh.get("remote_python"),
            ),
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client


@contextmanager
def slurm_cluster(where: ClusterSpec) -> Iterator[Client]:
    """A scheduler in this process, and workers that are jobs of SLURM, as ``jobqueue.slurm`` says.

    A job that ends before the command does is submitted again. Raises as `connected` does.
    """
    if where.threads_per_worker or where.memory_limit:
        raise ValueError(
            "--threads-per-worker and --memory-limit are not of --cluster slurm; jobqueue.slurm in Dask's "
            "configuration has cores, processes and memory"
        )
    if where.workers is None:
        raise ValueError("--cluster slurm needs the number of workers; give --workers or dask_nmf.workers")
    if shutil.which("sbatch") is None:
        raise ValueError(
            "--cluster slurm needs sbatch, which is not found; run this where jobs are submitted"
        )
    handler = signal.getsignal(signal.SIGINT)
    jobqueue = _import_optional("dask_jobqueue", "slurm")
    signal.signal(signal.SIGINT, handler)  # its import takes Ctrl-C
    with _start_cluster("slurm", jobqueue.SLURMCluster) as cluster:
        _check_job(cluster.job_script())
        cluster.adapt(minimum=where.workers, maximum=where.workers)  # scale() would not replace a lost job
        with Client(cluster) as client:
            yield client


def _check_job(script: str) -> None:
    """Refuse, in a line, a job that SLURM does not take."""
    told = subprocess.run(
        ["sbatch", "--test-only"], input=script, capture_output=True, text=True, check=False
    )
    if told.returncode:
        raise ValueError(f"SLURM takes no such job: {told.stderr.strip()}; see jobqueue.slurm")


def _start_cluster(kind: str, start: Callable[[], Any]) -> Any:
    """A cluster of Dask's, started."""
    try:
        return start()
    except RuntimeError as error:
        cause = error.__cause__ or error
        text = f"the {kind} cluster did not start: {cause}"
        if isinstance(cause, OSError):
            raise NoWorkers(f"{text}; run this again when its hosts answer") from error
        raise ValueError(f"{text}; see what is set for it in Dask's configuration") from error


def _import_optional(module: str, extra: str) -> Any:
    """A module of an optional dependency.

    Raises
    ------
    ValueError
        If it is not installed; with the command that does it.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise ValueError(
            f"--cluster {extra} needs {module}, which is not installed: pip install 'dask_nmf[{extra}]'"
        ) from error
