"""Tables in CSV and parquet files, read with pyarrow in batches of records."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from dask_nmf.errors import DataError, readable
from dask_nmf.ingest.files import FilePath, has_suffix, size_of, skip_content
from dask_nmf.ingest.formats.tables import csv_text
from dask_nmf.ingest.options import EXACT_DOUBLE, ValueRules
from dask_nmf.ingest.reading import ReadProgress, arrow_file, optional_library
from dask_nmf.ingest.rows import BATCH
from dask_nmf.types import Array

BLOCK = 2**21  # bytes of text that are parsed at once, at least; pyarrow reads up to 32 of them ahead
RECORDS = 2**18  # of a parquet file that are read at once
CURE = "write it anew"
INTEGERS = ValueRules(np.dtype(np.float64), missing=False, implied=False)


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

    def stored_dtype(self, numbers: Sequence[int]) -> np.dtype[np.generic]:
        """Return float64 if one of some columns stores that, and else float32, also for text."""

    def place(self, record: int) -> str:
        """Return how a message names a record, counted from 0."""

    def refuse_rounded(self, numbers: Sequence[int]) -> None:
        """Raise `DataError` about the first integer in some columns that float64 does not hold, if any."""


def open_table(path: FilePath) -> Table:
    """Open a table of a kind that its suffix tells; read only its header."""
    return ParquetTable(path) if has_suffix(path, ".parquet") else CsvTable(path)


@dataclass(frozen=True)
class CsvTable:
    """A table in a CSV or TSV file, which may be compressed by gzip."""

    path: FilePath
    layout: csv_text.CsvLayout

    def __init__(self, path: FilePath) -> None:
        object.__setattr__(self, "path", path)
        object.__setattr__(self, "layout", csv_text.read_layout(path))

    @property
    def names(self) -> list[str] | None:
        return self.layout.names

    @property
    def width(self) -> int:
        return self.layout.width

    def stored_dtype(self, numbers: Sequence[int]) -> np.dtype[np.generic]:
        return np.dtype(np.float32)

    def place(self, record: int) -> str:
        return f"{self.path}, line {csv_text.line_of(self.path, self.layout, record)}"

    def refuse_rounded(self, numbers: Sequence[int]) -> None:
        csv_text.refuse_rounded(self.path, self.layout, numbers)

    def batches(
        self, numbers: Sequence[int], texts: Sequence[int], progress: ReadProgress, first: int = 0
    ) -> Iterator[list[Any]]:
        arrow = optional_library("pyarrow")
        with readable(self.path, CURE):
            raw = arrow_file(self.path)
        with raw:
            stream = arrow.CompressedInputStream(raw, "gzip") if has_suffix(self.path, ".gz") else raw
            try:
                with readable(self.path, CURE):
                    skipped = self._skip(raw, stream, first)
                    reader = [] if skipped is None else self._open(stream, numbers, texts, skipped)
                    for batch in reader:
                        progress.at(raw.tell())
                        for column in batch.columns[len(numbers) :]:
                            self._check_lines(column, first)
                        first += len(batch)
                        yield batch.columns
            except DataError as error:
                if isinstance(error.__cause__, arrow.ArrowInvalid):
                    csv_text.refuse_first_bad_line(self.path, self.layout, numbers)
                raise
        progress.file_done(self.path)

    def _check_lines(self, column: Any, first: int) -> None:
        """Refuse an id that spans lines in a column of records from one on."""
        content = column.buffers()[2]
        text = b"" if content is None else content.to_pybytes()
        if b"\n" not in text and b"\r" not in text:
            return
        compute = optional_library("pyarrow.compute")
        index = compute.index(compute.match_substring_regex(column, "[\n\r]"), True).as_py()
        if index >= 0:
            raise DataError(f"{self.place(first + index)}: an id spans lines; leave the end of the line out")

    def _skip(self, raw: Any, stream: Any, record: int) -> int | None:
        """Move to a record; return how many lines before it are no records, or None if there is none."""
        if record == 0:
            return self.layout.skipped
        offset = csv_text.offset_of(self.path, self.layout, record)
        if offset is None:
            return None
        if stream is raw:
            raw.seek(offset)
        else:
            skip_content(stream, offset)
        return 0

    def _open(self, stream: Any, numbers: Sequence[int], texts: Sequence[int], skipped: int) -> Any:
        arrow, csv = optional_library("pyarrow"), optional_library("pyarrow.csv")
        kinds = {str(index): arrow.float64() for index in numbers}
        kinds |= {str(index): arrow.string() for index in texts}
        return csv.open_csv(
            stream,
            csv.ReadOptions(
                block_size=max(BLOCK, 4 * self.layout.line_bytes),
                skip_rows=skipped,
                column_names=[str(index) for index in range(self.width)],
            ),
            csv.ParseOptions(delimiter=self.layout.delimiter, ignore_empty_lines=self.width > 1),
            csv.ConvertOptions(
                column_types=kinds,
                include_columns=list(kinds),
                null_values=list(csv_text.NULLS),
            ),
        )


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


def may_be_rounded(values: Array) -> bool:
    """Return whether there is a value from which on float64 does not hold all integers."""
    return values.size > 0 and bool(np.fmax.reduce(values, axis=None) >= EXACT_DOUBLE)


def check_ids(column: Any, place: Callable[[int], str]) -> None:
    """Refuse an empty id in a column of texts."""
    compute = optional_library("pyarrow.compute")
    empty = compute.index(compute.equal(compute.binary_length(column.fill_null("")), 0), True).as_py()
    if empty >= 0:
        raise DataError(f"{place(empty)}: an id is empty; fill it in")


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
