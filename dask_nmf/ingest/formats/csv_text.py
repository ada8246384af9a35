"""The text of CSV files: what the first line tells, and which line an error is about.

pyarrow parses the records. What is here reads a file only up to a line.
"""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple, TextIO, cast

from dask_nmf.errors import DataError, readable

NULLS = ("", "NA", "N/A", "#N/A", "NaN", "nan", "NULL", "null", "None", "-nan", "-NaN")
DELIMITERS = "\t", ";", ","
REPLACED = "\ufffd"  # what Python reads for bytes that are not UTF-8
SHOWN = 60  # characters of a line in a message
LONGEST = 2**28  # characters of a line, at most


class CsvLayout(NamedTuple):
    """What the first line of a file tells."""

    delimiter: str
    width: int  # fields of each line
    names: list[str] | None  # of the columns, if the first line is a header
    skipped: int  # lines before the first record
    line_bytes: int  # of the longer of the first two lines


def read_layout(path: Path) -> CsvLayout:
    """Return the layout of a CSV file, whose first line is a header unless each of its fields is a number.

    Fields are separated by tabs in a ``.tsv``, and else by the first of tab, semicolon and comma that the
    line has.

    Raises
    ------
    DataError
        If it is empty or no text.
    """
    with readable(path, "write a CSV file"), _open(path) as file:
        for number, line in enumerate(iter(lambda: file.readline(LONGEST), "")):
            if line.strip():
                longer = max(line, file.readline(LONGEST), key=len)
                return _layout(path, line, number, len(longer.encode()))
    raise DataError(f"{path} is empty; it must have at least one record")


def line_of(path: Path, layout: CsvLayout, record: int) -> int:
    """Return the number of the line, from 1, that has a record, counted from 0."""
    for found, (line, _) in enumerate(_records(path, layout)):
        if found == record:
            return line
    return 0


def refuse_first_bad_line(path: Path, layout: CsvLayout, numbers: Sequence[int]) -> None:
    """Raise `DataError` about the first line with another number of fields, a text for a number, or no UTF-8.

    Parameters
    ----------
    numbers : the columns that hold numbers
    """
    for line, fields in _records(path, layout):
        shown = repr(layout.delimiter.join(fields)[:SHOWN])
        if len(fields) != layout.width:
            raise DataError(
                f"{path}, line {line}: {shown} has {len(fields)} fields, and the first line has "
                f"{layout.width}; correct the line, or quote fields that contain {layout.delimiter!r}"
            )
        for index in numbers:
            if not _is_number(fields[index]):
                name = index + 1 if layout.names is None else repr(layout.names[index])
                raise DataError(
                    f"{path}, line {line}: {fields[index][:SHOWN]!r} in column {name} is no number; "
                    "correct it, or give --row COLUMN if the column holds the names of rows"
                )
        if REPLACED in "".join(fields):
            raise DataError(f"{path}, line {line}: {shown} is not UTF-8; save the file as UTF-8")


def _layout(path: Path, line: str, number: int, line_bytes: int) -> CsvLayout:
    delimiter = "\t" if ".tsv" in path.suffixes else next((one for one in DELIMITERS if one in line), ",")
    fields = next(csv.reader([line], delimiter=delimiter))
    header = not all(_is_number(field) for field in fields)
    names = [field.strip() for field in fields] if header else None
    return CsvLayout(delimiter, len(fields), names, number + header, line_bytes)


def _is_number(text: str) -> bool:
    if text.strip() in NULLS:
        return True
    try:
        float(text)
    except ValueError:
        return False
    return "_" not in text


def _records(path: Path, layout: CsvLayout) -> Iterator[tuple[int, list[str]]]:
    """Yield the number and the fields of each line that is a record."""
    csv.field_size_limit(LONGEST)
    with _open(path) as file:
        for number, line in enumerate(file, 1):
            if number > layout.skipped and line.rstrip("\r\n"):
                yield number, next(csv.reader([line], delimiter=layout.delimiter))


def _open(path: Path) -> TextIO:
    """Open a file as text; characters that are not UTF-8 are replaced."""
    binary = cast(BinaryIO, gzip.GzipFile(path)) if path.suffix == ".gz" else path.open("rb")
    return io.TextIOWrapper(binary, encoding="utf-8-sig", errors="replace")
