"""Prefetch: while a process computes with panels, one more panel is read."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from threading import Lock, Semaphore

import dask
from distributed import secede

from dask_nmf.cluster.client import current_worker
from dask_nmf.process_settings import CPU_COUNT, SharedSetting


class TaskSlots:
    """Compute slots of a worker or of this process, one a thread; ``spare`` is for one task that secedes."""

    def __init__(self, threads: int) -> None:
        self.work = Semaphore(threads)
        self.spare = Semaphore(1)


_slots: dict[str, TaskSlots] = {}
_lock = Lock()


def _renew_after_fork() -> None:
    """Reset the slots in a forked process, because the threads that hold them do not exist there."""
    global _lock
    _slots.clear()
    _lock = Lock()


os.register_at_fork(after_in_child=_renew_after_fork)


def own_threads() -> int:
    """Return how many tasks run at once in this process when there is no cluster."""
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
    """Return a context in which Dask has one more thread in this process, so that a panel can be prefetched.

    A pool that the caller has configured keeps its size. Fits that run at the same time share the thread
    and the compute slots.
    """
    return _added_thread.held()


@contextmanager
def compute_slot(on_cluster: bool) -> Iterator[None]:
    """Hold a compute slot while the body works on a panel that was read; wait for one if all are taken.

    A worker runs as many tasks as it has threads. One task that has a slot therefore leaves its thread
    (`secede`), so that one more task can read its panel and then wait for a slot.

    Parameters
    ----------
    on_cluster : whether a worker runs this task; False in a fit that a task of a worker computes by threads.
    """
    worker = current_worker() if on_cluster else None
    address = "" if worker is None else worker.address
    with _lock:
        if address not in _slots:  # a worker, or a process of Dask's multiprocessing scheduler
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
