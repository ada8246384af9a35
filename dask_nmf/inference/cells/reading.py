"""CSV files of which each line is a cell, or a row, of V: they are read by number or by name."""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dask_nmf.errors import DataError
from dask_nmf.inference.cells.records import records
from dask_nmf.sources.labels.index import NameIndex
from dask_nmf.sources.labels.names import NO_LABELS, Labels, Names
from dask_nmf.types import Array

CELL = ("row", "column")
NUMBERED = "_number"  # the end of the heading of numbers, where a row or a column has names too
ALIASES = {"col": "column", f"col{NUMBERED}": f"column{NUMBERED}"}
NUMBER = re.compile(r"\s*-?\d{1,18}\s*", re.ASCII)
BATCH = 10**6  # lines of a file that are in memory at once


def read_cells(
    path: Path, shape: tuple[int, int], labels: Labels = NO_LABELS
) -> Iterator[tuple[Array, Array]]:
    """Read the numbers of rows and columns of cells from a CSV file, `BATCH` of them at a time.

    Fields are separated by commas or tabs, and may be quoted. If the first line is a header, it names ``row``
    and ``column`` among any other columns. Without a header each line is ``row,column``. Both are counted
    from 0. Lines may be blank.

    Where the rows, or the columns, have names, a field is a name, also if it looks like a number. Numbers of
    such rows stand below ``row_number`` in a header, and those of columns below ``column_number``.

    Raises
    ------
    DataError
        If a line has no cell of a matrix of this shape, or a name that no or several rows have; if a header
        does not name both. The error names the line.
    FileNotFoundError
    """
    sides = map(Side, CELL, shape, (labels.rows, labels.columns))
    for cells in _read(path, list(sides), shape):
        yield cells[:, 0], cells[:, 1]


def read_rows(path: Path, shape: tuple[int, int], labels: Labels = NO_LABELS) -> Iterator[Array]:
    """Read numbers of rows from a CSV file, `BATCH` of them at a time.

    The conventions and errors are those of `read_cells`. A header names ``row``, or each line is one row.
    """
    for rows in _read(path, [Side("row", shape[0], labels.rows)], shape):
        yield rows[:, 0]


def describe_outside(place: Sequence[int], shape: tuple[int, int]) -> str:
    """Return the message for a row, or for a row and a column, that is outside of W H."""
    return _describe_outside(list(zip(CELL, place, strict=False)), shape)


def _describe_outside(places: Sequence[tuple[str, int]], shape: tuple[int, int]) -> str:
    listed = ", ".join(f"{dimension} {number}" for dimension, number in places)
    return f"{listed} is outside of W H, {shape[0]} x {shape[1]}, counted from 0"


class Side(NamedTuple):
    """The rows, or the columns, of a matrix, one of which is read from each line."""

    dimension: str
    size: int
    names: Names | None  # by which they are found; None: by their numbers

    @property
    def by_name(self) -> bool:
        """Whether they are found by their names."""
        return self.names is not None


class Form(NamedTuple):
    """The form of the lines of a file."""

    sides: list[Side]  # one that is read by number has no names here
    places: Sequence[int]  # of their fields
    width: int  # how many fields a line has
    has_header: bool


def _read(path: Path, sides: list[Side], shape: tuple[int, int]) -> Iterator[Array]:
    """Yield the numbers of rows or columns that a table has, (lines, sides), `BATCH` lines at a time."""
    needed = ",".join(side.dimension for side in sides)
    if not path.exists():
        raise FileNotFoundError(f"there is nothing at {path}; give a CSV file of {needed}")
    if path.is_dir():
        raise DataError(f"{path} is a folder; give a CSV file of {needed}")
    lines: Lines | None = None
    for number, fields in records(path, partial(_is_first, sides)):
        if lines is None:
            form = _form_of(fields, sides, f"{path}, line {number}")
            lines = Lines(path, form, shape)
            if form.has_header:
                continue
        lines.add(number, fields)
        if len(lines.numbers) == BATCH:
            yield lines.take()
    if lines is not None:
        yield lines.take()


class Lines:
    """Lines that are read one by one, and whose names are looked up together.

    Attributes
    ----------
    numbers : the numbers of the lines in the file, since the last `take`
    """

    def __init__(self, path: Path, form: Form, shape: tuple[int, int]) -> None:
        pairs = list(zip(form.sides, form.places, strict=True))
        self.numbers = array("q")
        self._first: int | None = None  # the number of the first line
        self._path, self._form, self._shape = path, form, shape
        self._numbered = [(side, place, array("q")) for side, place in pairs if not side.by_name]
        self._named = [(side, place, list[str]()) for side, place in pairs if side.by_name]
        self._indexes: dict[str, NameIndex] = {}

    def add(self, number: int, fields: list[str]) -> None:
        """Read a line; refuse one without such a record, or with a number that is outside of the matrix."""
        line, form = f"{self._path}, line {number}", self._form
        if len(fields) != form.width or not all(NUMBER.fullmatch(fields[at]) for _, at, _ in self._numbered):
            needed = _needed(fields, form)
            if self._first is None and not form.has_header and not any(map(NUMBER.fullmatch, fields)):
                needed += f"; if this line is a header, it must have {_headings(form.sides)}"
            raise DataError(f"{line}: {_shown(fields)} {needed}")
        self.numbers.append(number)
        self._first = self._first or number
        for _, place, texts in self._named:
            texts.append(fields[place])
        for _, place, integers in self._numbered:
            integers.append(int(fields[place]))
        if any(not 0 <= integers[-1] < side.size for side, _, integers in self._numbered):
            places = [(side.dimension, integers[-1]) for side, _, integers in self._numbered]
            raise DataError(f"{line}: {_describe_outside(places, self._shape)}")

    def take(self) -> Array:
        """Return the rows and columns of the lines since the last time, (lines, sides), as numbers."""
        found = {side.dimension: np.array(integers, np.int64) for side, _, integers in self._numbered}
        found |= {side.dimension: self._find(side, texts) for side, _, texts in self._named}
        for _, _, integers in self._numbered:
            del integers[:]
        for _, _, texts in self._named:
            texts.clear()
        del self.numbers[:]
        return np.stack([found[side.dimension] for side in self._form.sides], axis=1)

    def _find(self, side: Side, texts: list[str]) -> Array:
        """Return the numbers of names; refuse one that no or several rows have."""
        assert side.names is not None
        if side.dimension not in self._indexes:
            self._indexes[side.dimension] = NameIndex(side.names, side.dimension)
        index = self._indexes[side.dimension]
        found = index.find(texts)
        if (found < 0).any():
            first = int((found < 0).argmax())
            raise DataError(
                f"{self._path}, line {self.numbers[first]}: {index.describe(texts[first])}; "
                f"{self._cure(side, self.numbers[first])}"
            )
        return found

    def _cure(self, side: Side, number: int) -> str:
        """Return the cure for a name that is not found; the first line may be a header with other names."""
        number_heading = f"{side.dimension}{NUMBERED}"
        if self._form.has_header or number != self._first:
            return f"a number stands below {number_heading} in a header"
        headings = _headings(self._form.sides)
        return f"if this line is a header, it must have {headings}; a number stands below {number_heading}"


def _is_first(sides: list[Side], fields: list[str]) -> bool:
    """Return whether fields are those of a header, or of a record without other fields."""
    if _header_of(fields, sides) is not None:
        return True
    pairs = zip(sides, fields, strict=False)
    return len(fields) == len(sides) and all(side.by_name or NUMBER.fullmatch(field) for side, field in pairs)


def _form_of(fields: list[str], sides: list[Side], line: str) -> Form:
    """Return the form of a file by the fields of its first line; refuse a header that does not name all."""
    header = _header_of(fields, sides)
    if header is not None:
        return header
    is_record = len(fields) == len(sides) and any(side.by_name for side in sides)
    if not is_record and not any(map(NUMBER.fullmatch, fields)):
        dimensions = [side.dimension for side in sides]
        raise DataError(
            f"{line}: {_shown(fields)} does not name {' and '.join(dimensions)} once each; "
            f"name them in the header, or leave it out and write {','.join(dimensions)} in each line"
        )
    return Form(sides, range(len(sides)), len(sides), has_header=False)


def _header_of(fields: list[str], sides: list[Side]) -> Form | None:
    """Return the form that a header describes, if each side is named in it once, by name or by number."""
    headings = [ALIASES.get(name, name) for name in (field.strip().lower() for field in fields)]
    wanted, places = [], []
    for side in sides:
        at = [place for place, name in enumerate(headings) if name.removesuffix(NUMBERED) == side.dimension]
        if len(at) != 1:
            return None
        wanted.append(side if headings[at[0]] == side.dimension else side._replace(names=None))
        places += at
    return Form(wanted, places, len(fields), has_header=True)


def _needed(fields: list[str], form: Form) -> str:
    """Return the end of the message for a line that has no record."""
    needed = ",".join(side.dimension for side in form.sides)
    kind = "integer" if len(form.sides) == 1 else "pair of integers"
    if any(side.by_name for side in form.sides):
        kinds = [f"{'name' if side.by_name else 'number'} of a {side.dimension}" for side in form.sides]
        kind = " and ".join(kinds)
    if form.width > len(form.sides):
        return f"has no {kind} where the header has {needed}, among {form.width} fields"
    others = ", and name all columns in a header if there are others" if len(fields) > form.width else ""
    counted = "" if all(side.by_name for side in form.sides) else ", counted from 0"
    return f"is no {kind}; write {needed}{counted}{others}"


def _headings(sides: list[Side]) -> str:
    """Return the headings that a header must have, as a message says it."""
    names = ",".join(side.dimension for side in sides)
    return f"the heading {names}" if len(sides) == 1 else f"the headings {names}, each once"


def _shown(fields: list[str]) -> str:
    return repr(",".join(fields).strip()[:60])
