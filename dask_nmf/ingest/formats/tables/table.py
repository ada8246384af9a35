"""`Table`: records with a value in each column, from a file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np

from dask_nmf.ingest.files import FilePath, has_suffix
from dask_nmf.ingest.formats.tables.csv_table import CsvTable
from dask_nmf.ingest.formats.tables.parquet_table import ParquetTable
from dask_nmf.ingest.formats.tables.records import Fields, Records
from dask_nmf.ingest.reading import ReadProgress


class Table(Protocol):
    """A table in a file: records, with a value in each column."""

    @property
    def path(self) -> FilePath:
        """Return the path of the file."""

    @property
    def names(self) -> list[str] | None:
        """Return the names of the columns; None if the file has none."""

    @property
    def width(self) -> int:
        """Return the number of columns."""

    def batches(
        self, numbers: Sequence[int], texts: Sequence[int], progress: ReadProgress, first: int = 0
    ) -> Iterator[list[Any]]:
        """Yield the records from one on, of some columns, as a list of pyarrow arrays: numbers, then texts.

        Numbers are float64, and texts are strings.
        """

    def records(self, fields: Fields, progress: ReadProgress, first: int = 0) -> Iterator[Records]:
        """Yield the records from one on as entries of V; refuse an empty id."""

    def stored_dtype(self, numbers: Sequence[int]) -> np.dtype[np.generic]:
        """Return float64 if one of some columns stores that, and else float32, also for text."""

    def place(self, record: int) -> str:
        """Return how a message names a record, counted from 0."""

    def refuse_rounded(self, numbers: Sequence[int]) -> None:
        """Raise `DataError` about the first integer in some columns that float64 does not hold, if any."""


def open_table(path: FilePath) -> Table:
    """Open a table of a kind that its suffix tells; read only its header."""
    return ParquetTable(path) if has_suffix(path, ".parquet") else CsvTable(path)
