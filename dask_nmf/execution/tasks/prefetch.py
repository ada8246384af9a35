"""Reading ahead: while a process works on panels, one more is being read."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from threading import Lock, Semaphore

import dask
from dask.system import CPU_COUNT
from distributed import secede

from dask_nmf.cluster.client import current_worker
from dask_nmf.process_settings import SharedSetting


class TaskSlots:
    """Of the tasks of one worker, or of this process: as many work as it has threads, and one may wait."""

    def __init__(self, threads: int) -> None:
        self.work = Semaphore(threads)
        self.spare = Semaphore(1)


_slots: dict[str, TaskSlots] = {}
_lock = Lock()


def _renew_after_fork() -> None:
    """Forget, in a forked process, the turns of threads that it does not have."""
    global _lock
    _slots.clear()
    _lock = Lock()


os.register_at_fork(after_in_child=_renew_after_fork)


def own_threads() -> int:
    """Return how many tasks run at once in this process, where there is no cluster."""
    pool = dask.config.get("pool", None)
    return int(getattr(pool, "_max_workers", None) or dask.config.get("num_workers", None) or CPU_COUNT)


@contextmanager
def _one_thread_added() -> Iterator[None]:
    threads = own_threads()
    with _lock:
        _slots[""] = TaskSlots(threads)
    with dask.config.set(num_workers=threads + 1):
        yield


_added_thread = SharedSetting(_one_thread_added)


def extra_reader_thread() -> AbstractContextManager[None]:
    """Give the tasks of this process one more thread, which reads; not where their pool is the caller's.

    Fits that run at the same time share it, and take turns with each other's panels.
    """
    return _added_thread.held()


@contextmanager
def compute_slot(on_cluster: bool) -> Iterator[None]:
    """Wait for one's turn to work on a panel that was read.

    A worker runs as many tasks as it has threads. One of those that work leaves its place to a task that can
    only read meanwhile, as it has to wait for its turn.

    Parameters
    ----------
    on_cluster : whether this is a task of a worker; not where a task of a worker fits in threads of its own.
    """
    worker = current_worker() if on_cluster else None
    address = "" if worker is None else worker.address
    with _lock:
        if address not in _slots:  # in a process of Dask's multiprocessing scheduler, or of a worker
            _slots[address] = TaskSlots(own_threads() if worker is None else worker.state.nthreads)
        turns = _slots[address]
    with turns.work:
        left = worker is not None and turns.spare.acquire(blocking=False)
        if left:
            secede()
        try:
            yield
        finally:
            if left:
                turns.spare.release()
