"""Passes over blocks in the memory of this process."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import reduce
from operator import add

from dask_nmf.execution.graphs import passes
from dask_nmf.execution.graphs.passes import PassSpec
from dask_nmf.execution.tasks import blas
from dask_nmf.kernels.least_squares import Sums
from dask_nmf.types import Array, Block


@contextmanager
def in_threads(rows: list[Block]) -> Iterator[Callable[[Array, PassSpec], Sums]]:
    """Passes over rows in this process's memory, in its threads; each begins at the W of the one before."""
    known: list[Array | None] = [None] * len(rows)

    def look(number: int, h: Array, weighing: PassSpec) -> Sums:
        known[number], sums = passes.process_block(rows[number], h, weighing, known[number])
        return sums

    with blas.one_blas_thread(), ThreadPoolExecutor(min(len(rows), os.cpu_count() or 1)) as pool:
        each = pool.map if len(rows) > 1 else map  # to hand a small block to a thread takes as long as a pass

        def sweep(h: Array, weighing: PassSpec) -> Sums:
            return reduce(add, each(lambda number: look(number, h, weighing), range(len(rows))))

        yield sweep
