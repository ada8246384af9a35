"""CSV files: cells or rows of V to look at, one a line, and the values that are written for them."""

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
from dask_nmf.storage.local.atomic_output import atomic_output
from dask_nmf.storage.objects.urls import is_url
from dask_nmf.types import Array

HEADER, MARKED = "row,column,value\n", "row,column,value,source\n"
DELIMITERS = ",\t"
ROW, CELL = ("row",), ("row", "column")  # the columns of a table that are read
ALIASES = {"col": "column"}
NUMBER = re.compile(r"\s*-?\d{1,18}\s*", re.ASCII)
BATCH = 10**6  # lines of a file that are in memory
LONGEST = 2**16  # characters of a line
LINES = 2**16  # lines that are made at once


def read_cells(path: str, shape: tuple[int, int]) -> Iterator[tuple[Array, Array]]:
    """Read the rows and columns of cells from a CSV file, `BATCH` of them at a time.

    Fields are separated by commas or tabs, and may be quoted. A first line that names ``row`` and ``column``
    says where they are, among any others. Without names each line is ``row,column``. Both are counted from 0.
    Lines may be blank.

    Raises
    ------
    DataError
        With the first line that has no cell of a matrix of this shape; with a header that does not name both.
    FileNotFoundError
    """
    for cells in _read(path, CELL, shape):
        yield cells[:, 0], cells[:, 1]


def read_rows(path: str, shape: tuple[int, int]) -> Iterator[Array]:
    """Read numbers of rows from a CSV file, `BATCH` of them at a time.

    The conventions and errors are those of `read_cells`: a header names ``row``, or each line is one number.
    """
    for rows in _read(path, ROW, shape):
        yield rows[:, 0]


def outside(place: Sequence[int], shape: tuple[int, int]) -> str:
    """What to say of a row, or of a row and a column, outside of W H."""
    given = ", ".join(f"{name} {index}" for name, index in zip(CELL, place, strict=False))
    return f"{given} is outside of W H, {shape[0]} x {shape[1]}, counted from 0"


@contextmanager
def new(output: str, overwrite: bool, marked: bool = False) -> Iterator[TextIO]:
    """A file for `write`, which appears when it is whole; ``marked``: each line tells its source.

    Raises
    ------
    NotADirectoryError, RunLocked, FileExistsError
        As `atomic_output` and `locations.check_replaceable` do.
    """
    place = locations.absolute(output)
    if is_url(place):
        raise ValueError(f"{place} is the URL of a store, and this output is a file; give a path")
    where = locations.locate(place)
    where.check_creatable()
    check = partial(locations.check_replaceable, where, overwrite, _is_ours, "predict or recommend")
    with (
        atomic_output(Path(place), check) as made,
        made.open("x", newline="", encoding="ascii") as file,
    ):
        file.write(MARKED if marked else HEADER)
        yield file


def write(file: TextIO, rows: Array, columns: Array, values: Array, sources: Array | None = None) -> None:
    """Add lines of ``row,column,value``; a value is the shortest text of its number.

    ``sources``: numbers in `means.SOURCES`, for tables that are marked.
    """
    table = csv.writer(file, lineterminator="\n")
    for first in range(0, len(rows), LINES):
        some = slice(first, first + LINES)
        fields = [rows[some], columns[some], values[some].astype(str)]
        if sources is not None:
            fields.append(SOURCES[sources[some]])
        table.writerows(zip(*(field.tolist() for field in fields), strict=True))


def _read(path: str, names: tuple[str, ...], shape: tuple[int, int]) -> Iterator[Array]:
    """Read the integers of these columns of a table, (lines, columns), `BATCH` lines at a time."""
    needed = ",".join(names)
    if not Path(path).exists():
        raise FileNotFoundError(f"there is nothing at {path}; give a CSV file of {needed}")
    if Path(path).is_dir():
        raise DataError(f"{path} is a folder; give a CSV file of {needed}")
    held, places, width = array("q"), None, 0
    for number, fields in _records(path, names):
        line = f"{path}, line {number}"
        if places is None:
            named = _named(fields, names, line)
            places, width = named or range(len(names)), len(fields) if named else len(names)
            if named:
                continue
        held.extend(_integers(fields, places, width, line))
        if any(not 0 <= index < size for index, size in zip(held[-len(names) :], shape, strict=False)):
            raise DataError(f"{line}: {outside(held[-len(names) :], shape)}")
        if len(held) == len(names) * BATCH:
            yield _in_columns(held, names)
            held = array("q")
    yield _in_columns(held, names)


def _records(path: str, names: tuple[str, ...]) -> Iterator[tuple[int, list[str]]]:
    """Read the fields of each line that is not blank, with its number."""
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


def _lines(file: TextIO, path: str) -> Iterator[str]:
    for number, line in enumerate(iter(partial(file.readline, LONGEST), ""), 1):
        if len(line) == LONGEST and not line.endswith(("\n", "\r")):
            raise DataError(f"{path}, line {number}: {line[:60]!r}... is longer than {LONGEST} characters")
        yield line


def _delimiter(line: str, names: tuple[str, ...]) -> str:
    """The delimiter by which a table's first line makes sense."""
    for delimiter in DELIMITERS:
        fields = next(csv.reader([line], delimiter=delimiter, skipinitialspace=True), [])
        if _places(fields, names) or (len(fields) == len(names) and all(map(NUMBER.fullmatch, fields))):
            return delimiter
    return DELIMITERS[0] if DELIMITERS[0] in line else DELIMITERS[1]


def _places(fields: list[str], names: tuple[str, ...]) -> list[int] | None:
    """Where a header has these names, each once; None if it has not."""
    found = [ALIASES.get(name, name) for name in (field.strip().lower() for field in fields)]
    return [found.index(name) for name in names] if all(found.count(name) == 1 for name in names) else None


def _named(fields: list[str], names: tuple[str, ...], line: str) -> list[int] | None:
    """Where the first line of a table has these names; None if it begins with numbers at once."""
    places = _places(fields, names)
    if places is None and not any(map(NUMBER.fullmatch, fields)):
        raise DataError(
            f"{line}: {_shown(fields)} does not name {' and '.join(names)} once each; "
            f"name them in the header, or leave it out and write {','.join(names)} in each line"
        )
    return places


def _integers(fields: list[str], places: Sequence[int], width: int, line: str) -> list[int]:
    """The integers of a line, at these places of ``width`` fields."""
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


def _in_columns(held: array[int], names: tuple[str, ...]) -> Array:
    return np.array(held, np.int64).reshape(-1, len(names))


def _is_ours(place: str) -> bool:
    if not Path(place).is_file():  # a pipe would be waited for
        return False
    with open(place, encoding="ascii") as file:
        return file.readline(len(MARKED)) in (HEADER, MARKED)
