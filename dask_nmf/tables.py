"""CSV files: cells of W H, one a line, and the values there."""

from __future__ import annotations

import csv
import re
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TextIO

import numpy as np

from dask_nmf import outputs, places
from dask_nmf.errors import DataError
from dask_nmf.kernels import Array
from dask_nmf.objects import is_url

HEADER = "row,column,value\n"
CELL = re.compile(r"\s*(-?\d{1,18})\s*,\s*(-?\d{1,18})\s*", re.ASCII)
NAMES = re.compile(r'\s*"?[^\W\d][^,]*,\s*"?[^\W\d][^,]*')
BATCH = 10**6  # cells of a file that are in memory
LONGEST = 2**12  # characters of a line
LINES = 2**16  # lines that are made at once


def read_cells(path: str, shape: tuple[int, int]) -> Iterator[tuple[Array, Array]]:
    """Rows and columns of a file of ``row,column``, counted from 0, `BATCH` at a time.

    Its first line may be names, and lines may be blank.

    Raises
    ------
    DataError
        With the first line that has no cell of a matrix of this shape.
    FileNotFoundError
    """
    if not Path(path).exists():
        raise FileNotFoundError(f"there is nothing at {path}; give a CSV file of row,column")
    if Path(path).is_dir():
        raise DataError(f"{path} is a folder; give a CSV file of row,column")
    held = array("q")
    with open(path, encoding="utf-8-sig", errors="replace") as lines:
        for number, line in enumerate(iter(partial(lines.readline, LONGEST), ""), 1):
            held.extend(_cell(line, f"{path}, line {number}", shape, number == 1))
            if len(held) == 2 * BATCH:
                yield _in_columns(held)
                held = array("q")
    yield _in_columns(held)


def outside(row: int, column: int, shape: tuple[int, int]) -> str:
    """What to say of a cell that is outside of W H."""
    return f"row {row}, column {column} is outside of W H, {shape[0]} x {shape[1]}, counted from 0"


@contextmanager
def new(output: str, overwrite: bool) -> Iterator[TextIO]:
    """A file for `write`, which appears when it is whole.

    Raises
    ------
    NotADirectoryError, FileExistsError
        As `places.check` does.
    """
    place = places.absolute(output)
    if is_url(place):
        raise ValueError(f"{place} is the URL of a store, and this output is a file; give a path")
    places.check(places.at(place), overwrite, _is_ours, "predict or recommend")
    with outputs.appearing(Path(place)) as partial, partial.open("x", newline="", encoding="ascii") as file:
        file.write(HEADER)
        yield file


def write(file: TextIO, rows: Array, columns: Array, values: Array) -> None:
    """Add lines of ``row,column,value``; a value is the shortest text of its number."""
    table = csv.writer(file, lineterminator="\n")
    for first in range(0, len(rows), LINES):
        some = slice(first, first + LINES)
        texts = values[some].astype(str)
        table.writerows(zip(rows[some].tolist(), columns[some].tolist(), texts.tolist(), strict=True))


def _cell(line: str, place: str, shape: tuple[int, int], first: bool) -> tuple[int, ...]:
    """The cell of a line; nothing for a blank line, and for one of names if it is the first."""
    match = CELL.fullmatch(line) if len(line) < LONGEST else None
    if match is None:
        if len(line) < LONGEST and (line.isspace() or (first and NAMES.fullmatch(line))):
            return ()
        given = repr(line.strip()[:60])
        raise DataError(f"{place}: {given} is no pair of integers; write row,column, counted from 0")
    row, column = int(match[1]), int(match[2])
    if not (0 <= row < shape[0] and 0 <= column < shape[1]):
        raise DataError(f"{place}: {outside(row, column, shape)}")
    return row, column


def _in_columns(held: array[int]) -> tuple[Array, Array]:
    cells = np.array(held, np.int64).reshape(-1, 2)
    return cells[:, 0], cells[:, 1]


def _is_ours(place: str) -> bool:
    with open(place, encoding="ascii") as file:
        return file.read(len(HEADER)) == HEADER
