"""MatrixMarket files, plain or by gzip, and the folders that 10x Genomics' Cell Ranger writes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.io import mmread

from dask_nmf.errors import DataError, readable
from dask_nmf.ingest.entries.sorting import Duplicate, Entries, RowSorter
from dask_nmf.ingest.files import FilePath, first_in, open_content, skip_content
from dask_nmf.ingest.formats.matrices.market_text import (
    CURE,
    EntryLines,
    Parsed,
    entry_lines,
    pieces_of,
    plain_entries,
    read_header,
)
from dask_nmf.ingest.options import ConvertOptions
from dask_nmf.ingest.reading import ReadProgress
from dask_nmf.ingest.rows import Batch, Columns, Named, RowSource, read_ahead
from dask_nmf.kernels.entries.lines import first_odd_line
from dask_nmf.wording import counted

SHOWN = 60  # characters of a line in a message
LINE = re.compile(r"Line (\d+): (.*)", re.DOTALL)  # how SciPy names the line of an error
PARTS = {  # of a folder of 10x Genomics: newer and older names
    "matrix": ("matrix.mtx.gz", "matrix.mtx"),
    "barcodes": ("barcodes.tsv.gz", "barcodes.tsv"),
    "features": ("features.tsv.gz", "features.tsv", "genes.tsv.gz", "genes.tsv"),
}


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
            self._header = read_header(file, path)

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
                read_header(file, self._path)
                skip_content(file, done)
            for text, position in read_ahead(pieces_of(file, self._path)):
                plain = plain_entries(text, self._header)
                piece = entry_lines(text) if plain is None else EntryLines(text, len(plain.rows), None)
                count += piece.entries
                if count > self._header.entries:
                    raise DataError(
                        f"{self._path} has more than {counted(self._header.entries, 'entry')}; {CURE}"
                    )
                done, before = done + len(text), lines
                lines += piece.entries if piece.numbers is None else text.count(b"\n")
                if piece.entries:
                    parsed = self._parsed(piece, before) if plain is None else plain
                    yield self._cast(parsed, piece, before), Position(done, lines, count)
                progress.at(position)
        progress.file_done(self._path)
        if count < self._header.entries:
            raise DataError(
                f"{self._path} says that it has {counted(self._header.entries, 'entry')}, and has {count}: "
                f"its end is missing; {CURE}"
            )

    def _parsed(self, piece: EntryLines, lines: int) -> Parsed:
        """Return the entries of a piece of the file that begins after a number of lines, parsed by SciPy."""
        self._check_lines(piece, lines)
        sizes = b"%d %d %d\n" % (*self._header.shape, piece.entries)
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
        return Parsed(rows, columns, parsed.data)

    def _cast(self, parsed: Parsed, piece: EntryLines, lines: int) -> Entries:
        """Return the entries of a piece that begins after a number of lines as those of V."""
        rows, columns, stored = parsed
        place = partial(self._place, rows, columns, lambda index: lines + piece.line(index))
        values = self._rules.cast(stored, place)
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
