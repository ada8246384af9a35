"""CSV files of the values of cells, which appear when they are whole."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TextIO

from dask_nmf.kernels.summary.means import SOURCES
from dask_nmf.sources.labels.names import Names, gather
from dask_nmf.storage import locations
from dask_nmf.storage.local.local_location import LocalLocation
from dask_nmf.storage.locations import Location
from dask_nmf.types import Array

HEADER, MARKED = "row,column,value\n", "row,column,value,source\n"
LINES = 2**16  # lines that are written at once


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
        open(path, "x", newline="", encoding="utf-8") as file,
    ):
        file.write(MARKED if marked else HEADER)
        yield file


def write(file: TextIO, rows: Array, columns: Array, values: Array, sources: Array | None = None) -> None:
    """Write lines of ``row,column,value``; a value is the shortest text that gives the number back.

    Parameters
    ----------
    rows, columns : numbers or names.
    sources : of the values, as numbers in `means.SOURCES`, for a file that is ``marked``.
    """
    table = csv.writer(file, lineterminator="\n")
    for first in range(0, len(rows), LINES):
        some = slice(first, first + LINES)
        fields = [rows[some], columns[some], values[some].astype(str)]
        if sources is not None:
            fields.append(SOURCES[sources[some]])
        table.writerows(zip(*(field.tolist() for field in fields), strict=True))


def named(names: Names | None, numbers: Array) -> Array:
    """Return the names of some rows or columns; their numbers where there are no names."""
    return numbers if names is None else gather(names, numbers)


def _is_ours(place: Location) -> bool:
    if place.path is None or not place.path.is_file():  # a pipe would be waited for
        return False
    with place.path.open(encoding="utf-8") as file:
        return file.readline(len(MARKED)) in (HEADER, MARKED)
