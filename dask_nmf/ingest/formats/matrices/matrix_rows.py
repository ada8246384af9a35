"""Matrices of every kind that `open_matrix` opens, and labelled objects, with the names that they have."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from dask_nmf.errors import DataError
from dask_nmf.ingest.entries.sorting import Entries, RowSorter
from dask_nmf.ingest.formats.tables.records import may_be_rounded
from dask_nmf.ingest.options import INTEGERS, ConvertOptions
from dask_nmf.ingest.rows import BATCH, Batch, Columns, check_wanted
from dask_nmf.progress import report_panel, report_read, report_stage
from dask_nmf.sources.labelled.registry import factor_form_of, labels_of
from dask_nmf.sources.labels.names import fitting
from dask_nmf.sources.matrix import Matrix
from dask_nmf.sources.registry import open_matrix
from dask_nmf.types import Block, Orientation


class MatrixRows:
    """The rows of a matrix, read by panels; a matrix that is stored by columns is sorted.

    Names of rows and columns are those of a table, of xarray's coordinates or of AnnData in memory, or those
    that lie beside a stored matrix. Names that only count are left out.
    """

    def __init__(self, source: Any, options: ConvertOptions, scratch: Path) -> None:
        held, form = factor_form_of(source)
        self._matrix = _open(held, options.dtype)
        self._labels = fitting(labels_of(form), self._matrix.shape) or self._matrix.labels
        self._options = options
        self._scratch = scratch
        self._rules = options.rules(self._matrix.dtype)
        self.sparse = self._matrix.sparse
        self._wide = _wide_integers(self._matrix.reader) if self._rules.dtype == np.float64 else None
        self.dtype = self._rules.dtype

    def columns(self) -> Columns:
        """Return the columns of V."""
        number, names = self._matrix.shape[1], self._labels.columns
        return Columns(number, None if names is None else names.read(0, number).tolist())

    def batches(self, begin: Any = None) -> Iterator[Batch]:
        """Yield the rows of V in order; a position is a number of rows, where these need no sorting."""
        first, names = begin or 0, self._labels.rows
        by_rows = not self._matrix.orientation.by_columns
        for block in (block for _, block in self._panels(first)) if by_rows else self._sorted():
            last = first + block.shape[0]
            yield Batch(block, None if names is None else names.read(first, last), last if by_rows else None)
            first = last

    def _sorted(self) -> Iterator[Block]:
        """Yield blocks of rows in order, of a matrix that is stored by columns."""
        sorter = RowSorter(self._scratch)
        begin = sorter.positions[-1] if sorter.positions else 0
        for first, block in () if sorter.complete else self._panels(begin):
            check_wanted()
            entries = block.tocoo()
            columns = (entries.coords[0] + first).astype(np.int32)
            added = Entries(entries.coords[1].astype(np.int32), columns, entries.data)
            sorter.add(added, partial(int, first + block.shape[0]))
        yield from sorter.blocks(self._matrix.shape, "sum")

    def _panels(self, begin: int = 0) -> Iterator[tuple[int, Block]]:
        """Yield panels from a row of storage on, each with where it begins."""
        layout = self._matrix.layout
        edges = [begin, *(edge for edge in _edges(self._matrix) if edge > begin)]
        report_stage(f"reading {self._matrix.source}")
        report_read(len(edges) - 1, "batches")
        for first, last in pairwise(edges):
            block = self._matrix.reader[slice(first, last), slice(0, layout.columns)]
            place = partial(self._place, block, first)
            cast = self._rules.cast(block.data if self.sparse else block, place)
            if self._wide is not None and may_be_rounded(cast):
                exact = self._wide[slice(first, last), slice(0, layout.columns)]
                INTEGERS.cast(exact.data if self.sparse else exact, place)
            yield first, block if cast.dtype == block.dtype else block.astype(cast.dtype)
            report_panel()

    def _place(self, block: Block, first: int, index: int) -> str:
        """Return the place of a value of a panel, in V."""
        if self.sparse:
            row, column = int(np.searchsorted(block.indptr, index, side="right")) - 1, block.indices[index]
        else:
            row, column = divmod(index, block.shape[1])
        row, column = self._matrix.orientation.turn((first + row, int(column)))
        return f"{self._matrix.source}: row {row}, column {column}"


def _wide_integers(reader: Any) -> Any | None:
    """Return a reader of the integers of 64 bits that another one rounds to float64; None without these."""
    stored = reader.stored_dtype
    wide = stored is not None and stored.kind in "iu" and stored.itemsize == 8
    return replace(reader, dtype=stored) if wide else None


def _open(source: Any, dtype: str | None) -> Matrix:
    """Open a matrix as panels of rows; a sparse one as panels of columns if it is stored so."""
    matrix = open_matrix(source, dtype)
    if matrix.orientation.by_columns:
        if not matrix.sparse:
            return open_matrix(source, dtype, Orientation.ROWS)
        with suppress(DataError):
            return open_matrix(source, dtype, Orientation.ROWS)
    return matrix


def _edges(matrix: Matrix) -> Sequence[int]:
    """Return the edges of panels of about `BATCH` bytes; those of a dense V are edges of storage chunks."""
    layout, unit = matrix.layout, matrix.layout.chunk_rows
    if layout.indptr is None:
        step = max(unit, BATCH // layout.panel_bytes(0, 1) // unit * unit)
        return [*range(0, layout.rows, step), layout.rows]
    ends = np.asarray(layout.indptr) * (layout.itemsize + 4) + np.arange(layout.rows + 1) * 8
    edges = [0]
    while edges[-1] < layout.rows:
        following = int(np.searchsorted(ends, ends[edges[-1]] + BATCH, side="right")) - 1
        edges.append(min(max(following, edges[-1] + 1), layout.rows))
    return edges
