"""BLAS at one thread, as tasks of a pass run beside each other."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from functools import cache
from typing import Any

import scipy.linalg  # noqa: F401  SciPy brings a BLAS of its own: it must be there to be pinned
from threadpoolctl import ThreadpoolController

from dask_nmf.process_settings import SharedSetting


@cache
def _controller() -> ThreadpoolController:
    return ThreadpoolController()


@contextmanager
def _limited_blas() -> Iterator[None]:
    """Hold OpenBLAS at one thread, whichever thread undoes it.

    Threadpoolctl obeys one thread of a process until that ends, and ignores the others. So the threads that
    set the number and restore it end at once.
    """
    if _has_one_thread():  # as a rule where Dask started the process
        yield
        return
    with ThreadPoolExecutor(1) as setter:
        limiter = setter.submit(_limit_blas).result()
    try:
        yield
    finally:
        with ThreadPoolExecutor(1) as setter:
            setter.submit(limiter.restore_original_limits).result()


def _limit_blas() -> Any:
    return _controller().limit(limits=1, user_api="blas")


_blas = SharedSetting(_limited_blas)


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Hold BLAS at one thread in this process, for all fits and tasks of it that are in work."""
    with _blas.held(), nullcontext() if _has_one_thread() else _limit_blas():  # where each thread has its own
        yield


def _has_one_thread() -> bool:
    return all(pool["num_threads"] == 1 for pool in _controller().info() if pool["user_api"] == "blas")
