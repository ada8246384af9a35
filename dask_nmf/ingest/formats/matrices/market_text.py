"""The text of MatrixMarket files: the header, pieces of whole lines, and the entries of plain ones."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

import numpy as np

from dask_nmf.errors import DataError, readable
from dask_nmf.ingest.files import FilePath, position_in
from dask_nmf.kernels.entries.fields import NEWLINE, PADDING, split_entries
from dask_nmf.kernels.entries.lines import count_plain_lines
from dask_nmf.sources.checks import check_width
from dask_nmf.types import Array

TEXT = 2**22  # bytes of text that are parsed at once
CURE = "write it anew"
LARGEST = 2**31 - 1  # rows or columns: indices are int32
FIELDS = ("real", "integer", "unsigned-integer", "pattern", "double")
SYMMETRIES = ("general", "symmetric")
DTYPES = {"integer": np.int64, "unsigned-integer": np.uint64, "real": np.float64, "double": np.float64}


class Header(NamedTuple):
    """The first lines of a file."""

    banner: bytes
    shape: tuple[int, int]
    entries: int
    lines: int  # of the header
    field: str  # one of `FIELDS`
    symmetric: bool

    @property
    def needed(self) -> str:
        """Return what a line of the file has, as a message says it."""
        row, column = (
            f"a {side} of 1 to {size}" for side, size in zip(("row", "column"), self.shape, strict=True)
        )
        if self.field == "pattern":
            return f"{row} and {column}"
        return f"{row}, {column} and {'an integer' if self.field.endswith('integer') else 'a number'}"


class EntryLines(NamedTuple):
    """The lines of a piece of a file that have an entry."""

    text: bytes
    entries: int
    numbers: list[int] | None  # of the lines in the piece, from 1; None if each line has an entry

    def line(self, index: int) -> int:
        """Return the number of the line in the piece, from 1, that has an entry, counted from 0."""
        return index + 1 if self.numbers is None else self.numbers[min(index, len(self.numbers) - 1)]


class Parsed(NamedTuple):
    """Entries as a file has them: rows and columns, counted from 0, and values."""

    rows: Array
    columns: Array
    values: Array


def read_header(file: BinaryIO, path: FilePath) -> Header:
    """Read the banner, the comments and the sizes."""
    banner = file.readline(1024)
    words = banner.decode("ascii", "replace").lower().split()
    if len(words) != 5 or words[:2] != ["%%matrixmarket", "matrix"]:
        raise DataError(f"{path} has no banner %%MatrixMarket matrix; give a MatrixMarket file")
    if words[2] != "coordinate" or words[3] not in FIELDS or words[4] not in SYMMETRIES:
        raise DataError(
            f"{path} is {' '.join(words[2:])}; give a file in coordinate format, real, integer or pattern, "
            "general or symmetric"
        )
    lines = 1
    for line in file:
        lines += 1
        sizes = line.split()
        if sizes and not sizes[0].startswith(b"%"):
            if len(sizes) != 3 or not all(size.isdigit() for size in sizes):
                raise DataError(
                    f"{path}, line {lines}: the sizes are no three integers >= 0; write rows columns entries"
                )
            m, n, entries = map(int, sizes)
            if max(m, n) > LARGEST:
                raise DataError(f"{path} is {m} x {n}; at most {LARGEST} rows and columns are converted")
            if words[4] == "symmetric" and m != n:
                raise DataError(f"{path} is symmetric and {m} x {n}; write general, or equal sizes")
            check_width(path, (m, n), max(m, n), entries)
            return Header(banner, (m, n), entries, lines, words[3], words[4] == "symmetric")
    raise DataError(f"{path} ends before its sizes; {CURE}")


def pieces_of(file: BinaryIO, path: FilePath) -> Iterator[tuple[bytes, int]]:
    """Yield the text that follows, in pieces of whole lines, and how much of the file has been read then."""
    rest = b""
    while True:
        with readable(path, CURE):
            text = file.read(TEXT)
        if not text:
            break
        whole, newline, rest_of_line = text.rpartition(b"\n")
        if newline:
            yield rest + whole + newline, position_in(file)
            rest = rest_of_line
        else:
            rest += text
    if rest.strip():
        yield rest + b"\n", position_in(file)


def entry_lines(text: bytes) -> EntryLines:
    """Return the lines of a piece that are neither empty nor comments."""
    lines = count_plain_lines(np.frombuffer(text, np.uint8))
    if lines >= 0:
        return EntryLines(text, lines, None)
    stripped = [line.strip() for line in text.split(b"\n")]
    numbers = [number for number, line in enumerate(stripped, 1) if line and not line.startswith(b"%")]
    return EntryLines(b"".join(stripped[number - 1] + b"\n" for number in numbers), len(numbers), numbers)


def plain_entries(text: bytes, header: Header) -> Parsed | None:
    """Return the entries in a piece; None if a line is not plain, and SciPy must parse them."""
    if header.symmetric or header.field not in DTYPES:
        return None
    data = np.frombuffer(text + bytes(PADDING), np.uint8)
    most = np.count_nonzero(data == int(NEWLINE))
    rows, columns, values = np.empty(most, np.int32), np.empty(most, np.int32), np.empty(most)
    whole = header.field.endswith("integer")
    if split_entries(data, len(text), header.shape, whole, rows, columns, values) < 0:
        return None
    return Parsed(rows, columns, values.astype(DTYPES[header.field], copy=False))
