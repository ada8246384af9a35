"""MatrixMarket files, plain or by gzip, and the folders that 10x Genomics' Cell Ranger writes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from scipy.io import mmread

from dask_nmf.errors import DataError, readable
from dask_nmf.ingest.entries.sorting import Duplicate, Entries, RowSorter
from dask_nmf.ingest.files import FilePath, first_in, open_content, position_in, skip_content
from dask_nmf.ingest.options import ConvertOptions
from dask_nmf.ingest.reading import ReadProgress
from dask_nmf.ingest.rows import Batch, Columns, Named, RowSource, read_ahead
from dask_nmf.kernels.entries.lines import count_plain_lines, first_odd_line
from dask_nmf.sources.checks import check_width
from dask_nmf.wording import counted

TEXT = 2**24  # bytes of text that are parsed at once
CURE = "write it anew"
LARGEST = 2**31 - 1  # rows or columns: indices are int32
FIELDS = ("real", "integer", "unsigned-integer", "pattern", "double")
SYMMETRIES = ("general", "symmetric")
SHOWN = 60  # characters of a line in a message
LINE = re.compile(r"Line (\d+): (.*)", re.DOTALL)  # how SciPy names the line of an error
PARTS = {  # of a folder of 10x Genomics: newer and older names
    "matrix": ("matrix.mtx.gz", "matrix.mtx"),
    "barcodes": ("barcodes.tsv.gz", "barcodes.tsv"),
    "features": ("features.tsv.gz", "features.tsv", "genes.tsv.gz", "genes.tsv"),
}


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


class Position(NamedTuple):
    """A position in a file: bytes after the header, lines and entries before it."""

    bytes: int
    lines: int
    entries: int


class MatrixMarket:
    """V in the coordinate format of MatrixMarket.

    Parameters
    ----------
    turned : whether the rows of the file are the columns of V
    """

    sparse = True

    def __init__(self, path: FilePath, options: ConvertOptions, scratch: Path, turned: bool = False) -> None:
        self._path, self._scratch, self._turned = path, scratch, turned
        self._rules = options.rules()
        self._duplicates = options.duplicates
        self.dtype = self._rules.dtype
        with readable(path, CURE), open_content(path) as file:
            self._header = _read_header(file, path)

    @property
    def shape(self) -> tuple[int, int]:
        """Return the shape of V."""
        shape = self._header.shape
        return shape[::-1] if self._turned else shape

    def columns(self) -> Columns:
        """Return the columns of V."""
        return Columns(self.shape[1])

    def batches(self, begin: Any = None) -> Iterator[Batch]:
        """Yield all rows of V in order, after all entries were read and sorted."""
        sorter = RowSorter(self._scratch)
        first = 0
        start = Position(*sorter.positions[-1]) if sorter.positions else Position(0, self._header.lines, 0)
        for entries, position in read_ahead(iter(()) if sorter.complete else self._entries(start)):
            sorter.add(entries, partial(list, position))
        try:
            for block in sorter.blocks(self.shape, self._duplicates):
                yield Batch(self._rules.cast_rows(block, partial(self._cell, first)))
                first += block.shape[0]
        except Duplicate as found:
            row, column = (found.column, found.row) if self._turned else (found.row, found.column)
            raise DataError(
                f"{self._path} has more than one entry at row {row + 1}, column {column + 1}; "
                "leave one out, or choose with --duplicates sum, mean or last"
            ) from None

    def _cell(self, first: int, row: int, column: int) -> str:
        """Return how a message names a cell, whose row is counted from row ``first`` of V."""
        row, column = (column, first + row) if self._turned else (first + row, column)
        return f"{self._path}, row {row + 1}, column {column + 1}, {self._duplicates} of the entries"

    def _entries(self, begin: Position) -> Iterator[tuple[Entries, Position]]:
        """Yield the entries of V as they stand in the file, each time with where they end."""
        progress = ReadProgress([self._path])
        done, lines, count = begin
        with open_content(self._path) as file:
            with readable(self._path, CURE):
                _read_header(file, self._path)
                skip_content(file, done)
            for text in _pieces(file, self._path):
                here, piece = text.count(b"\n"), _entry_lines(text)
                found = piece.entries
                if count + found > self._header.entries:
                    raise DataError(
                        f"{self._path} has more than {counted(self._header.entries, 'entry')}; {CURE}"
                    )
                done, count = done + len(text), count + found
                if found:
                    yield self._parse(piece, found, lines), Position(done, lines + here, count)
                lines += here
                progress.at(position_in(file))
        progress.file_done(self._path)
        if count < self._header.entries:
            raise DataError(
                f"{self._path} says that it has {counted(self._header.entries, 'entry')}, and has {count}: "
                f"its end is missing; {CURE}"
            )

    def _parse(self, piece: EntryLines, found: int, lines: int) -> Entries:
        """Return the entries of a piece of the file that begins after a number of lines."""
        self._check_lines(piece, lines)
        sizes = b"%d %d %d\n" % (*self._header.shape, found)
        try:
            parsed: Any = mmread(BytesIO(self._header.banner + sizes + piece.text), spmatrix=False)
        except (ValueError, OverflowError) as error:
            reason = LINE.match(str(error))
            if reason is None:
                raise DataError(f"{self._path} cannot be read ({error}); {CURE}") from error
            line = lines + piece.line(int(reason[1]) - 3)
            raise DataError(
                f"{self._path}, line {line}: {reason[2].rstrip('.')}; a line has {self._header.needed}"
            ) from None
        rows, columns = (index.astype(np.int32, copy=False) for index in parsed.coords)
        place = partial(self._place, rows, columns, lambda index: lines + piece.line(index))
        values = self._rules.cast(parsed.data, place)
        return Entries(columns, rows, values) if self._turned else Entries(rows, columns, values)

    def _check_lines(self, piece: EntryLines, lines: int) -> None:
        """Refuse a line with more or fewer fields than an entry has, or with a value of another kind."""
        field = self._header.field
        whole = field.endswith("integer")
        odd = first_odd_line(np.frombuffer(piece.text, np.uint8), 2 if field == "pattern" else 3, whole)
        if odd >= 0:
            shown = piece.text.split(b"\n", odd + 1)[odd].decode("utf-8", "replace")
            place = f"{self._path}, line {lines + piece.line(odd)}"
            raise DataError(
                f"{place}: {shown[:SHOWN]!r} is no entry; the banner says {field}, "
                f"and a line then has {self._header.needed}; correct the line or the banner"
            )

    def _place(self, rows: Any, columns: Any, line_of: Callable[[int], int], index: int) -> str:
        line = "" if self._header.symmetric else f", line {line_of(index)}"
        return f"{self._path}{line}, row {rows[index] + 1}, column {columns[index] + 1}"


def open_10x_parts(parts: Sequence[FilePath], options: ConvertOptions, scratch: Path) -> RowSource:
    """Open cells by features, from the files that `parts_of` returns."""
    entries, barcodes, features = parts
    matrix = MatrixMarket(entries, options, scratch, turned=True)
    return Named(matrix, *map(_names, (barcodes, features), matrix.shape))


def parts_of(folder: FilePath) -> list[FilePath]:
    """Return the matrix of features by cells, the names of cells and those of features, of 10x Genomics.

    Raises
    ------
    DataError
        If one of them is missing.
    """
    found = [first_in(folder, names) for names in PARTS.values()]
    if None in found:
        name = list(PARTS.values())[found.index(None)][0]
        raise DataError(f"{folder} has no {name}; copy it there, or convert the .mtx file by itself")
    return [path for path in found if path is not None]


def _names(path: FilePath, needed: int) -> list[str]:
    """Return the first column of a file, which has a line for each cell or feature."""
    with readable(path, CURE), open_content(path) as file:
        names = [_name(line, f"{path}, line {number}") for number, line in enumerate(file, 1)]
    if len(names) != needed:
        raise DataError(
            f"{path} has {counted(len(names), 'line')}, and the matrix needs {needed}; take files of one run"
        )
    return names


def _name(line: bytes, place: str) -> str:
    try:
        return line.decode().rstrip("\r\n").partition("\t")[0]
    except UnicodeDecodeError:
        raise DataError(f"{place}: a name is not UTF-8; save the file as UTF-8") from None


def _read_header(file: IO[bytes], path: FilePath) -> Header:
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


def _pieces(file: IO[bytes], path: FilePath) -> Iterator[bytes]:
    """Yield the text that follows, in pieces of whole lines."""
    rest = b""
    while True:
        with readable(path, CURE):
            text = file.read(TEXT)
        if not text:
            break
        whole, newline, rest_of_line = text.rpartition(b"\n")
        if newline:
            yield rest + whole + newline
            rest = rest_of_line
        else:
            rest += text
    if rest.strip():
        yield rest + b"\n"


def _entry_lines(text: bytes) -> EntryLines:
    """Return the lines of a piece that are neither empty nor comments."""
    plain = count_plain_lines(np.frombuffer(text, np.uint8))
    if plain >= 0:
        return EntryLines(text, plain, None)
    stripped = [line.strip() for line in text.split(b"\n")]
    numbers = [number for number, line in enumerate(stripped, 1) if line and not line.startswith(b"%")]
    return EntryLines(b"".join(stripped[number - 1] + b"\n" for number in numbers), len(numbers), numbers)
