"""A limit of one BLAS thread, because the tasks of a pass run in parallel."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from functools import cache
from typing import Any

import scipy.linalg  # noqa: F401  SciPy has a BLAS of its own, which must be loaded to be limited
from threadpoolctl import ThreadpoolController

from dask_nmf.process_settings import SharedSetting


@cache
def _controller() -> ThreadpoolController:
    return ThreadpoolController()


@contextmanager
def _limited_blas() -> Iterator[None]:
    """Limit OpenBLAS to one thread; any thread may leave this context.

    Threadpoolctl obeys one thread of a process until that thread ends, and ignores the others. The threads
    that set and restore the limit therefore end at once.
    """
    if _has_one_thread():  # usual in a process that Dask started
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
    """Limit BLAS to one thread in this process while any of its fits or tasks is in this context."""
    with _blas.held(), nullcontext() if _has_one_thread() else _limit_blas():  # where each thread has a limit
        yield


def _has_one_thread() -> bool:
    return all(pool["num_threads"] == 1 for pool in _controller().info() if pool["user_api"] == "blas")
