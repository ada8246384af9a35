"""Tables whose records are entries of V: the id of the row, that of the column, and the value."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from dask_nmf.errors import DataError
from dask_nmf.ingest.formats.dense_tables import column_named
from dask_nmf.ingest.formats.tables import Table
from dask_nmf.ingest.options import ConvertOptions
from dask_nmf.ingest.reading import ReadProgress
from dask_nmf.ingest.rows import Batch, Columns, read_ahead
from dask_nmf.ingest.sorting import Duplicate, Entries, RowSorter
from dask_nmf.types import Array


class Ids:
    """Texts, numbered from 0 in the order in which they first appear."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def encode(self, column: Any, place: Callable[[int], str]) -> Array:
        """Return the numbers of a column of texts, encoded by a dictionary; refuse an empty one."""
        texts = column.dictionary.to_pylist()
        if column.null_count or "" in texts:
            empty = [text in (None, "") for text in texts]
            nothing = len(texts)
            codes = column.indices.fill_null(nothing).to_numpy()
            raise DataError(
                f"{place(int(np.argmax(np.array([*empty, True])[codes])))}: an id is empty; fill it in"
            )
        number = self._numbers.setdefault
        known: Array = np.array([number(text, len(self._numbers)) for text in texts], np.int32)
        encoded: Array = known[column.indices.to_numpy()]
        return encoded

    def __len__(self) -> int:
        return len(self._numbers)

    def texts(self) -> list[str]:
        """Return the texts in the order of their numbers."""
        return list(self._numbers)


class Triplets:
    """V in tables of entries. Rows and columns stand in the order in which their ids first appear."""

    sparse = True

    def __init__(self, tables: Sequence[Table], options: ConvertOptions, scratch: Path) -> None:
        self._tables = tables
        self._names = [options.row or "", options.column or "", options.value or ""]
        self._places = [[column_named(table, name) for name in self._names] for table in tables]
        self._duplicates = options.duplicates
        self._rules = options.rules()
        self._scratch = scratch
        self._rows, self._columns = Ids(), Ids()
        self.dtype = self._rules.dtype

    def columns(self) -> Columns:
        """Return the columns of V."""
        return Columns(len(self._columns), self._columns.texts())

    def batches(self) -> Iterator[Batch]:
        """Yield the rows of V in order, after all entries were read and sorted."""
        sorter = RowSorter(self._scratch)
        for columns, place in read_ahead(self._records()):
            values = self._rules.cast(columns[0].to_numpy(zero_copy_only=False), place)
            rows = self._rows.encode(columns[1], place)
            sorter.add(Entries(rows, self._columns.encode(columns[2], place), values))
        names, first = self._rows.texts(), 0
        try:
            for block in sorter.blocks((len(self._rows), len(self._columns)), self._duplicates):
                last = first + block.shape[0]
                yield Batch(block, names[first:last])
                first = last
        except Duplicate as found:
            self._refuse(names[found.row], self._columns.texts()[found.column])

    def _records(self) -> Iterator[tuple[list[Any], Callable[[int], str]]]:
        """Yield the value, the row and the column of records, and how to name the place of one."""
        progress = ReadProgress([table.path for table in self._tables])
        for table, (row, column, value) in zip(self._tables, self._places, strict=True):
            first = 0
            for columns in table.batches([value], [row, column], progress):
                yield columns, partial(_place, table, first)
                first += len(columns[0])

    def _refuse(self, row: str, column: str) -> None:
        """Raise the error about a cell with several entries: the tables are read again up to the second."""
        seen = False
        for columns, place in self._records():
            same = np.ones(len(columns[0]), bool)
            for part, text in ((columns[1], row), (columns[2], column)):
                same &= np.array([one == text for one in part.dictionary.to_pylist()])[
                    part.indices.to_numpy()
                ]
            for index in np.flatnonzero(same):
                if seen:
                    raise DataError(
                        f"{place(int(index))}: {self._names[0]} {row!r} and {self._names[1]} {column!r} "
                        "have a value already; leave one out, or choose with --duplicates sum, mean or last"
                    )
                seen = True


def _place(table: Table, first: int, index: int) -> str:
    return table.place(first + index)
