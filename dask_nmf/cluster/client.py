"""The active Dask client, if any: where tasks run, which worker runs one, and events that workers send."""

from __future__ import annotations

import multiprocessing.pool
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any
from weakref import WeakSet

import dask
import dask.local
import dask.threaded
from dask.highlevelgraph import MaterializedLayer
from distributed import Client, Worker, get_worker

from dask_nmf import progress
from dask_nmf.errors import ClusterLost, WorkersLost

PANELS_DONE = "dask-nmf-panels-done"  # topic of the events that `announce_panel` sends
LOOPBACK = ("inproc://", "tcp://127.", "tls://127.", "tcp://[::1]", "tls://[::1]")


_inherited: WeakSet[Client] = WeakSet()  # clients of the process that this one was forked from


def _renew_after_fork() -> None:
    """Reset what needs threads in a forked process, in which only the forking thread goes on."""
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
        If there is a client that cannot be waited for, because it is asynchronous or belongs to the process
        that this one was forked from.
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
    """Return the function that `dask.compute` would call now; None stands for the one of the collection."""
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
    """Return whether a scheduler is reached through this machine's loopback interface.

    Its workers may still be anywhere, because the scheduler may be at the other end of a tunnel.
    """
    return address.startswith(LOOPBACK)


def shares_memory() -> bool:
    """Return whether tasks run in this process and share its memory."""
    get = _scheduler()
    if get in (None, dask.threaded.get):
        return _has_threads(dask.config.get("pool", None))
    if isinstance(get, partial) and get.func is dask.local.get_async:  # the scheduler is set to an Executor
        return _has_threads(getattr(get.args[0], "__self__", get))
    return get is dask.local.get_sync


def _has_threads(pool: Any) -> bool:
    """Return whether the workers of a pool are threads, as those of Dask's own pool are."""
    return pool is None or isinstance(pool, ThreadPoolExecutor | multiprocessing.pool.ThreadPool)


class PersistedLayer(MaterializedLayer):  # type: ignore[misc]
    """A graph layer of blocks that are in the memory of a cluster.

    Once its client is closed, the blocks become tasks that raise `ClusterLost`. Dask itself would only say
    that a dependency is missing.
    """

    def __init__(self, futures: Any, client: Client) -> None:
        self.client = client
        self.address = client.scheduler.address
        super().__init__(futures)

    @property
    def mapping(self) -> Any:
        """The futures by their keys."""
        if self.client.status in ("closing", "closed"):
            return dict.fromkeys(self._futures, (_refuse_lost_block, self.address))
        return self._futures

    @mapping.setter
    def mapping(self, futures: Any) -> None:
        self._futures = futures

    def __reduce__(self) -> Any:
        """Pickle it as a layer of Dask's own, because the scheduler may lack this package."""
        return MaterializedLayer, (self.mapping, self.annotations, self.collection_annotations)


def _refuse_lost_block(address: str) -> None:
    raise ClusterLost(
        f"the blocks of this array were in the memory of the cluster at {address}, and its client is closed; "
        "compute the array before that, or keep W and H in a run (store=...)"
    )


def assign_contiguous(count: int, threads: dict[str, int]) -> list[str]:
    """Assign ``count`` consecutive panels to workers in contiguous runs, in proportion to their threads.

    Partial sums of neighbours are then added on one worker, and few cross the network.

    Parameters
    ----------
    threads : the number of threads of each worker, by its address

    Returns
    -------
    The address of the worker of each panel.

    Raises
    ------
    WorkersLost
        If there is no worker.
    """
    if not threads:
        raise WorkersLost("the last worker left")
    slots = [address for address in sorted(threads) for _ in range(threads[address])]
    return [slots[number * len(slots) // count] for number in range(count)]


def current_worker() -> Worker | None:
    """Return the worker that runs the calling task; None in the threads of this process."""
    try:
        return get_worker()
    except ValueError:
        return None


def announce_panel() -> None:
    """Report, from inside a task, that a panel is done."""
    worker = current_worker()
    if worker is None:
        progress.report_panel()
    else:
        worker.log_event(PANELS_DONE, 1)
