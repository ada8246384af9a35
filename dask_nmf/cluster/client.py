"""Where tasks run: on the active distributed client or in this process; and the word that workers send."""

from __future__ import annotations

import asyncio
import multiprocessing.pool
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import partial
from threading import Thread
from typing import Any, TypeVar
from uuid import uuid4
from weakref import WeakSet

import dask
import dask.array as da
import dask.local
import dask.threaded
from dask.delayed import Delayed
from dask.highlevelgraph import HighLevelGraph, MaterializedLayer
from distributed import Client, Worker, get_worker
from distributed import Future as RemoteFuture
from distributed.client import FutureCancelledError
from distributed.comm import CommClosedError
from distributed.scheduler import KilledWorker

from dask_nmf import progress
from dask_nmf.cluster import config
from dask_nmf.errors import ClusterLost, NoWorkers, WorkersLost

PANELS_DONE = "dask-nmf-panels-done"  # topic of the events that `announce_panel` sends
LOOPBACK = ("inproc://", "tcp://127.", "tls://127.", "tcp://[::1]", "tls://[::1]")
ENDED_FOR_MEMORY = "worker-restart-memory"  # topic of the events of nannies that end their workers
WATCH_INTERVAL = 5  # seconds between two looks at a cluster that computes

Value = TypeVar("Value")


WORKER_LOSS = (
    FutureCancelledError,
    KilledWorker,
    WorkersLost,
    CommClosedError,
)  # what work ends with on a cluster


_inherited: WeakSet[Client] = WeakSet()  # of the process that this one was forked from


def _renew_after_fork() -> None:
    """Let go, in a forked process, of what needs threads: only the one that forks goes on there."""
    dask.threaded.default_pool = None
    dask.threaded.pools.clear()
    dask.threaded.pools_lock = threading.Lock()
    dask.threaded.main_thread = threading.current_thread()
    _inherited.update(Client._instances)


os.register_at_fork(after_in_child=_renew_after_fork)


def active_client() -> Client | None:
    """Return the client that `dask.compute` would use now, if any.

    Raises
    ------
    ValueError
        If there is one that cannot be waited for: it is asynchronous, or belongs to the process that this one
        was forked from.
    """
    owner = getattr(_scheduler(), "__self__", None)
    if not isinstance(owner, Client):
        return None
    if owner in _inherited:
        raise ValueError(
            f"the active client, {owner}, belongs to the process that this one was forked from; start "
            "processes with multiprocessing.get_context('spawn'), or set Dask's scheduler to 'threads' here"
        )
    return owner


def _scheduler() -> Any:
    """Return the function that `dask.compute` would call now; None: that of the collection."""
    try:
        return dask.base.get_scheduler()
    except RuntimeError as error:
        try:
            client = Client.current()
        except ValueError:
            raise ValueError(
                "Dask's scheduler is set to 'distributed' and no client is connected; connect a Client, or "
                "set the scheduler to 'threads' (dask.config.set)"
            ) from error
        raise ValueError(
            f"the active client, {client}, is asynchronous, and this call waits for its answers; in a "
            "coroutine call it in a thread (await asyncio.to_thread(nmf, V, 5)), else leave asynchronous out"
        ) from error


def is_loopback(address: str) -> bool:
    """Whether a scheduler is reached through this machine's loopback interface.

    Its workers may be anywhere: it may be at the other end of a tunnel.
    """
    return address.startswith(LOOPBACK)


def shares_memory() -> bool:
    """Whether tasks run in this process, and see what it holds."""
    get = _scheduler()
    if get in (None, dask.threaded.get):
        return _has_threads(dask.config.get("pool", None))
    if isinstance(get, partial) and get.func is dask.local.get_async:  # the scheduler is set to an Executor
        return _has_threads(getattr(get.args[0], "__self__", get))
    return get is dask.local.get_sync


def _has_threads(pool: Any) -> bool:
    """Whether the workers of a pool are threads, as those of Dask's own are."""
    return pool is None or isinstance(pool, ThreadPoolExecutor | multiprocessing.pool.ThreadPool)


def wait_for_workers() -> None:
    """Return when the active cluster, if any, has a worker.

    Raises
    ------
    NoWorkers
        If there is none for ``dask_nmf.wait`` seconds, or no scheduler, or the client is closed.
    """
    client = active_client()
    if client is None:
        return
    if client.scheduler is None:
        raise NoWorkers("the active client is closed; connect a new Client and run this again")
    address, seconds = client.scheduler.address, config.read().wait
    try:
        while not _has_workers(client, seconds):
            time.sleep(0.1)
    except TimeoutError as error:
        raise NoWorkers(
            f"the cluster at {address} had no worker for {seconds:g} s (dask_nmf.wait); "
            f"{_explain_no_workers(client)}start workers, or let their jobs start, and run this again"
        ) from error
    except OSError as error:
        raise NoWorkers(f"the scheduler at {address} was lost; start it and run this again") from error


def _explain_no_workers(client: Client) -> str:
    """Return what the scheduler was told of workers that ended: their nannies end them for their memory."""
    try:
        events = client.sync(client.scheduler.events, topic=ENDED_FOR_MEMORY, callback_timeout=WATCH_INTERVAL)
    except (OSError, TimeoutError):
        return ""
    if not events:
        return ""
    taken = max(event["rss"] for _, event in events)
    return (
        f"{len(events)} were ended as they took more than their memory limit allows, the largest "
        f"{taken / 2**20:.0f} MiB; give each a larger limit (dask worker --memory-limit); "
    )


def _has_workers(client: Client, seconds: float) -> bool:
    """Whether there is a worker, or comes one in time; False where the connection broke just now.

    The client itself then tries to come back to the scheduler, for a while, and closes if it cannot.
    """
    if client.status == "closed":
        raise OSError(f"{client} is closed")
    try:
        if not client.sync(client.scheduler.ncores, callback_timeout=seconds):
            with _requesting_worker(client):
                client.wait_for_workers(1, timeout=seconds)
    except CommClosedError:
        return False
    return True


@contextmanager
def _requesting_worker(client: Client) -> Iterator[None]:
    """Give the scheduler a task meanwhile: an adaptive cluster starts workers for tasks alone."""
    task = client.submit(int, key=f"dask-nmf-needs-a-worker-{uuid4().hex}")
    try:
        yield
    finally:
        task.release()


def call_watched(call: Callable[[], Value]) -> Value:
    """What a call of the active client gives, which by itself may wait for ever: for workers, or a scheduler.

    Raises
    ------
    NoWorkers
        As `wait_for_workers`; and what the call raises.
    """
    value: Future[Value] = Future()

    def work() -> None:
        try:
            value.set_result(call())
        except BaseException as error:
            value.set_exception(error)

    Thread(target=work, daemon=True).start()  # an abandoned call must not keep the process
    while wait([value], WATCH_INTERVAL).not_done:
        wait_for_workers()
    return value.result()


def compute_watched(nodes: list[Delayed]) -> list[Any]:
    """Their values; a cluster is `watched` meanwhile."""
    client = active_client()
    if client is None or current_worker() is not None:
        return list(dask.compute(*nodes, traverse=False))
    futures = dask.compute(*nodes, traverse=False, sync=False)
    try:
        return list(call_watched(lambda: client.gather(futures)))
    except BaseException:
        if client.status == "running":
            client.cancel(futures)
        raise


class PersistedLayer(MaterializedLayer):  # type: ignore[misc]
    """Blocks in the memory of a cluster, as a part of graphs.

    Once its client is closed they become tasks that say so; Dask only says that a dependency is missing.
    """

    def __init__(self, futures: Any, client: Client) -> None:
        self.client = client
        self.address = client.scheduler.address
        super().__init__(futures)

    @property
    def mapping(self) -> Any:
        """Futures by their keys."""
        if self.client.status in ("closing", "closed"):
            return dict.fromkeys(self._futures, (_refuse_lost_block, self.address))
        return self._futures

    @mapping.setter
    def mapping(self, futures: Any) -> None:
        self._futures = futures

    def __reduce__(self) -> Any:
        """As a layer of Dask's own: the scheduler may lack this package."""
        return MaterializedLayer, (self.mapping, self.annotations, self.collection_annotations)


def _refuse_lost_block(address: str) -> None:
    raise ClusterLost(
        f"the blocks of this array were in the memory of the cluster at {address}, and its client is closed; "
        "compute the array before that, or keep W and H in a run (store=...)"
    )


def guard_persisted(array: da.Array) -> da.Array:
    """Return an array that was persisted, with its futures as `Held`; without a cluster, as it is."""
    client = active_client()
    if client is None:
        return array
    layers = dict(array.dask.layers)
    for name, layer in layers.items():
        if all(isinstance(part, RemoteFuture) for part in layer.values()):
            layers[name] = PersistedLayer(dict(layer), client)
    graph = HighLevelGraph(layers, array.dask.dependencies)
    return da.Array(graph, array.name, array.chunks, meta=array._meta)


def run_on_workers(function: Callable[..., Any], *given: Any, on_error: str) -> dict[str, Any]:
    """What a function gives on each worker, by its address; ``on_error``: see `Client.run`.

    It runs in a thread beside the tasks. On the worker's event loop, where Dask would call it, a slow read
    would keep the worker from answering anybody; as a task it would wait for those that are there.
    """
    client = active_client()
    if client is None:
        return {}
    answers: dict[str, Any] = call_watched(
        lambda: client.run(_in_a_thread, function, *given, on_error=on_error)
    )
    return answers


async def _in_a_thread(function: Callable[..., Any], *given: Any) -> Any:
    return await asyncio.to_thread(function, *given)


def run_on_live_workers(function: Callable[..., Any], *given: Any) -> dict[str, Any]:
    """What a function gives, or raises, on each worker that is still there then, of which there is one."""
    client = active_client()
    if client is None:
        return {}
    while True:
        wait_for_workers()
        answers = run_on_workers(function, *given, on_error="return")
        there = call_watched(client.nthreads)
        alive = {a: v for a, v in answers.items() if a in there and not isinstance(v, CommClosedError)}
        if alive:
            return alive


def explain_loss(error: BaseException) -> str:
    """What became of the work, as one of `LOST` tells."""
    if isinstance(error, KilledWorker):
        return (
            f"{error.allowed_failures + 1} workers died in a row over the same panel; if their logs say that "
            "it was for want of memory, give them more, or a smaller --memory-limit for smaller panels"
        )
    if isinstance(error, WorkersLost):
        return str(error)
    return "the connection to the scheduler broke"


def assign_contiguous(count: int, threads: dict[str, int]) -> list[str]:
    """The workers of so many neighbours: to each a run of them, by its threads.

    Their sums are then added up where they are, and few cross the network.

    Raises
    ------
    WorkersLost
        If there is none.
    """
    if not threads:
        raise WorkersLost("the last worker left")
    places = [address for address in sorted(threads) for _ in range(threads[address])]
    return [places[number * len(places) // count] for number in range(count)]


def current_worker() -> Worker | None:
    """That of the task that asks; None in the threads of this process."""
    try:
        return get_worker()
    except ValueError:
        return None


def announce_panel() -> None:
    """Say, from inside a task, that a panel is done."""
    worker = current_worker()
    if worker is None:
        progress.report_panel()
    else:
        worker.log_event(PANELS_DONE, 1)
