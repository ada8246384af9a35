"""A limit of one BLAS thread, because the tasks of a pass run in parallel."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import cache
from typing import Any

import scipy.linalg  # noqa: F401  SciPy has a BLAS of its own, which must be loaded to be limited
from threadpoolctl import LibController, ThreadpoolController

from dask_nmf.process_settings import SharedSetting


@cache
def _libraries() -> ThreadpoolController:
    return ThreadpoolController().select(user_api="blas")


@contextmanager
def _limited_blas() -> Iterator[None]:
    """Limit the libraries whose limit is that of the process; any thread may leave this context."""
    before = [
        (library, library.num_threads)
        for library in _libraries().lib_controllers
        if not (library.internal_api == "openblas" and library.threading_layer == "openmp")
    ]
    try:
        _set_threads([(library, 1) for library, _ in before])
        yield
    finally:  # a limit other than 1 is that of somebody else, who set it meanwhile
        _set_threads([(library, threads) for library, threads in before if library.num_threads == 1])


def _set_threads(limits: list[tuple[LibController, int]]) -> None:
    """Set the number of threads of each library.

    Threadpoolctl lets only one thread set the limit of OpenBLAS, until that thread leaves the context of a
    limiter. This thread leaves one at once, so that any other may restore the limit.
    """
    for library, threads in limits:
        library.set_num_threads(threads)
    with _libraries().limit(limits=None):
        pass


def _limit_blas() -> Any:
    return _libraries().limit(limits=1, user_api="blas")


_blas = SharedSetting(_limited_blas)


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Limit BLAS to one thread in this process while any of its fits or tasks is in this context."""
    with _blas.held(), nullcontext() if _has_one_thread() else _limit_blas():  # where each thread has a limit
        yield


def _has_one_thread() -> bool:
    return all(library.num_threads == 1 for library in _libraries().lib_controllers)
