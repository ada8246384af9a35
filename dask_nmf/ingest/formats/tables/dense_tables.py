"""Tables whose records are rows of V: a number in each column, and perhaps the name of the row."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from dask_nmf.errors import DataError
from dask_nmf.ingest.formats.tables.records import check_ids, may_be_rounded
from dask_nmf.ingest.formats.tables.table import Table
from dask_nmf.ingest.options import ConvertOptions
from dask_nmf.ingest.reading import ReadProgress
from dask_nmf.ingest.rows import Batch, Columns

INDEX = "__index_level_0__"  # the column of a parquet file that pandas writes for an index without a name


class DenseTable:
    """The rows of V in a table.

    The names of rows are in the column that ``options.row`` names, or in one that pandas or R write for an
    index without a name.
    """

    sparse = False

    def __init__(self, table: Table, options: ConvertOptions) -> None:
        self._table = table
        named = _names_column(table, options.row)
        self._texts = [] if named is None else [named]
        self._numbers = [index for index in range(table.width) if index != named]
        self._rules = options.rules(table.stored_dtype(self._numbers))
        self.dtype = self._rules.dtype

    def columns(self) -> Columns:
        """Return the columns of V."""
        names = self._table.names
        found = None if names is None else [names[index] for index in self._numbers]
        return Columns(len(self._numbers), found)

    def batches(self, begin: Any = None) -> Iterator[Batch]:
        """Yield the rows of V in order; a position is a number of records."""
        first, checked = begin or 0, False
        progress = ReadProgress([self._table.path])
        for columns in self._table.batches(self._numbers, self._texts, progress, first):
            values = columns[: len(self._numbers)]
            block = np.empty((len(columns[0]), len(values)), np.float64)
            for index, column in enumerate(values):
                block[:, index] = column.to_numpy(zero_copy_only=False)
            if not checked and may_be_rounded(block):
                self._table.refuse_rounded(self._numbers)
                checked = True
            if self._texts:
                check_ids(columns[-1], partial(self._record, first))
            names = columns[-1].to_pylist() if self._texts else None
            yield Batch(self._rules.cast(block, partial(self._place, first)), names, first + len(block))
            first += len(block)

    def _record(self, first: int, index: int) -> str:
        return self._table.place(first + index)

    def _place(self, first: int, index: int) -> str:
        """Return the place of a value of the block that begins at a record."""
        record, column = divmod(index, len(self._numbers))
        names = self._table.names
        number = self._numbers[column]
        name = number + 1 if names is None else repr(names[number])
        return f"{self._table.place(first + record)}, column {name}"


def column_named(table: Table, name: str) -> int:
    """Return the place of a column by its name.

    Raises
    ------
    DataError
        If the table has none of this name, or several.
    """
    names = table.names or []
    if names.count(name) != 1:
        having = f"the columns {', '.join(names[:20])}" if names else "no header"
        raise DataError(f"{table.path} has {having}, and not one column {name!r}; give the name of a column")
    return names.index(name)


def _names_column(table: Table, name: str | None) -> int | None:
    if name is not None:
        return column_named(table, name)
    names = table.names or []
    if INDEX in names:
        return names.index(INDEX)
    return 0 if names[:1] == [""] and table.width > 1 else None
