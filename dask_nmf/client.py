"""The distributed client that is active, if any, and the word that its workers send."""

from __future__ import annotations

import dask
import dask.local
import dask.threaded
from distributed import Client, Worker, get_worker

from dask_nmf import configuration

PANELS_DONE = "dask-nmf-panels-done"  # topic of the events that `announce_panel` sends
LOOPBACK = ("inproc://", "tcp://127.", "tls://127.", "tcp://[::1]", "tls://[::1]")


class NoWorkers(TimeoutError):
    """The cluster has no worker, and none came in time."""


class WorkersLost(RuntimeError):
    """A worker died while it was sent something."""


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
        If there is none for ``dask_nmf.wait`` seconds.
    """
    client = active_client()
    if client is None or client.nthreads():
        return
    seconds = configuration.read().wait
    try:
        client.wait_for_workers(1, timeout=seconds)
    except TimeoutError as error:
        raise NoWorkers(
            f"the cluster at {client.scheduler.address} had no worker for {seconds:g} s (dask_nmf.wait); "
            "start workers, or let their jobs start, and run this again"
        ) from error


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
    if worker is not None:
        worker.log_event(PANELS_DONE, 1)
