"""Texts with the names of their rows: in files of their own, in JSON lines, in a column of a table."""

from __future__ import annotations

import csv
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple, Protocol

from dask_nmf.errors import DataError, readable
from dask_nmf.ingest.files import FilePath, has_suffix, name_below, size_of
from dask_nmf.ingest.formats.documents.decoding import read_text, text_lines
from dask_nmf.ingest.formats.tables.csv_text import DELIMITERS, LONGEST, QUOTED
from dask_nmf.ingest.reading import ReadProgress, arrow_file, optional_library
from dask_nmf.ingest.rows import map_ahead
from dask_nmf.wording import counted

RECORDS = 2**10  # of a parquet file that are read at once
SHOWN = 20  # names in a message


class Text(NamedTuple):
    """A text, and the name of its row if it has one."""

    text: str
    name: str | None


class Texts(Protocol):
    """Texts that can be read several times."""

    @property
    def paths(self) -> Sequence[FilePath]:
        """Return the files that they are in."""

    def read(self, progress: ReadProgress, first: int = 0) -> Iterator[Text]:
        """Yield the texts from one on, in order."""


@dataclass(frozen=True)
class TextFiles:
    """Files of one text each, named by their paths below a folder."""

    folder: FilePath
    paths: Sequence[FilePath]
    encoding: str

    def read(self, progress: ReadProgress, first: int = 0) -> Iterator[Text]:
        """Yield the texts from one on, in order."""
        for path in self.paths[:first]:
            progress.file_done(path)
        paths = self.paths[first:]
        for path, text in zip(paths, map_ahead(self._text, paths, size_of), strict=True):
            yield Text(text, name_below(path, self.folder))
            progress.file_done(path)

    def _text(self, path: FilePath) -> str:
        return read_text(path, self.encoding)


@dataclass(frozen=True)
class Fields:
    """The names of the fields with the text and, unless it is None, with the name of the row."""

    text: str
    row: str | None = None

    @property
    def names(self) -> list[str]:
        """Return the names that are given."""
        return [self.text] if self.row is None else [self.text, self.row]


@dataclass(frozen=True)
class TextRecords(ABC):
    """Records of one file that have their texts in a field, to inherit from."""

    path: FilePath
    fields: Fields

    @property
    def paths(self) -> Sequence[FilePath]:
        """Return the file."""
        return [self.path]

    def read(self, progress: ReadProgress, first: int = 0) -> Iterator[Text]:
        """Yield the texts from one on, in order; raise `DataError` for a record without a text."""
        yield from islice(self._texts(progress), first, None)
        progress.file_done(self.path)

    @abstractmethod
    def _texts(self, progress: ReadProgress) -> Iterator[Text]:
        """Yield all texts."""


@dataclass(frozen=True)
class JsonLines(TextRecords):
    """Records of JSON, one a line."""

    encoding: str

    def _texts(self, progress: ReadProgress) -> Iterator[Text]:
        for number, line in enumerate(text_lines(self.path, self.encoding, progress), 1):
            if line.strip():
                place = f"{self.path}, line {number}"
                yield _text_of(_record(line, place), self.fields, place)


@dataclass(frozen=True)
class CsvTexts(TextRecords):
    """A column of a CSV file with a header; quoted fields may span lines."""

    encoding: str

    def _texts(self, progress: ReadProgress) -> Iterator[Text]:
        csv.field_size_limit(LONGEST)
        first = next(text_lines(self.path, self.encoding), "")
        unquoted = QUOTED.sub("", first)
        tabs = has_suffix(self.path, (".tsv", ".tsv.gz"))
        delimiter = "\t" if tabs else next((one for one in DELIMITERS if one in unquoted), ",")
        reader = csv.reader(text_lines(self.path, self.encoding, progress), delimiter=delimiter)
        header = next(reader, [])
        _check_names(self.path, header, self.fields)
        line = reader.line_num + 1
        with readable(self.path, "correct it"):
            for values in reader:
                place = f"{self.path}, line {line}"
                if values and len(values) != len(header):
                    raise DataError(
                        f"{place}: it has {counted(len(values), 'field')}, and the header has "
                        f"{len(header)}; "
                        f"correct the line, or quote fields that contain {delimiter!r}"
                    )
                if values:
                    yield _text_of(dict(zip(header, values, strict=True)), self.fields, place)
                line = reader.line_num + 1


@dataclass(frozen=True)
class ParquetTexts(TextRecords):
    """A column of a parquet file."""

    def _texts(self, progress: ReadProgress) -> Iterator[Text]:
        parquet = optional_library("pyarrow.parquet")
        with (
            readable(self.path, "write it anew"),
            arrow_file(self.path) as source,
            parquet.ParquetFile(source) as file,
        ):
            _check_names(self.path, list(file.schema_arrow.names), self.fields)
            number, size = 0, size_of(self.path)
            for batch in file.iter_batches(RECORDS, columns=self.fields.names):
                progress.at(size * number // max(1, file.metadata.num_rows))
                for record in batch.to_pylist():
                    number += 1
                    yield _text_of(record, self.fields, f"{self.path}, record {number}")


def _record(line: str, place: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except ValueError as error:
        raise DataError(f"{place}: it is not JSON ({error}); write one record a line") from None
    except RecursionError:
        raise DataError(f"{place}: the record is nested too deeply to be read; write flat fields") from None
    if not isinstance(record, dict):
        raise DataError(f"{place}: it is no record with fields; write one record a line, such as {{...}}")
    return record


def _text_of(record: dict[str, Any], fields: Fields, place: str) -> Text:
    text = record.get(fields.text)
    if not isinstance(text, str):
        there = "is missing" if text is None else f"is {type(text).__name__}"
        raise DataError(
            f"{place}: field {fields.text!r} {there}, and must be a text; it has {_listed(list(record))}"
        )
    _check_characters(text, fields.text, place)
    if fields.row is None:
        return Text(text, None)
    name = record.get(fields.row)
    if name is None or name == "" or not isinstance(name, str | int):
        raise DataError(f"{place}: field {fields.row!r} has no name of a row; fill in a text or a number")
    _check_characters(str(name), fields.row, place)
    return Text(text, str(name))


def _check_characters(text: str, field: str, place: str) -> None:
    """Refuse half of a surrogate pair, which JSON can hold and UTF-8 cannot."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        half = ascii(text[error.start])
        raise DataError(f"{place}: field {field!r} has {half}, which is no character; leave it out") from None


def _check_names(path: FilePath, names: Sequence[str], fields: Fields) -> None:
    for name in fields.names:
        if list(names).count(name) != 1:
            raise DataError(
                f"{path} has not one column {name!r}, and has {_listed(names)}; give the name of a column"
            )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) or "no fields"
