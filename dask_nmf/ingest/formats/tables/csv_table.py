"""Tables in CSV files: records are parsed by pyarrow, and plain ones of entries by a compiled function."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from dask_nmf.errors import DataError, readable
from dask_nmf.ingest.files import FilePath, has_suffix, open_content, position_in, skip_content
from dask_nmf.ingest.formats.tables import csv_text
from dask_nmf.ingest.formats.tables.records import Fields, Records, plain_records, records_of
from dask_nmf.ingest.reading import ReadProgress, arrow_file, optional_library
from dask_nmf.ingest.rows import read_ahead

BLOCK = 2**21  # bytes of text that are parsed at once, at least; pyarrow reads up to 32 of them ahead
CURE = "write it anew"


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
            with self._explained(numbers):
                skipped = self._skip(raw, stream, first)
                reader = [] if skipped is None else self._open(stream, numbers, texts, skipped, BLOCK)
                for batch in reader:
                    progress.at(raw.tell())
                    for column in batch.columns[len(numbers) :]:
                        self._check_lines(column, first)
                    first += len(batch)
                    yield batch.columns
        progress.file_done(self.path)

    def records(self, fields: Fields, progress: ReadProgress, first: int = 0) -> Iterator[Records]:
        """Yield the records from one on as entries of V.

        Pieces of plain lines are parsed by a compiled function, and the others by pyarrow, which must see a
        quoted field that spans lines as a whole.
        """
        roles, rest = fields.roles(self.width), b""
        for piece, position in read_ahead(self._pieces(first)):
            text, rest = rest + piece, b""
            plain = plain_records(text, self.layout.delimiter, roles)
            if plain is None and csv_text.ends_quoted(text, self.layout.delimiter):
                rest = text
                if len(rest) > csv_text.LONGEST_QUOTED:
                    break
                continue
            for records in [plain] if plain else self._parsed(text, fields, first):
                first += len(records.values)
                yield records
            progress.at(position)
        if rest:
            csv_text.refuse_open_quote(self.path, self.layout)
        progress.file_done(self.path)

    def _pieces(self, first: int) -> Iterator[tuple[bytes, int]]:
        """Yield pieces of the content from a record on, and how much of the file has been read then."""
        offset = csv_text.offset_of(self.path, self.layout, first)
        if offset is None:
            return
        with readable(self.path, CURE), open_content(self.path) as file:
            if has_suffix(self.path, ".gz"):
                skip_content(file, offset)
            else:
                file.seek(offset)
            for text in csv_text.whole_lines(file, BLOCK):
                yield text, position_in(file)

    def _parsed(self, text: bytes, fields: Fields, first: int) -> Iterator[Records]:
        """Yield the records in a piece of the content that begins with a record."""
        stream = optional_library("pyarrow").BufferReader(text)
        with self._explained([fields.value]):
            for batch in self._open(stream, [fields.value], [fields.row, fields.column], 0, len(text)):
                for column in batch.columns[1:]:
                    self._check_lines(column, first)
                if len(batch):
                    yield records_of(batch.columns, partial(self._place_after, first))
                first += len(batch)

    def _place_after(self, first: int, index: int) -> str:
        return self.place(first + index)

    @contextmanager
    def _explained(self, numbers: Sequence[int]) -> Iterator[None]:
        """Turn an error of pyarrow into one about the first line that is not as it must be."""
        try:
            with readable(self.path, CURE):
                yield
        except DataError as error:
            if isinstance(error.__cause__, optional_library("pyarrow").ArrowInvalid):
                csv_text.refuse_first_bad_line(self.path, self.layout, numbers)
            raise

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

    def _open(
        self, stream: Any, numbers: Sequence[int], texts: Sequence[int], skipped: int, block: int
    ) -> Any:
        """Open a reader of some columns, which parses blocks of at least a number of bytes."""
        arrow, csv = optional_library("pyarrow"), optional_library("pyarrow.csv")
        kinds = {str(index): arrow.float64() for index in numbers}
        kinds |= {str(index): arrow.string() for index in texts}
        return csv.open_csv(
            stream,
            csv.ReadOptions(
                block_size=max(block, 4 * self.layout.line_bytes),
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
