"""An external sort: entries of V in any order become CSR blocks of rows, in bounded memory.

Entries are collected until there are `RUN` of them; each such run is sorted by row and written to
a file. A block of rows is then a contiguous part of each run. All sorts are counting sorts, and stable:
entries of one cell stay in the order in which they came.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import scipy.sparse

from dask_nmf.ingest.entries.journal import Journal
from dask_nmf.ingest.output.damage import files_left
from dask_nmf.kernels.entries.scattering import (
    count_keys,
    first_repeated,
    keep_last,
    places_of,
    scatter_columns,
    scatter_entries,
)
from dask_nmf.progress import report_panel, report_read, report_stage
from dask_nmf.types import Array

logger = logging.getLogger(__name__)

RUN = 2**21  # entries that are sorted and written at once
MERGED = 2**19  # entries of a block, about
STEP = 2**12  # entries of a run for each mark of it


class Duplicate(Exception):
    """Raised for a cell that has more than one entry."""

    def __init__(self, row: int, column: int) -> None:
        super().__init__(row, column)
        self.row, self.column = row, column


class Entries(NamedTuple):
    """Rows, columns and values of entries of V."""

    rows: Array
    columns: Array
    values: Array


@dataclass(frozen=True)
class Run:
    """Entries in a file, sorted by row: all rows, then all columns, then all values.

    Attributes
    ----------
    marks : every `STEP`-th of the rows, so that little is read to find where a row begins
    """

    path: Path
    count: int
    dtype: np.dtype[Any]
    marks: Array

    @classmethod
    def written(cls, path: Path, entries: Entries) -> Run:
        """Write a run."""
        with path.open("wb") as file:
            for part in entries:
                part.tofile(file)
        return cls(path, len(entries.rows), entries.values.dtype, entries.rows[::STEP].copy())

    @classmethod
    def opened(cls, path: Path, count: int, dtype: str) -> tuple[Run, Array]:
        """Return a run that was written before, and the rows of its entries; `Damaged` if a part is lost."""
        kind = np.dtype(dtype)
        with files_left():
            if path.stat().st_size != count * (2 * 4 + kind.itemsize):
                raise ValueError(f"{path} has not {count} entries")
            rows = np.fromfile(path, np.int32, count)
        return cls(path, count, kind, rows[::STEP].copy()), rows

    def part(self, begin: int, last: int) -> tuple[Entries, int]:
        """Return the entries from one on, of the rows before row ``last``, and where they end."""
        with self.path.open("rb") as file:
            mark = max(0, int(np.searchsorted(self.marks, last)) - 1) * STEP
            rows = self._read(file, 0, mark, min(mark + STEP, self.count))
            end = mark + int(np.searchsorted(rows, last))
            return Entries(*(self._read(file, part, begin, end) for part in range(len(Entries._fields)))), end

    def _read(self, file: BinaryIO, part: int, begin: int, end: int) -> Array:
        """Return some of the rows (part 0), columns (1) or values (2)."""
        dtype = self.dtype if part == 2 else np.dtype(np.int32)
        file.seek(4 * part * self.count + dtype.itemsize * begin)
        return np.fromfile(file, dtype, end - begin)


class RowSorter:
    """Entries of V, collected in any order, and given back by rows.

    Parameters
    ----------
    folder : for the files of the runs: empty, or with those of a conversion that was stopped.
    run : entries of a run.

    Attributes
    ----------
    positions : what was given with the entries of each run that was there already
    complete : whether all entries had been added before
    """

    def __init__(self, folder: Path, run: int = RUN, merged: int = MERGED) -> None:
        self._folder, self.run, self._merged = folder, run, merged
        self._pending: list[Entries] = []
        self._count = 0
        self._runs: list[Run] = []
        self._per_row = np.zeros(0, np.int64)
        self._position: Callable[[], Any] | None = None
        self._journal = Journal(folder)
        self.positions = [record["position"] for record in self._journal.entered]
        self.complete = self._journal.done
        self._restore()

    def add(self, entries: Entries, position: Callable[[], Any] | None = None) -> None:
        """Add entries, which may be none.

        Parameters
        ----------
        position : returns what JSON can hold and tells where to go on after these entries
        """
        if len(entries.values) == 0:
            return
        self._position = position
        self._pending.append(entries)
        self._count += len(entries.values)
        if self._count >= self.run:
            self._write()

    def blocks(self, shape: tuple[int, int], duplicates: str) -> Iterator[scipy.sparse.csr_array]:
        """Yield V of this shape as blocks of rows, with sorted columns; sums and means are float64.

        Raises
        ------
        Duplicate
            If a cell has more than one entry, and ``duplicates`` is "error".
        """
        self._write()
        self._journal.finish()
        self._grow(shape[0])
        ends = np.zeros(len(self._per_row) + 1, np.int64)
        np.cumsum(self._per_row, out=ends[1:])
        self._per_row = ends[:0]
        report_stage("sorting")
        report_read(-(-int(ends[-1]) // self._merged), "parts")
        first, begins = 0, [0] * len(self._runs)
        while first < shape[0]:
            last = int(np.searchsorted(ends, ends[first] + self._merged, side="right")) - 1
            last = min(max(last, first + 1), shape[0])
            read = [run.part(begin, last) for run, begin in zip(self._runs, begins, strict=True)]
            begins = [end for _, end in read]
            indptr = ends[first : last + 1] - ends[first]
            yield _block([part for part, _ in read], first, indptr, shape[1], duplicates)
            report_panel()
            first = last

    def _write(self) -> None:
        """Write what was collected as a run."""
        if self._count == 0:
            return
        pending = self._pending
        self._pending, self._count = [], 0
        counts = np.zeros(1 + max(int(entries.rows.max()) for entries in pending), np.int64)
        for entries in pending:
            count_keys(entries.rows, counts)
        self._count_rows(counts)
        rows = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
        places_of(counts)
        columns, values = _empty(pending)
        for entries in pending:
            scatter_entries(entries.rows, counts, entries.columns, entries.values, columns, values)
        run = Run.written(self._folder / str(len(self._runs)), Entries(rows, columns, values))
        self._runs.append(run)
        if self._position is not None:
            record = {"count": run.count, "dtype": run.dtype.str, "position": self._position()}
            self._journal.add(record)

    def _restore(self) -> None:
        """Take the runs that are there already."""
        for number, record in enumerate(self._journal.entered):
            run, rows = Run.opened(self._folder / str(number), record["count"], record["dtype"])
            self._runs.append(run)
            counts = np.zeros(1 + int(rows[-1]), np.int64)
            count_keys(rows, counts)
            self._count_rows(counts)
        if self._runs:
            entries = sum(run.count for run in self._runs)
            logger.info("%d entries were sorted before the conversion was stopped; it goes on", entries)

    def _count_rows(self, counts: Array) -> None:
        """Add numbers of entries of the rows from the first one on."""
        self._grow(len(counts))
        self._per_row[: len(counts)] += counts

    def _grow(self, rows: int) -> None:
        if rows > len(self._per_row):
            longer = np.zeros(max(rows, 5 * len(self._per_row) // 4), np.int64)
            longer[: len(self._per_row)] = self._per_row
            self._per_row = longer


def _block(
    parts: Sequence[Entries], first: int, indptr: Array, columns: int, duplicates: str
) -> scipy.sparse.csr_array:
    """Return rows of V from parts of runs: those from row ``first`` on, whose entries ``indptr`` counts."""
    shape = len(indptr) - 1, columns
    if not parts:
        return scipy.sparse.csr_array(shape)
    ends = np.zeros(columns, np.int64)
    for part in parts:
        count_keys(part.columns, ends)
    places_of(ends)
    rows, by_column = _empty(parts)
    for part in parts:
        scatter_entries(part.columns, ends, part.rows, part.values, rows, by_column)
    indices, values = _empty(parts)
    scatter_columns(ends, rows, first, indptr[:-1].copy(), by_column, indices, values)
    indices, values, indptr = _merge(indices, values, indptr, first, duplicates)
    return scipy.sparse.csr_array((values, indices, indptr.astype(np.int32)), shape=shape)


def _empty(parts: Sequence[Entries]) -> tuple[Array, Array]:
    """Return arrays for the indices and the values of some entries, not filled in."""
    count = sum(len(part.values) for part in parts)
    return np.empty(count, np.int32), np.empty(count, np.result_type(*(part.values for part in parts)))


def _merge(
    columns: Array, values: Array, indptr: Array, first: int, duplicates: str
) -> tuple[Array, Array, Array]:
    """Return the parts of a CSR block with one entry for each cell; its first row is row ``first`` of V."""
    row, repeated = first_repeated(columns, indptr)
    if repeated < 0:
        return columns, values, indptr
    if duplicates == "error":
        raise Duplicate(first + row, int(columns[repeated]))
    if duplicates == "last":
        kept = keep_last(columns, values, indptr)
        return columns[:kept], values[:kept], indptr
    fresh = np.ones(len(columns), bool)
    np.not_equal(columns[1:], columns[:-1], out=fresh[1:])
    fresh[indptr[:-1][np.diff(indptr) > 0]] = True
    starts = np.flatnonzero(fresh)
    return columns[starts], MERGES[duplicates](values, starts), np.searchsorted(starts, indptr)


def _counts(values: Array, starts: Array) -> Array:
    return np.diff(np.append(starts, len(values)))


MERGES: dict[str, Callable[[Array, Array], Array]] = {  # the value of a cell, from where its entries begin
    "sum": lambda values, starts: np.add.reduceat(values, starts, dtype=np.float64),
    "mean": lambda values, starts: (
        np.add.reduceat(values, starts, dtype=np.float64) / _counts(values, starts)
    ),
}
