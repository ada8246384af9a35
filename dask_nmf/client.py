"""The distributed client that is active, if any, and the word that its workers send."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from threading import Thread
from typing import Any, TypeVar

import dask
import dask.local
import dask.threaded
from dask.delayed import Delayed
from distributed import Client, Worker, get_worker
from distributed.client import FutureCancelledError
from distributed.comm import CommClosedError
from distributed.scheduler import KilledWorker

from dask_nmf import configuration, progress

PANELS_DONE = "dask-nmf-panels-done"  # topic of the events that `announce_panel` sends
LOOPBACK = ("inproc://", "tcp://127.", "tls://127.", "tcp://[::1]", "tls://[::1]")
WATCH = 5  # seconds between two looks at a cluster that computes

Value = TypeVar("Value")


class NoWorkers(TimeoutError):
    """The cluster has no worker, and none came in time."""


class WorkersLost(RuntimeError):
    """Workers died, again and again or while they were sent something."""


LOST = (FutureCancelledError, KilledWorker, WorkersLost, CommClosedError)  # what work ends with on a cluster


def active_client() -> Client | None:
    """The client that `dask.compute` would use now."""
    owner = getattr(dask.base.get_scheduler(), "__self__", None)
    return owner if isinstance(owner, Client) else None


def is_loopback(address: str) -> bool:
    """Whether a scheduler is on this machine, and reached from it only."""
    return address.startswith(LOOPBACK)


def shares_memory() -> bool:
    """Whether tasks run in this process, and see what it holds."""
    return dask.base.get_scheduler() in (None, dask.threaded.get, dask.local.get_sync)


def wait_for_workers() -> None:
    """Return when the active cluster, if any, has a worker.

    Raises
    ------
    NoWorkers
        If there is none for ``dask_nmf.wait`` seconds, or no scheduler.
    """
    client = active_client()
    if client is None:
        return
    address, seconds = client.scheduler.address, configuration.read().wait
    try:
        while not _has_workers(client, seconds):
            time.sleep(0.1)
    except TimeoutError as error:
        raise NoWorkers(
            f"the cluster at {address} had no worker for {seconds:g} s (dask_nmf.wait); "
            "start workers, or let their jobs start, and run this again"
        ) from error
    except OSError as error:
        raise NoWorkers(f"the scheduler at {address} was lost; start it and run this again") from error


def _has_workers(client: Client, seconds: float) -> bool:
    """Whether there is a worker, or comes one in time; False where the connection broke just now.

    The client itself then tries to come back to the scheduler, for a while, and closes if it cannot.
    """
    if client.status == "closed":
        raise OSError(f"{client} is closed")
    try:
        if not client.sync(client.scheduler.ncores, callback_timeout=seconds):
            client.wait_for_workers(1, timeout=seconds)
    except CommClosedError:
        return False
    return True


def watched(call: Callable[[], Value]) -> Value:
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
    while wait([value], WATCH).not_done:
        wait_for_workers()
    return value.result()


def computed(nodes: list[Delayed]) -> list[Any]:
    """Their values; a cluster is `watched` meanwhile."""
    client = active_client()
    if client is None or own_worker() is not None:
        return list(dask.compute(*nodes, traverse=False))
    futures = dask.compute(*nodes, traverse=False, sync=False)
    try:
        return list(watched(lambda: client.gather(futures)))
    except BaseException:
        if client.status == "running":
            client.cancel(futures)
        raise


def asked(function: Callable[..., Any], *given: Any, on_error: str) -> dict[str, Any]:
    """What a function gives on each worker, by its address; ``on_error``: see `Client.run`."""
    client = active_client()
    if client is None:
        return {}
    answers: dict[str, Any] = watched(lambda: client.run(function, *given, on_error=on_error))
    return answers


def why_lost(error: BaseException) -> str:
    """What became of the work, as one of `LOST` tells."""
    if isinstance(error, KilledWorker):
        return (
            f"{error.allowed_failures + 1} workers died in a row over the same panel; if their logs say that "
            "it was for want of memory, give them more, or a smaller --memory-limit for smaller panels"
        )
    if isinstance(error, WorkersLost):
        return str(error)
    return "the connection to the scheduler broke"


def dealt(count: int, threads: dict[str, int]) -> list[str]:
    """The workers of so many neighbours: to each a run of them, by its threads.

    Their sums are then added up where they are, and few cross the network.
    """
    places = [address for address in sorted(threads) for _ in range(threads[address])]
    return [places[number * len(places) // count] for number in range(count)]


def own_worker() -> Worker | None:
    """That of the task that asks; None in the threads of this process."""
    try:
        return get_worker()
    except ValueError:
        return None


def announce_panel() -> None:
    """Say, from inside a task, that a panel is done."""
    worker = own_worker()
    if worker is None:
        progress.panel()
    else:
        worker.log_event(PANELS_DONE, 1)
