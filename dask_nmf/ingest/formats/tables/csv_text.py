"""The text of CSV files: what the first line tells, and which line an error is about.

pyarrow parses the records. What is here reads a file only up to a line.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import BinaryIO, NamedTuple, TextIO

import numpy as np

from dask_nmf.errors import DataError, readable
from dask_nmf.ingest.files import BUFFER, FilePath, has_suffix, open_content
from dask_nmf.ingest.options import ROUNDING
from dask_nmf.ingest.rows import check_wanted
from dask_nmf.kernels.entries.lines import end_of_lines
from dask_nmf.wording import counted

NULLS = ("", "NA", "N/A", "#N/A", "NaN", "nan", "NULL", "null", "None", "-nan", "-NaN")
DELIMITERS = "\t", ";", ","
QUOTED = re.compile(r'"[^"]*"')
REPLACED = "\ufffd"  # what Python reads for bytes that are not UTF-8
DIGITS = 300  # of an integer that are looked at
SHOWN = 60  # characters of a line in a message
LONGEST = 2**28  # characters of a line, at most
LONGEST_QUOTED = 2**26  # bytes of records with a quoted field that spans lines, at most, about


class CsvLayout(NamedTuple):
    """The layout of a file, as its first lines show it."""

    delimiter: str
    width: int  # fields of each line
    names: list[str] | None  # of the columns, if the first line is a header
    skipped: int  # lines before the first record
    line_bytes: int  # of the longer of the first two lines


def read_layout(path: FilePath) -> CsvLayout:
    """Return the layout of a CSV file, whose first line is a header unless each of its fields is a number.

    Fields are separated by tabs in a ``.tsv``, and else by the first of tab, semicolon and comma that the
    line has outside of quotes. A line of numbers whose first field alone is empty is the header that pandas
    and R write for columns that are named by numbers.

    Raises
    ------
    DataError
        If it is empty or no text; if its first line has numbers and fields for missing ones, which may be a
        header or a record.
    """
    with readable(path, "write a CSV file"), _open(path, "surrogateescape") as file:
        for number, line in enumerate(iter(lambda: file.readline(LONGEST), "")):
            if line.strip():
                if not _is_utf8(line):
                    shown = repr(line.encode(errors="replace").decode().strip()[:SHOWN])
                    raise DataError(
                        f"{path}, line {number + 1}: {shown} is not UTF-8; save the file as UTF-8"
                    )
                longer = max(line, file.readline(LONGEST), key=len)
                return _layout(path, line, number, len(longer.encode(errors="surrogateescape")))
    raise DataError(f"{path} is empty; it must have at least one record")


def line_of(path: FilePath, layout: CsvLayout, record: int) -> int:
    """Return the number of the line, from 1, that has a record, counted from 0."""
    for found, (line, _) in enumerate(_records(path, layout)):
        if found == record:
            return line
    return 0


def offset_of(path: FilePath, layout: CsvLayout, record: int) -> int | None:
    """Return how many bytes of a file's content are before a record, counted from 0; None if that is its end.

    Raises
    ------
    DataError
        If there are fewer records before the end.
    """
    offset, skipped, quoted = 0, layout.skipped, False
    with open_content(path) as file:
        pieces = whole_lines(file, BUFFER)
        for text in pieces:
            content, done = np.frombuffer(text, np.uint8), 0
            if skipped > 0:
                done, skipped, _ = end_of_lines(content, skipped, True, -1, False)
            if skipped == 0 and record > 0:
                lines = content[done:], record, layout.width == 1, ord(layout.delimiter), quoted
                more, record, quoted = end_of_lines(*lines)
                done += more
            offset += done
            if skipped == record == 0:
                rest = chain([text[done:]], pieces)
                has_records = any(left if layout.width == 1 else left.strip(b"\r\n") for left in rest)
                return offset if has_records else None
    raise DataError(f"{path} has {record} records fewer than were read before; convert it anew")


def whole_lines(file: BinaryIO, size: int) -> Iterator[bytes]:
    """Yield the content of a file in pieces of whole lines; the last line is given an end if it has none.

    Parameters
    ----------
    size : in bytes, of a piece, about
    """
    rest = b""
    while text := file.read(size):
        newline = text.rfind(b"\n")
        edge = 1 + max(newline, text.rfind(b"\r", newline + 1, -1))  # a newline may follow the last return
        if edge > 0:
            yield b"".join((rest, memoryview(text)[:edge]))
            rest = text[edge:]
        else:
            rest += text
    if rest:
        yield rest if rest.endswith(b"\r") else rest + b"\n"


def ends_quoted(text: bytes, delimiter: str, quoted: bool = False) -> bool:
    """Return whether a text of whole lines ends inside of a quoted field; ``quoted``: it begins in one."""
    if not quoted and b'"' not in text:
        return False
    lines = np.frombuffer(text, np.uint8), len(text) + 1, True, ord(delimiter), quoted
    ends: bool = end_of_lines(*lines)[2]
    return ends


def refuse_open_quote(path: FilePath, layout: CsvLayout) -> None:
    """Raise `DataError` about the line with the quote that nothing closes, or nothing that is near."""
    opened = size = 0
    with _open(path) as file:
        for number, line in enumerate(file, 1):
            check_wanted()
            if number <= layout.skipped or not ends_quoted(line.encode(), layout.delimiter, size > 0):
                size = 0
                continue
            opened = opened if size else number
            size += len(line)
            if size > LONGEST_QUOTED:
                break
    raise DataError(
        f"{path}, line {opened}: a field begins with a quote, which nothing closes; close the field"
    )


def refuse_first_bad_line(path: FilePath, layout: CsvLayout, numbers: Sequence[int]) -> None:
    """Raise `DataError` about the first line with another number of fields, a text for a number, or no UTF-8.

    Parameters
    ----------
    numbers : the columns that hold numbers
    """
    for line, fields in _records(path, layout):
        shown = repr(layout.delimiter.join(fields)[:SHOWN])
        if len(fields) != layout.width:
            raise DataError(
                f"{path}, line {line}: {shown} has {counted(len(fields), 'field')}, and the first line has "
                f"{layout.width}; correct the line, or quote fields that contain {layout.delimiter!r}"
            )
        for index in numbers:
            if not _is_number_or_null(fields[index]):
                name = index + 1 if layout.names is None else repr(layout.names[index])
                raise DataError(
                    f"{path}, line {line}: {fields[index][:SHOWN]!r} in column {name} is no number; "
                    "correct it, or give --row COLUMN if the column holds the names of rows, "
                    "or --row, --column and --value if each line is an entry of V"
                )
        if REPLACED in "".join(fields):
            raise DataError(f"{path}, line {line}: {shown} is not UTF-8; save the file as UTF-8")


def refuse_rounded(path: FilePath, layout: CsvLayout, numbers: Sequence[int]) -> None:
    """Raise `DataError` about the first integer in some columns that float64 does not hold."""
    for line, fields in _records(path, layout):
        for index in numbers:
            text = fields[index].strip() if index < len(fields) else ""
            if text.isdecimal() and text.isascii() and int(text[:DIGITS]) != int(float(text[:DIGITS])):
                name = index + 1 if layout.names is None else repr(layout.names[index])
                raise DataError(
                    f"{path}, line {line}, column {name}: {text[:SHOWN]} is not exact as float64; {ROUNDING}"
                )


def _layout(path: FilePath, line: str, number: int, line_bytes: int) -> CsvLayout:
    unquoted = QUOTED.sub("", line)
    delimiter = (
        "\t"
        if has_suffix(path, (".tsv", ".tsv.gz"))
        else next((one for one in DELIMITERS if one in unquoted), ",")
    )
    fields = [field.strip() for field in next(csv.reader([line], delimiter=delimiter))]
    numbers = [_is_number(field) for field in fields]
    header = not all(numbers)
    nulls = [index for index, field in enumerate(fields) if field in NULLS and not numbers[index]]
    if header and numbers.count(False) == len(nulls) and not (nulls == [0] and fields[0] == ""):
        raise DataError(
            f"{path}, line {number + 1}: {line.strip()[:SHOWN]!r} may be a header or a record with missing "
            "values; put a line with the names of the columns before it, or name its empty columns"
        )
    return CsvLayout(delimiter, len(fields), fields if header else None, number + header, line_bytes)


def _is_number_or_null(text: str) -> bool:
    return text.strip() in NULLS or _is_number(text)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return "_" not in text


def _records(path: FilePath, layout: CsvLayout) -> Iterator[tuple[int, list[str]]]:
    """Yield the number and the fields of each record; an empty line is one if there is one column."""
    csv.field_size_limit(LONGEST)
    with _open(path) as file:
        for number, line in enumerate(file, 1):
            check_wanted()
            if number > layout.skipped and (layout.width == 1 or line.rstrip("\r\n")):
                yield number, next(csv.reader([line], delimiter=layout.delimiter)) or [""]


def _is_utf8(line: str) -> bool:
    """Return whether a line has no bytes that ``surrogateescape`` let through."""
    return line.isascii() or not any("\udc80" <= letter <= "\udcff" for letter in line)


def _open(path: FilePath, errors: str = "replace") -> TextIO:
    """Open a file as text; characters that are not UTF-8 are replaced, or as ``errors`` says."""
    return io.TextIOWrapper(open_content(path), encoding="utf-8-sig", errors=errors)
