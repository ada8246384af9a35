"""The columns of any source as rows of V, for tables of features by samples; they are turned on the disk."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from shutil import rmtree
from typing import Any

import numpy as np
import zarr

from dask_nmf.errors import DataError
from dask_nmf.ingest.entries.sorting import Entries, RowSorter
from dask_nmf.ingest.output.codecs import CODECS
from dask_nmf.ingest.output.growing import GrowingArray
from dask_nmf.ingest.rows import BATCH, Batch, Columns, RowSource, check_wanted
from dask_nmf.progress import report_panel, report_read, report_stage
from dask_nmf.types import Block

FOLDER = "transposed"
CHUNK = 2**18  # bytes of a chunk of a dense matrix on its way, at least
PARTS = 256  # parts into which its columns are cut, at most
TALLEST = 2**10  # rows of a chunk, at most
LARGEST = 2**31 - 1  # rows or columns of a sparse matrix, whose indices are int32


class Transposed:
    """The columns of a source as rows, and its rows as columns, with their names.

    Entries of a sparse source are sorted outside of memory. A dense one is stored in chunks of some rows and
    some columns, from which columns are read.
    """

    def __init__(self, source: RowSource, scratch: Path) -> None:
        self._source, self._folder = source, scratch / FOLDER
        self._rows, self._names = 0, list[str]()
        self.sparse, self.dtype = source.sparse, source.dtype

    def columns(self) -> Columns:
        """Return the rows of the source, which are known once it was read."""
        return Columns(self._rows, self._names or None)

    def batches(self, begin: Any = None) -> Iterator[Batch]:
        """Yield all columns of the source in order."""
        rmtree(self._folder, ignore_errors=True)  # a conversion that was stopped may have left one
        self._folder.mkdir()
        first, names = 0, None
        for block in self._sparse_blocks() if self.sparse else self._dense_blocks():
            if first == 0:
                names = self._source.columns().names
            last = first + block.shape[0]
            yield Batch(block, None if names is None else names[first:last])
            first = last

    def _read(self) -> Iterator[tuple[int, Block]]:
        """Yield blocks of rows of the source, each with where it begins; keep the names of rows."""
        self._rows, self._names = 0, []
        for block, names, _ in self._source.batches():
            check_wanted()
            yield self._rows, block
            self._rows += block.shape[0]
            self._names += [] if names is None else map(str, names)

    def _sparse_blocks(self) -> Iterator[Block]:
        sorter = RowSorter(self._folder)
        for first, block in self._read():
            if max(first + block.shape[0], block.shape[1]) > LARGEST:
                raise DataError(f"a sparse V has {LARGEST} rows and columns at most; convert a part of it")
            entries = block.tocoo()
            rows, columns = (index.astype(np.int32) for index in entries.coords)
            sorter.add(Entries(columns, rows + np.int32(first), entries.data), partial(int, first))
        yield from sorter.blocks((self._source.columns().number, self._rows), "sum")

    def _dense_blocks(self) -> Iterator[Block]:
        stored: GrowingArray | None = None
        root = zarr.create_group(str(self._folder), zarr_format=3)
        for _, block in self._read():
            if block.shape[1] == 0:
                continue  # V is empty, and is refused when it is written
            if stored is None:
                stored = self._array(root, block.shape[1])
            stored.append(block)
        if stored is not None:
            stored.close()
            yield from self._turned(root["X"])

    def _array(self, root: zarr.Group, columns: int) -> GrowingArray:
        """Return the array that the rows of a dense source are appended to."""
        itemsize = self.dtype.itemsize
        height = max(1, min(TALLEST, BATCH // (columns * itemsize)))
        width = min(columns, max(-(-columns // PARTS), CHUNK // (height * itemsize)))
        return GrowingArray(root, "X", (columns,), (height, width), self.dtype, CODECS["lz4"])

    def _turned(self, array: Any) -> Iterator[Block]:
        """Yield the columns of a stored array as rows: those of whole chunks, if these are not too large."""
        columns, width = array.shape[1], array.chunks[1]
        most = max(1, BATCH // (array.shape[0] * self.dtype.itemsize))
        step = most // width * width or most
        report_stage("transposing")
        report_read(-(-columns // step), "batches")
        for first in range(0, columns, step):
            yield np.ascontiguousarray(array[:, first : first + step].T)
            report_panel()
