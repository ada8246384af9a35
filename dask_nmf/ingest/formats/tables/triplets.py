"""Tables whose records are entries of V: the id of the row, that of the column, and the value."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from dask_nmf.errors import DataError
from dask_nmf.ingest.entries.ids import Ids
from dask_nmf.ingest.entries.sorting import Duplicate, Entries, RowSorter
from dask_nmf.ingest.formats.tables.dense_tables import column_named
from dask_nmf.ingest.formats.tables.records import Fields, Records, may_be_rounded
from dask_nmf.ingest.formats.tables.table import Table
from dask_nmf.ingest.options import ConvertOptions
from dask_nmf.ingest.output.damage import files_left
from dask_nmf.ingest.reading import ReadProgress, optional_library
from dask_nmf.ingest.rows import Batch, Columns, read_ahead

AHEAD = 8  # pieces of a file that are parsed while entries are sorted, each of about 5 MB
Place = tuple[int, int]  # the number of a table, and that of a record in it


class Triplets:
    """V in tables of entries. Rows and columns stand in the order in which their ids first appear."""

    sparse = True

    def __init__(self, tables: Sequence[Table], options: ConvertOptions, scratch: Path) -> None:
        self._tables = tables
        self._names = [options.row or "", options.column or "", options.value or ""]
        self._fields = [Fields(*(column_named(table, name) for name in self._names)) for table in tables]
        self._duplicates = options.duplicates
        stored = (
            table.stored_dtype([fields.value]) for table, fields in zip(tables, self._fields, strict=True)
        )
        self._rules = options.rules(np.result_type(*stored))
        self._scratch = scratch
        self._rows, self._columns = Ids(), Ids()
        self._saved = [0, 0]  # ids of rows and of columns that a journal has
        self.dtype = self._rules.dtype

    def columns(self) -> Columns:
        """Return the columns of V."""
        return Columns(len(self._columns), self._columns.texts())

    def batches(self, begin: Any = None) -> Iterator[Batch]:
        """Yield all rows of V in order, after all entries were read and sorted."""
        sorter = RowSorter(self._scratch)
        start = self._restore(sorter.positions)
        records = iter(()) if sorter.complete else self._records(start)
        with ThreadPoolExecutor(1) as pool:
            for (values, rows, columns), place, position in read_ahead(records, AHEAD):
                of_rows = pool.submit(self._rows.encode, rows)
                of_columns = self._columns.encode(columns)
                cast = self._rules.cast(values, place)
                entries = Entries(of_rows.result(), of_columns, cast)
                sorter.add(entries, partial(self._position, position))
        for ids in self._rows, self._columns:
            ids.close()
        optional_library("pyarrow").default_memory_pool().release_unused()
        first = 0
        try:
            for block in sorter.blocks((len(self._rows), len(self._columns)), self._duplicates):
                last = first + block.shape[0]
                block = self._rules.cast_rows(block, partial(self._cell, first))
                yield Batch(block, self._rows.texts(first, last))
                first = last
        except Duplicate as found:
            row, column = found.args
            self._refuse(self._rows.texts(row, row + 1)[0], self._columns.texts(column, column + 1)[0])

    def _cell(self, first: int, row: int, column: int) -> str:
        """Return how a message names a cell, whose row is counted from row ``first`` of V."""
        ids = self._rows.texts(first + row, first + row + 1) + self._columns.texts(column, column + 1)
        names = (f"{name} {text!r}" for name, text in zip(self._names, ids, strict=False))
        return f"{self._tables[0].path}, {' and '.join(names)}, {self._duplicates} of the entries"

    def _position(self, place: Place) -> dict[str, Any]:
        """Return where to go on after some records; the ids that are new since then are in files."""
        position = {"place": place, "ids": self._saved}
        for ids, file in zip((self._rows, self._columns), self._files(position), strict=True):
            ids.save(*file)
        self._saved = [len(self._rows), len(self._columns)]
        return position

    def _restore(self, positions: Sequence[dict[str, Any]]) -> Place:
        """Number the ids of a conversion that was stopped; return where to go on."""
        for position in positions:
            for ids, (file, _) in zip((self._rows, self._columns), self._files(position), strict=True):
                with files_left():
                    ids.load(file)
        self._saved = [len(self._rows), len(self._columns)]
        return tuple(positions[-1]["place"]) if positions else (0, 0)

    def _files(self, position: dict[str, Any]) -> list[tuple[Path, int]]:
        """Return the files with new ids of rows and of columns, each with the number of the first one."""
        name, saved = "-".join(map(str, position["place"])), position["ids"]
        return [
            (self._scratch / f"{kind}-{name}.npz", first) for kind, first in zip("rc", saved, strict=True)
        ]

    def _records(self, begin: Place = (0, 0)) -> Iterator[tuple[Records, Callable[[int], str], Place]]:
        """Yield records, how to name the place of one, and the place of the next one."""
        progress = ReadProgress([table.path for table in self._tables])
        for number, (table, fields) in enumerate(zip(self._tables, self._fields, strict=True)):
            if number < begin[0]:
                progress.file_done(table.path)
                continue
            first, checked = begin[1] if number == begin[0] else 0, False
            for records in table.records(fields, progress, first):
                if not checked and may_be_rounded(records.values):
                    table.refuse_rounded([fields.value])
                    checked = True
                last = first + len(records.values)
                yield records, partial(_place, table, first), (number, last)
                first = last

    def _refuse(self, row: str, column: str) -> None:
        """Raise the error about a cell with several entries: the tables are read again up to the second."""
        seen = False
        for records, place, _ in read_ahead(self._records()):
            for index in np.intersect1d(records.rows.indices(row), records.columns.indices(column)):
                if seen:
                    raise DataError(
                        f"{place(int(index))}: {self._names[0]} {row!r} and {self._names[1]} {column!r} "
                        "have a value already; leave one out, or choose with --duplicates sum, mean or last"
                    )
                seen = True
        raise DataError(
            f"{self._tables[0].path}: {self._names[0]} {row!r} and {self._names[1]} {column!r} have several "
            "values, which are no longer found where they were read; convert it anew"
        )


def _place(table: Table, first: int, index: int) -> str:
    return table.place(first + index)
