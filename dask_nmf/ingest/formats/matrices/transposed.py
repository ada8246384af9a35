"""The columns of any source as rows of V, for tables of features by samples; they are turned on the disk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from shutil import rmtree
from typing import Any

import numpy as np
import zarr

from dask_nmf.errors import DataError
from dask_nmf.ingest.entries.sorting import Entries, RowSorter
from dask_nmf.ingest.output.checkpoint import Checkpoint
from dask_nmf.ingest.output.codecs import CODECS, NAMES
from dask_nmf.ingest.output.growing import GrowingArray
from dask_nmf.ingest.rows import BATCH, Batch, Columns, RowSource, check_wanted
from dask_nmf.progress import report_panel, report_read, report_stage
from dask_nmf.types import Block

FOLDER = "transposed"
BEGUN = "transposed_begun"  # the folder that tells how far that is
CHUNK = 2**18  # bytes of a chunk of a dense matrix on its way, at least
PARTS = 256  # parts into which its columns are cut, at most
TALLEST = 2**10  # rows of a chunk, at most
LARGEST = 2**31 - 1  # rows or columns of a sparse matrix, whose indices are int32


class Transposed:
    """The columns of a source as rows, and its rows as columns, with their names.

    Entries of a sparse source are sorted outside of memory; the names of its rows are kept with them,
    for a conversion that goes on. A dense one is stored in chunks of some rows and some columns, from which
    columns are read.
    """

    def __init__(self, source: RowSource, scratch: Path) -> None:
        self._source, self._folder = source, scratch / FOLDER
        self._rows, self._names = 0, list[str]()
        self._saved = 0  # names that a journal has
        self.sparse, self.dtype = source.sparse, source.dtype

    def columns(self) -> Columns:
        """Return the rows of the source, which are known once it was read."""
        return Columns(self._rows, self._names or None)

    def batches(self, begin: Any = None) -> Iterator[Batch]:
        """Yield the columns of the source in order; a position is a number of columns of a dense source."""
        first, names = begin or 0, None
        for block in self._sparse_blocks() if self.sparse else self._dense_blocks(first):
            if names is None:
                names = self._source.columns().names
            last = first + block.shape[0]
            position = None if self.sparse else last
            yield Batch(block, None if names is None else names[first:last], position)
            first = last

    def _sparse_blocks(self) -> Iterator[Block]:
        """Sort the entries of the source, after those that are sorted already; yield columns."""
        self._folder.mkdir(exist_ok=True)
        sorter = RowSorter(self._folder)
        begin, self._rows = self._restore(sorter.positions)
        resumable = True
        for block, names, position in self._source.batches(begin):
            check_wanted()
            resumable = resumable and position is not None
            first, self._rows = self._rows, self._rows + block.shape[0]
            self._names += [] if names is None else map(str, names)
            if max(first + block.shape[0], block.shape[1]) > LARGEST:
                raise DataError(f"a sparse V has {LARGEST} rows and columns at most; convert a part of it")
            entries = block.tocoo()
            rows, columns = (index.astype(np.int32) for index in entries.coords)
            place = partial(self._position, position, self._rows) if resumable else None
            sorter.add(Entries(columns, rows + np.int32(first), entries.data), place)
        yield from sorter.blocks((self._source.columns().number, self._rows), "sum")

    def _position(self, position: Any, rows: int) -> dict[str, Any]:
        """Return where to go on after some rows of a sparse source, with their names that no journal has."""
        names, self._saved = self._names[self._saved : rows], rows
        return {"source": position, "rows": rows, "names": names}

    def _restore(self, positions: Sequence[dict[str, Any]]) -> tuple[Any, int]:
        """Take the names that a journal has; return where to go on, and the number of rows before that."""
        self._names = [name for position in positions for name in position["names"]]
        self._saved = positions[-1]["rows"] if positions else 0
        return (positions[-1]["source"] if positions else None), self._saved

    def _dense_blocks(self, begin: int) -> Iterator[Block]:
        """Store the rows of the source, after those that are stored already; yield columns from one on."""
        checkpoint = Checkpoint(self._folder.with_name(BEGUN), self._folder)
        if checkpoint.position is None:
            rmtree(self._folder, ignore_errors=True)  # a conversion that was stopped may have left one
        root = zarr.open_group(str(self._folder), zarr_format=3)
        names = checkpoint.track(GrowingArray(root, "names", (), (NAMES,), "string", CODECS["lz4"]))
        stored: GrowingArray | None = None
        if checkpoint.position is not None:
            stored = checkpoint.track(self._array(root, self._source.columns().number))
        for block, own, position in self._source.batches(checkpoint.position):
            check_wanted()
            if block.shape[1] == 0:
                continue  # V is empty, and is refused when it is written
            if stored is None:
                stored = checkpoint.track(self._array(root, block.shape[1]))
            stored.append(block)
            names.append([] if own is None else own)
            checkpoint.reach(position)
        if stored is not None:
            stored.close()
            names.close()
            whole: Any = root["names"]
            self._rows, self._names = stored.rows, list(whole[:])
            yield from self._turned(root["X"], begin)

    def _array(self, root: zarr.Group, columns: int) -> GrowingArray:
        """Return the array that the rows of a dense source are appended to."""
        itemsize = self.dtype.itemsize
        height = max(1, min(TALLEST, BATCH // (columns * itemsize)))
        width = min(columns, max(-(-columns // PARTS), CHUNK // (height * itemsize)))
        return GrowingArray(root, "X", (columns,), (height, width), self.dtype, CODECS["lz4"])

    def _turned(self, array: Any, begin: int) -> Iterator[Block]:
        """Yield columns of a stored array as rows: those of whole chunks, if these are not too large."""
        columns, width = array.shape[1], array.chunks[1]
        most = max(1, BATCH // (array.shape[0] * self.dtype.itemsize))
        step = most // width * width or most
        report_stage("transposing")
        report_read(-(-(columns - begin) // step), "batches")
        for first in range(begin, columns, step):
            yield np.ascontiguousarray(array[:, first : first + step].T)
            report_panel()
