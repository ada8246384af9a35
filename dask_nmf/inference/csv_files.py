"""CSV files: one cell or row of V a line is read, and the values of cells are written."""

from __future__ import annotations

import csv
import re
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TextIO

import numpy as np

from dask_nmf.errors import DataError
from dask_nmf.kernels.summary.means import SOURCES
from dask_nmf.storage import locations
from dask_nmf.storage.local.local_location import LocalLocation
from dask_nmf.storage.locations import Location
from dask_nmf.types import Array

HEADER, MARKED = "row,column,value\n", "row,column,value,source\n"
DELIMITERS = ",\t"
ROW, CELL = ("row",), ("row", "column")  # the columns that are read
ALIASES = {"col": "column"}
NUMBER = re.compile(r"\s*-?\d{1,18}\s*", re.ASCII)
BATCH = 10**6  # lines of a file that are in memory at once
LONGEST = 2**16  # characters of a line, at most
LINES = 2**16  # lines that are written at once


def read_cells(path: Path, shape: tuple[int, int]) -> Iterator[tuple[Array, Array]]:
    """Read the rows and columns of cells from a CSV file, `BATCH` of them at a time.

    Fields are separated by commas or tabs, and may be quoted. If the first line is a header, it names ``row``
    and ``column`` among any other columns. Without a header each line is ``row,column``. Both are counted
    from 0. Lines may be blank.

    Raises
    ------
    DataError
        If a line has no cell of a matrix of this shape, or a header does not name both; it names the line.
    FileNotFoundError
    """
    for cells in _read(path, CELL, shape):
        yield cells[:, 0], cells[:, 1]


def read_rows(path: Path, shape: tuple[int, int]) -> Iterator[Array]:
    """Read numbers of rows from a CSV file, `BATCH` of them at a time.

    The conventions and errors are those of `read_cells`. A header names ``row``, or each line is one number.
    """
    for rows in _read(path, ROW, shape):
        yield rows[:, 0]


def describe_outside(place: Sequence[int], shape: tuple[int, int]) -> str:
    """Return the message for a row, or for a row and a column, that is outside of W H."""
    names = ", ".join(f"{name} {index}" for name, index in zip(CELL, place, strict=False))
    return f"{names} is outside of W H, {shape[0]} x {shape[1]}, counted from 0"


@contextmanager
def create(output: LocalLocation, overwrite: bool, marked: bool = False) -> Iterator[TextIO]:
    """Open a new file for `write`, which appears when it is whole.

    Parameters
    ----------
    marked : whether each line names the source of its value.

    Raises
    ------
    NotADirectoryError, RunLocked, FileExistsError
        As `atomic_output` and `locations.check_replaceable` do.
    """
    check = partial(locations.check_replaceable, output, overwrite, _is_ours, "predict or recommend")
    with (
        output.atomic_output(check) as path,
        open(path, "x", newline="", encoding="ascii") as file,
    ):
        file.write(MARKED if marked else HEADER)
        yield file


def write(file: TextIO, rows: Array, columns: Array, values: Array, sources: Array | None = None) -> None:
    """Write lines of ``row,column,value``; a value is the shortest text that gives the number back.

    Parameters
    ----------
    sources : of the values, as numbers in `means.SOURCES`, for a file that is ``marked``.
    """
    table = csv.writer(file, lineterminator="\n")
    for first in range(0, len(rows), LINES):
        some = slice(first, first + LINES)
        fields = [rows[some], columns[some], values[some].astype(str)]
        if sources is not None:
            fields.append(SOURCES[sources[some]])
        table.writerows(zip(*(field.tolist() for field in fields), strict=True))


def _read(path: Path, names: tuple[str, ...], shape: tuple[int, int]) -> Iterator[Array]:
    """Yield the integers of these columns of a table, (lines, columns), `BATCH` lines at a time."""
    needed = ",".join(names)
    if not path.exists():
        raise FileNotFoundError(f"there is nothing at {path}; give a CSV file of {needed}")
    if path.is_dir():
        raise DataError(f"{path} is a folder; give a CSV file of {needed}")
    integers, places, width = array("q"), None, 0
    for number, fields in _records(path, names):
        line = f"{path}, line {number}"
        if places is None:
            named = _named(fields, names, line)
            places, width = named or range(len(names)), len(fields) if named else len(names)
            if named:
                continue
        integers.extend(_integers(fields, places, width, line))
        if any(not 0 <= index < size for index, size in zip(integers[-len(names) :], shape, strict=False)):
            raise DataError(f"{line}: {describe_outside(integers[-len(names) :], shape)}")
        if len(integers) == len(names) * BATCH:
            yield _in_columns(integers, names)
            integers = array("q")
    yield _in_columns(integers, names)


def _records(path: Path, names: tuple[str, ...]) -> Iterator[tuple[int, list[str]]]:
    """Yield the number and the fields of each line that is not blank."""
    with open(path, encoding="utf-8-sig", errors="replace", newline="") as file:
        lines = _lines(file, path)
        first = []
        for line in lines:
            first.append(line)
            if not line.isspace():
                break
        delimiter = _delimiter("".join(first[-1:]), names)
        reader = csv.reader(chain(first, lines), delimiter=delimiter, skipinitialspace=True)
        try:
            for fields in reader:
                if len(fields) > 1 or "".join(fields).strip():
                    yield reader.line_num, fields
        except csv.Error as error:
            raise DataError(f"{path}, line {reader.line_num}: {error}; write a CSV file") from None


def _lines(file: TextIO, path: Path) -> Iterator[str]:
    """Yield the lines of a file; refuse a line that is too long."""
    for number, line in enumerate(iter(partial(file.readline, LONGEST), ""), 1):
        if len(line) == LONGEST and not line.endswith(("\n", "\r")):
            raise DataError(f"{path}, line {number}: {line[:60]!r}... is longer than {LONGEST} characters")
        yield line


def _delimiter(line: str, names: tuple[str, ...]) -> str:
    """Return the delimiter with which the first line is a header or a record."""
    for delimiter in DELIMITERS:
        fields = next(csv.reader([line], delimiter=delimiter, skipinitialspace=True), [])
        if _places(fields, names) or (len(fields) == len(names) and all(map(NUMBER.fullmatch, fields))):
            return delimiter
    return DELIMITERS[0] if DELIMITERS[0] in line else DELIMITERS[1]


def _places(fields: list[str], names: tuple[str, ...]) -> list[int] | None:
    """Return the places of these names in a header that has each once, else None."""
    header = [ALIASES.get(name, name) for name in (field.strip().lower() for field in fields)]
    return [header.index(name) for name in names] if all(header.count(name) == 1 for name in names) else None


def _named(fields: list[str], names: tuple[str, ...], line: str) -> list[int] | None:
    """Return the places of these names in a first line; None if the line is a record of numbers."""
    places = _places(fields, names)
    if places is None and not any(map(NUMBER.fullmatch, fields)):
        raise DataError(
            f"{line}: {_shown(fields)} does not name {' and '.join(names)} once each; "
            f"name them in the header, or leave it out and write {','.join(names)} in each line"
        )
    return places


def _integers(fields: list[str], places: Sequence[int], width: int, line: str) -> list[int]:
    """Return the integers of a line, at these places of ``width`` fields."""
    if len(fields) != width or not all(NUMBER.fullmatch(fields[place]) for place in places):
        kind, needed = ("integer", "row") if len(places) == 1 else ("pair of integers", "row,column")
        if width > len(places):
            raise DataError(
                f"{line}: {_shown(fields)} has no {kind} where the header has {needed}, among {width} fields"
            )
        others = ", and name all columns in a header if there are others" if len(fields) > width else ""
        raise DataError(f"{line}: {_shown(fields)} is no {kind}; write {needed}, counted from 0{others}")
    return [int(fields[place]) for place in places]


def _shown(fields: list[str]) -> str:
    return repr(",".join(fields).strip()[:60])


def _in_columns(integers: array[int], names: tuple[str, ...]) -> Array:
    return np.array(integers, np.int64).reshape(-1, len(names))


def _is_ours(place: Location) -> bool:
    if place.path is None or not place.path.is_file():  # a pipe would be waited for
        return False
    with place.path.open(encoding="ascii") as file:
        return file.readline(len(MARKED)) in (HEADER, MARKED)
