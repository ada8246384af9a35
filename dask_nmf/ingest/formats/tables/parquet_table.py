"""Tables in parquet files, read with pyarrow in batches of records."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from dask_nmf.errors import DataError, readable
from dask_nmf.ingest.files import FilePath, size_of
from dask_nmf.ingest.formats.tables.records import Fields, Records, records_of
from dask_nmf.ingest.options import INTEGERS
from dask_nmf.ingest.reading import ReadProgress, arrow_file, optional_library
from dask_nmf.ingest.rows import BATCH

RECORDS = 2**18  # that are read at once
CURE = "write it anew"


@dataclass(frozen=True)
class ParquetTable:
    """A table in a parquet file."""

    path: FilePath
    names: list[str]
    types: list[str]

    def __init__(self, path: FilePath) -> None:
        object.__setattr__(self, "path", path)
        with self._file() as file:
            object.__setattr__(self, "names", list(file.schema_arrow.names))
            object.__setattr__(self, "types", [str(kind) for kind in file.schema_arrow.types])

    @property
    def width(self) -> int:
        return len(self.names)

    def stored_dtype(self, numbers: Sequence[int]) -> np.dtype[np.generic]:
        double = any(self.types[index] == "double" for index in numbers)
        return np.dtype(np.float64 if double else np.float32)

    def place(self, record: int) -> str:
        return f"{self.path}, record {record + 1}"

    def refuse_rounded(self, numbers: Sequence[int]) -> None:
        """Do nothing, because `batches` refuses such integers."""

    def batches(
        self, numbers: Sequence[int], texts: Sequence[int], progress: ReadProgress, first: int = 0
    ) -> Iterator[list[Any]]:
        names = list(dict.fromkeys(self.names[index] for index in [*numbers, *texts]))
        with self._file() as file:
            size, records = size_of(self.path), max(1, file.metadata.num_rows)
            per_batch = max(1, min(RECORDS, BATCH // (8 * (len(numbers) + len(texts)))))
            groups = [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)]
            starts = np.cumsum([0, *groups])
            group = int(np.searchsorted(starts, first, side="right")) - 1
            done = int(starts[group])
            batches = file.iter_batches(per_batch, range(group, len(groups)), names)
            for whole in _each(batches, self.path):
                batch = whole.slice(max(0, first - done))
                done += len(whole)
                if len(batch) == 0:
                    continue
                progress.at(size * done // records)
                columns = self._columns(batch)
                with readable(self.path, "ids must be texts in UTF-8 or numbers"):
                    ids = [_text(columns[index]) for index in texts]
                yield [
                    self._number(columns[index], self.names[index], done - len(batch)) for index in numbers
                ] + ids
        progress.file_done(self.path)

    def records(self, fields: Fields, progress: ReadProgress, first: int = 0) -> Iterator[Records]:
        """Yield the records from one on as entries of V."""
        for columns in self.batches([fields.value], [fields.row, fields.column], progress, first):
            records = records_of(columns, partial(self._place_after, first))
            first += len(records.values)
            yield records

    def _place_after(self, first: int, index: int) -> str:
        return self.place(first + index)

    @contextmanager
    def _file(self) -> Iterator[Any]:
        parquet = optional_library("pyarrow.parquet")
        with readable(self.path, CURE):
            source = arrow_file(self.path)
            file = parquet.ParquetFile(source)
        with source:
            yield file

    def _columns(self, batch: Any) -> dict[int, Any]:
        """Return the columns of a batch by their places in the file; all of one name are in a batch."""
        places: dict[str, deque[int]] = defaultdict(deque)
        for index, name in enumerate(self.names):
            places[name].append(index)
        named = zip(batch.schema.names, batch.columns, strict=True)
        return {places[name].popleft(): column for name, column in named}

    def _number(self, column: Any, name: str, first: int) -> Any:
        """Return a column, of records from one on, as float64; refuse one of texts or of rounded integers."""
        arrow = optional_library("pyarrow")
        kind = column.type
        types = arrow.types
        if not (types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind)):
            raise DataError(
                f"{self.path}: column {name!r} is of type {kind}, and numbers are needed; "
                "leave it out, or name it with --row if it holds the names of rows"
            )
        if types.is_integer(kind) and kind.bit_width == 64:
            values = column.fill_null(0).to_numpy(zero_copy_only=False)
            INTEGERS.cast(values, lambda index: f"{self.place(first + index)}, column {name!r}")
        return column.cast(arrow.uint8() if types.is_boolean(kind) else kind).cast(
            arrow.float64(), safe=False
        )


def _each(batches: Iterator[Any], path: FilePath) -> Iterator[Any]:
    """Yield batches; raise `DataError` for what the file cannot give."""
    while True:
        with readable(path, CURE):
            batch = next(batches, None)
        if batch is None:
            return
        yield batch


def _text(column: Any) -> Any:
    """Return a column of ids as texts."""
    arrow = optional_library("pyarrow")
    if arrow.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    return column.cast(arrow.string())
