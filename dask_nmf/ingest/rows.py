"""`RowSource`: V as a stream of batches of rows, which every kind of file becomes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import ContextVar
from threading import Event
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np

from dask_nmf.errors import DataError
from dask_nmf.types import Array, Block, T
from dask_nmf.wording import counted

THREADS = 16  # of `map_ahead` by default: files may be far away
S = TypeVar("S")
BATCH = 2**26  # bytes of a batch, about: what is in memory at once is some of them
UNWANTED: ContextVar[Event | None] = ContextVar("UNWANTED", default=None)  # in a thread of `read_ahead`


class Batch(NamedTuple):
    """Some rows of V.

    Attributes
    ----------
    block : NumPy or CSR array, (rows, n)
    names : of the rows, if they have any
    position : what JSON can hold and `RowSource.batches` takes, to go on after these rows; None if it cannot
    """

    block: Block
    names: Sequence[str] | Array | None = None
    position: Any = None


class Columns(NamedTuple):
    """The number of columns of V, and their names if they have any."""

    number: int
    names: Sequence[str] | None = None


class RowSource(Protocol):
    """V in a file, or in several, which is read once, from the first row to the last."""

    @property
    def sparse(self) -> bool:
        """Return whether batches are CSR arrays."""

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """Return the dtype of the batches."""

    def batches(self, begin: Any = None) -> Iterator[Batch]:
        """Yield the rows of V in order; call `check_wanted` between batches that are read without a yield.

        Parameters
        ----------
        begin : the position of a batch, to yield the rows after it; None for all rows
        """

    def columns(self) -> Columns:
        """Return the columns, which are known once the first batch was read, or the end was reached."""


class Stacked:
    """The rows of several sources, one after the other."""

    def __init__(self, sources: Sequence[RowSource], places: Sequence[str]) -> None:
        self._sources = sources
        self._places = places
        self.sparse = sources[0].sparse
        self.dtype = np.result_type(*(source.dtype for source in sources))

    def columns(self) -> Columns:
        """Return the columns, which are those of each source."""
        return self._sources[0].columns()

    def batches(self, begin: Any = None) -> Iterator[Batch]:
        """Yield the rows of V in order.

        Raises
        ------
        DataError
            If the columns of a source differ from those of the first one.
        """
        done, within = begin or (0, None)
        for number in range(done, len(self._sources)):
            source, place = self._sources[number], self._places[number]
            if source.sparse != self.sparse:
                raise DataError(f"{place} and {self._places[0]} are not both sparse; convert them one by one")
            checked = False
            for block, names, inner in source.batches(within):
                if not checked:
                    self._check_columns(source.columns(), place)
                    checked = True
                position = None if inner is None else (number, inner)
                yield Batch(block.astype(self.dtype, copy=False), names, position)
            within = None

    def _check_columns(self, columns: Columns, place: str) -> None:
        first = self.columns()
        if columns.number != first.number:
            raise DataError(
                f"{place} has {counted(columns.number, 'column')}, and {self._places[0]} has {first.number}; "
                "files that are stacked must have the same columns"
            )
        if (columns.names is None) != (first.names is None) or list(columns.names or []) != list(
            first.names or []
        ):
            raise DataError(
                f"{place} and {self._places[0]} name their columns differently; bring them into one order"
            )


class Named:
    """A source with names of its rows and columns, in lists or arrays; None for those that the source has."""

    def __init__(self, source: RowSource, rows: Any, columns: Any) -> None:
        self._source, self._rows, self._columns = source, rows, columns
        self.sparse, self.dtype = source.sparse, source.dtype

    def columns(self) -> Columns:
        """Return the columns of V."""
        number, own = self._source.columns()
        names = own if self._columns is None else list(self._columns[:])
        if names is not None and len(names) != number:
            raise DataError(
                f"V has {counted(number, 'column')} and {counted(len(names), 'name')} of columns; "
                "write it anew"
            )
        return Columns(number, names)

    def batches(self, begin: Any = None) -> Iterator[Batch]:
        """Yield the rows of V in order.

        Raises
        ------
        DataError
            If there are fewer names than rows.
        """
        first, within = begin or (0, None)
        for block, own, inner in self._source.batches(within):
            last = first + block.shape[0]
            names = own if self._rows is None else self._rows[first:last]
            if names is not None and len(names) != block.shape[0]:
                raise DataError(
                    f"V has more rows than its {counted(first + len(names), 'name')} of rows; write it anew"
                )
            yield Batch(block, names, None if inner is None else (last, inner))
            first = last


class Unwanted(Exception):
    """Raised where batches are read that nobody waits for any more."""


def check_wanted() -> None:
    """Raise `Unwanted` in a thread of `read_ahead` whose items nobody waits for any more."""
    unwanted = UNWANTED.get()
    if unwanted is not None and unwanted.is_set():
        raise Unwanted


def map_ahead(
    function: Callable[[S], T], items: Iterable[S], size: Callable[[S], int], threads: int = THREADS
) -> Generator[T, None, None]:
    """Yield a function of each item, in order; threads compute it for some of the items that follow.

    When this generator ends early, it waits for the items that threads compute at that time.

    Parameters
    ----------
    size : of the value for an item, in bytes, about; values that wait have `BATCH` bytes together, or are one
    """
    pool = ThreadPoolExecutor(threads)
    waiting: deque[tuple[Future[T], int]] = deque()
    held = 0
    try:
        for item in items:
            more = size(item)
            while waiting and (held + more > BATCH or len(waiting) >= 4 * threads):
                check_wanted()
                value, less = waiting.popleft()
                held -= less
                yield value.result()
            waiting.append((pool.submit(function, item), more))
            held += more
        while waiting:
            check_wanted()
            yield waiting.popleft()[0].result()
    finally:
        pool.shutdown(cancel_futures=True)


def read_ahead(items: Iterator[T], ahead: int = 1) -> Generator[T, None, None]:
    """Yield items, of which the next one, or the next few, are made in another thread meanwhile.

    When this generator ends, for whatever reason, so does the making of the next item: at the latest where
    that calls `check_wanted` next, as each `read_ahead` does between items.
    """
    end = object()
    unwanted = Event()
    pool = ThreadPoolExecutor(1, initializer=UNWANTED.set, initargs=(unwanted,))
    try:
        coming = deque(pool.submit(next, items, end) for _ in range(ahead))
        while (item := coming.popleft().result()) is not end:
            check_wanted()
            coming.append(pool.submit(next, items, end))
            yield item  # type: ignore[misc]
    finally:
        unwanted.set()
        pool.shutdown(cancel_futures=True)
        if isinstance(items, Generator):
            items.close()
