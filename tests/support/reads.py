"""A matrix that counts how often it is read."""

import threading
from collections import Counter
from typing import Any

from support.matrices import Array, low_rank

from dask_nmf.planning.worker_memory import Layout
from dask_nmf.sources.matrix import Matrix
from dask_nmf.sources.reader import ReaderDefaults
from dask_nmf.types import Orientation

V = low_rank(60, 12, 3, noise=1)

EDGES = (0, 7, 20, 33, 40, 55, 60)

READS: Counter[tuple[int, int]] = Counter()

LOCK = threading.Lock()


class CountingReader(ReaderDefaults):
    """A reader of V that counts in `READS` how often each slice of rows was read."""

    shape, dtype = V.shape, V.dtype

    def __getitem__(self, index: tuple[slice, slice]) -> Array:
        with LOCK:
            READS[index[0].start, index[0].stop] += 1
        return V[index]


def counted_matrix() -> Matrix:
    """Return a matrix over V whose reads are counted from now on."""
    READS.clear()
    return Matrix(V.shape, V.dtype, "here", Orientation.ROWS, Layout(*V.shape, 8), CountingReader())


def no_scheduler(*_: Any, **__: Any) -> None:
    """Fail if Dask computes something."""
    raise AssertionError("something computes")
