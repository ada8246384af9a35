"""Reading ahead: while a process works on panels, one more is being read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock, Semaphore

import dask
from dask.system import CPU_COUNT
from distributed import secede

from dask_nmf.client import own_worker


class Turns:
    """Of the tasks of one worker, or of this process: as many work as it has threads, and one may wait."""

    def __init__(self, threads: int) -> None:
        self.work = Semaphore(threads)
        self.spare = Semaphore(1)


_turns: dict[str, Turns] = {}
_lock = Lock()


def own_threads() -> int:
    """Of this process, where there is no cluster."""
    return int(dask.config.get("num_workers", None) or CPU_COUNT)


@contextmanager
def one_thread_more() -> Iterator[None]:
    """For the tasks of this process: the one that reads."""
    threads = own_threads()
    with _lock:
        _turns[""] = Turns(threads)
    with dask.config.set(num_workers=threads + 1):
        yield


@contextmanager
def working() -> Iterator[None]:
    """Around what a task does with a panel that it has read.

    A worker runs as many tasks as it has threads. One of those that work leaves its place to a task that can
    only read meanwhile, as it has to wait for its turn.
    """
    worker = own_worker()
    with _lock:
        if worker is not None and worker.address not in _turns:
            _turns[worker.address] = Turns(worker.state.nthreads)
        turns = _turns["" if worker is None else worker.address]
    with turns.work:
        left = worker is not None and turns.spare.acquire(blocking=False)
        if left:
            secede()
        try:
            yield
        finally:
            if left:
                turns.spare.release()
