"""An external sort: entries of V in any order become CSR blocks of rows, in bounded memory.

Entries are collected until there are `RUN` of them; each such run is sorted by row and written to
three files. A block of rows is then a contiguous part of each run. All sorts are counting sorts, which SciPy
does when it transposes a matrix, and stable: entries of one cell stay in the order in which they came.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import scipy.sparse

from dask_nmf.progress import report_panel, report_read, report_stage
from dask_nmf.types import Array

RUN = 2**21  # entries that are sorted and written at once
MERGED = 2**20  # entries of a block, about
PARTS = ("rows", "columns", "values")


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

    def take(self, order: Array, counts: Array) -> Entries:
        """Return the entries at these places, by which rows from 0 on have these numbers of entries."""
        rows = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
        return Entries(rows, self.columns[order], self.values[order])


class RowSorter:
    """Entries of V, collected in any order, and given back by rows.

    Parameters
    ----------
    folder : an empty folder for the files of the runs.
    run : entries of a run.
    """

    def __init__(self, folder: Path, run: int = RUN, merged: int = MERGED) -> None:
        self._folder, self.run, self._merged = folder, run, merged
        self._pending: list[Entries] = []
        self._count = 0
        self._runs: list[Path] = []
        self._per_row = np.zeros(0, np.int64)

    def add(self, entries: Entries) -> None:
        """Add entries."""
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
        self._grow(shape[0])
        ends = np.concatenate([[0], np.cumsum(self._per_row)])
        report_stage("sorting")
        report_read(-(-int(ends[-1]) // self._merged), "parts")
        first = 0
        while first < shape[0]:
            last = int(np.searchsorted(ends, ends[first] + self._merged, side="right")) - 1
            last = min(max(last, first + 1), shape[0])
            yield self._block(first, last, shape[1], duplicates)
            report_panel()
            first = last

    def _write(self) -> None:
        """Write what was collected as a run."""
        if self._count == 0:
            return
        entries = _joined(self._pending)
        self._pending, self._count = [], 0
        counts = np.bincount(entries.rows)
        self._grow(len(counts))
        self._per_row[: len(counts)] += counts
        run = self._folder / str(len(self._runs))
        self._runs.append(run)
        ordered = entries.take(_stable_order(entries.rows, len(counts)), counts)
        for name, part in zip(PARTS, ordered, strict=True):
            np.save(run.with_suffix(f".{name}.npy"), part)

    def _grow(self, rows: int) -> None:
        if rows > len(self._per_row):
            longer = np.zeros(max(rows, 2 * len(self._per_row)), np.int64)
            longer[: len(self._per_row)] = self._per_row
            self._per_row = longer

    def _block(self, first: int, last: int, columns: int, duplicates: str) -> scipy.sparse.csr_array:
        """Return some rows of V."""
        if not self._runs:
            return scipy.sparse.csr_array((last - first, columns))
        parts = [_part(run, first, last) for run in self._runs]
        entries = _joined(parts)
        by_column = _stable_order(entries.columns, columns)
        by_row = _stable_order(entries.rows[by_column] - np.int32(first), last - first)
        unique = _merge(entries.take(by_column[by_row], self._per_row[first:last]), first, duplicates)
        indptr = np.concatenate([[0], np.cumsum(np.bincount(unique.rows, minlength=last - first))])
        return scipy.sparse.csr_array((unique.values, unique.columns, indptr), shape=(last - first, columns))


def _joined(parts: Sequence[Entries]) -> Entries:
    """Return several parts as one."""
    if len(parts) == 1:
        return parts[0]
    return Entries(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def _part(run: Path, first: int, last: int) -> Entries:
    """Return the entries of some rows in a run; its files are mapped no longer than that takes."""
    rows, columns, values = (np.load(run.with_suffix(f".{name}.npy"), mmap_mode="r") for name in PARTS)
    part = slice(*np.searchsorted(rows, [first, last]))
    return Entries(*(np.array(stored[part]) for stored in (rows, columns, values)))


def _stable_order(keys: Array, bound: int) -> Array:
    """Return the places of keys, all below ``bound``, in ascending order, and equal keys as they are."""
    count = len(keys)
    one_a_row = scipy.sparse.csr_array(
        (np.zeros(count, np.int8), keys, np.arange(count + 1, dtype=np.int32)), shape=(count, bound)
    )
    order: Array = one_a_row.tocsc().indices
    return order


def _merge(entries: Entries, first: int, duplicates: str) -> Entries:
    """Return sorted entries with one for each cell; their rows are counted from row ``first`` of V."""
    rows, columns, values = entries
    fresh = np.ones(len(rows), bool)
    fresh[1:] = (rows[1:] != rows[:-1]) | (columns[1:] != columns[:-1])
    if fresh.all():
        return entries
    if duplicates == "error":
        place = int(np.argmin(fresh))
        raise Duplicate(first + int(rows[place]), int(columns[place]))
    starts = np.flatnonzero(fresh)
    return Entries(rows[starts], columns[starts], MERGES[duplicates](values, starts))


def _counts(values: Array, starts: Array) -> Array:
    return np.diff(np.append(starts, len(values)))


MERGES: dict[str, Callable[[Array, Array], Array]] = {  # the value of a cell, from where its entries begin
    "sum": lambda values, starts: np.add.reduceat(values, starts, dtype=np.float64),
    "mean": lambda values, starts: (
        np.add.reduceat(values, starts, dtype=np.float64) / _counts(values, starts)
    ),
    "last": lambda values, starts: values[starts + _counts(values, starts) - 1],
}
