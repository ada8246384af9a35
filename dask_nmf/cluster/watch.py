"""Watched calls of the active cluster: they raise an error if all workers, or the scheduler, are lost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from threading import Thread
from typing import Any, TypeVar
from uuid import uuid4

import dask
import dask.local
import dask.threaded
from dask.delayed import Delayed
from distributed import Client
from distributed.client import FutureCancelledError
from distributed.comm import CommClosedError
from distributed.scheduler import KilledWorker

from dask_nmf.cluster import config
from dask_nmf.cluster.client import active_client, current_worker
from dask_nmf.errors import NoWorkers, WorkersLost
from dask_nmf.wording import counted

ENDED_FOR_MEMORY = "worker-restart-memory"  # topic of events: a nanny ended its worker for its memory
WATCH_INTERVAL = 5  # seconds between two checks of a cluster that computes

Value = TypeVar("Value")

# Errors that computations on a cluster end with if workers are lost.
WORKER_LOSS = (FutureCancelledError, KilledWorker, WorkersLost, CommClosedError)


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
    """Return a text on workers that their nannies ended because of their memory; "" if there are none."""
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
    """Return whether there is a worker or one comes in time; False if the connection has just been lost.

    The client itself then tries to reconnect to the scheduler for a while, and closes if it cannot.
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
    """Give the scheduler a task meanwhile, because an adaptive cluster starts workers only for tasks."""
    task = client.submit(int, key=f"dask-nmf-needs-a-worker-{uuid4().hex}")
    try:
        yield
    finally:
        task.release()


def call_watched(call: Callable[[], Value]) -> Value:
    """Return the value of a blocking call of the active client, which might otherwise wait forever.

    The call runs in a thread. Every `WATCH_INTERVAL` seconds the scheduler and the workers are checked.

    Raises
    ------
    NoWorkers
        As `wait_for_workers` does; errors of the call itself are passed on.
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
    """Return the values of some nodes; a cluster is watched meanwhile (see `call_watched`)."""
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


def run_on_workers(function: Callable[..., Any], *args: Any, on_error: str) -> dict[str, Any]:
    """Return what a function returns on each worker, by the worker's address; ``on_error``: see `Client.run`.

    The function runs in a thread beside the tasks. On the worker's event loop, where Dask would call it, a
    slow read would keep the worker from answering; as a task it would wait for the tasks before it.
    """
    client = active_client()
    if client is None:
        return {}
    answers: dict[str, Any] = call_watched(
        lambda: client.run(_in_a_thread, function, *args, on_error=on_error)
    )
    return answers


async def _in_a_thread(function: Callable[..., Any], *args: Any) -> Any:
    return await asyncio.to_thread(function, *args)


def run_on_live_workers(function: Callable[..., Any], *args: Any) -> dict[str, Any]:
    """Return what a function returns or raises on each worker that is alive afterwards, at least one."""
    client = active_client()
    if client is None:
        return {}
    while True:
        wait_for_workers()
        answers = run_on_workers(function, *args, on_error="return")
        threads = call_watched(client.nthreads)
        alive = {a: v for a, v in answers.items() if a in threads and not isinstance(v, CommClosedError)}
        if alive:
            return alive


def explain_loss(error: BaseException) -> str:
    """Return the reason of a `WORKER_LOSS` error as a text."""
    if isinstance(error, KilledWorker):
        return (
            f"{counted(error.allowed_failures + 1, 'worker')} died in a row over the same panel; "
            "if their logs say that it was for want of memory, give them more, or a smaller --memory-limit "
            "for smaller panels"
        )
    if isinstance(error, WorkersLost):
        return str(error)
    return "the connection to the scheduler broke"
