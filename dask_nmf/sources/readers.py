"""Row panels out of what holds V: objects with a shape, a dtype and slices of rows.

Each reader speaks of V in the orientation that is cut into panels (``transposed`` ones cut columns),
gives blocks in the working dtype, and travels to a worker as a path or a handle, never as data.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise, product
from math import prod
from typing import Any

import numpy as np
import scipy.sparse
import zarr
from zarr.buffer.cpu import NDBuffer

from dask_nmf.errors import readable
from dask_nmf.planning.row_panels import IN_FLIGHT
from dask_nmf.sources.checks import canonical_csr
from dask_nmf.sources.formats.in_memory import masked_to_nan
from dask_nmf.sources.formats.packing import Packing
from dask_nmf.sources.reader import ReaderDefaults
from dask_nmf.storage.objects.requests import fetch
from dask_nmf.types import Array, Block


@dataclass(frozen=True)
class DenseRows(ReaderDefaults):
    """Boxes of a dense array: NumPy (views where the dtype allows), Zarr (whole storage chunks), or any other
    array of which parts can be read."""

    array: Any
    transposed: bool
    dtype: np.dtype[Any]
    packing: Packing | None = None
    in_memory: bool = False
    plain: bool = False  # slices of ``array`` are plain NumPy arrays, of V as the caller has it

    @property
    def shape(self) -> tuple[int, int]:
        m, n = self.array.shape
        return (n, m) if self.transposed else (m, n)

    @property
    def plain_array(self) -> Any | None:
        return self.array if self.plain else None

    def __getitem__(self, index: tuple[slice, slice]) -> Array:
        rows = index[0]
        box = index[::-1] if self.transposed else index
        with naming_place(self.array, rows):
            block = load(self.array, box, self.dtype, self.packing)
        return block.T if self.transposed else block


@dataclass(frozen=True)
class NpyRows(ReaderDefaults):
    """Rows of an ``.npy`` file, mapped anew for each panel so that no page outlives its task."""

    path: str
    shape: tuple[int, int]
    transposed: bool
    dtype: np.dtype[Any]
    worth_caching: bool = field(default=False, init=False)  # the system keeps the pages of the file

    def __getitem__(self, index: tuple[slice, slice]) -> Array:
        with naming_place(self.path, index[0]):
            mapped = np.lib.format.open_memmap(self.path, mode="r")
            return DenseRows(mapped, self.transposed, self.dtype)[index]


@dataclass(frozen=True)
class RemoteNpyRows(ReaderDefaults):
    """Rows of an ``.npy`` file in an object store, as they lie there: a panel is one range of its bytes."""

    url: str
    shape: tuple[int, int]
    stored: np.dtype[Any]
    begin: int  # bytes, of the header
    dtype: np.dtype[Any]
    any_box: bool = field(default=False, init=False)

    def __getitem__(self, index: tuple[slice, slice]) -> Array:
        first, last, _ = index[0].indices(self.shape[0])
        row = self.shape[1] * self.stored.itemsize
        with naming_place(self.url, index[0]):
            held = fetch(self.url, self.begin + first * row, (last - first) * row)
            block = np.frombuffer(held, self.stored).reshape(last - first, self.shape[1])
            return block[:, index[1]].astype(self.dtype, copy=False)


@dataclass(frozen=True)
class SparseRows(ReaderDefaults):
    """Rows of a CSR array in memory, already in panel orientation."""

    array: scipy.sparse.csr_array
    dtype: np.dtype[Any]
    sparse: bool = field(default=True, init=False)
    any_box: bool = field(default=False, init=False)
    in_memory: bool = field(default=True, init=False)

    @property
    def shape(self) -> tuple[int, int]:
        m, n = self.array.shape
        return m, n

    def __getitem__(self, index: tuple[slice, slice]) -> Block:
        return self.array[index[0]].astype(self.dtype, copy=False)


@dataclass(frozen=True)
class StoredSparseRows(ReaderDefaults):
    """Rows of a CSR matrix in a Zarr group (AnnData's layout); of a CSC matrix, its columns."""

    group: zarr.Group | Mapping[str, Any]  # of data, indices and indptr
    shape: tuple[int, int]
    dtype: np.dtype[Any]
    packing: Packing | None = None  # of data
    in_memory: bool = False
    sparse: bool = field(default=True, init=False)
    any_box: bool = field(default=False, init=False)

    def __getitem__(self, index: tuple[slice, slice]) -> Block:
        with naming_place(self.group, index[0]):
            return self._rows(index[0])

    def _rows(self, rows: slice) -> Block:
        first, last, _ = rows.indices(self.shape[0])
        indptr = np.asarray(self.group["indptr"][first : last + 1]).astype(np.int64)  # type: ignore[index]
        entries = (slice(int(indptr[0]), int(indptr[-1])),)
        stored_indices = self.group["indices"]
        indices = load(stored_indices, entries, np.dtype(stored_indices.dtype))  # type: ignore[union-attr]
        data = load(self.group["data"], entries, self.dtype, self.packing)
        shape = (last - first, self.shape[1])
        return canonical_csr(
            scipy.sparse.csr_array((data, indices, indptr - indptr[0]), shape=shape), self.dtype
        )


def load(array: Any, box: tuple[slice, ...], dtype: np.dtype[Any], packing: Packing | None = None) -> Array:
    """Return a box of an array as ``dtype``, unpacked; a stored one by `IN_FLIGHT` bytes of storage chunks.

    Zarr decodes a selection into memory of its own, ten chunks at a time in as many threads: without a bound
    that takes twice the memory of the panel, and casting takes as much again.
    """
    if not isinstance(array, zarr.Array):
        return _unpacked(array[box], dtype, packing)
    cuts = array.shards or array.chunks
    sides = [range(*side.indices(size)) for side, size in zip(box, array.shape, strict=True)]
    block: Array = np.empty([len(side) for side in sides], dtype)
    for part in product(*_strips(sides, cuts, array.dtype.itemsize)):
        inside = tuple(
            slice(piece.start - side.start, piece.stop - side.start)
            for piece, side in zip(part, sides, strict=True)
        )
        if packing is None:
            array.get_basic_selection(part, out=NDBuffer.from_numpy_array(block[inside]))
        else:
            packing.unpack(np.asarray(array.get_basic_selection(part)), block[inside])
    return block


def _unpacked(block: Any, dtype: np.dtype[Any], packing: Packing | None) -> Array:
    """Return a block that was read as ``dtype``, with NaN where it is masked."""
    if packing is None:
        return masked_to_nan(block, dtype).astype(dtype, copy=False)
    values: Array = np.empty(block.shape, dtype)
    packing.unpack(np.asarray(block), values)
    return values


def _strips(sides: list[range], cuts: tuple[int, ...], itemsize: int) -> list[list[slice]]:
    """Each side of a box cut at multiples of the chunks, so that `IN_FLIGHT` bytes of chunks make a part."""
    chunks = max(1, IN_FLIGHT // (prod(cuts) * itemsize))
    strips: list[list[slice]] = []
    for side, cut in zip(reversed(sides), reversed(cuts), strict=True):
        step = cut * chunks
        inner = range(side.start // step * step + step, side.stop, step)
        strips.insert(0, [slice(*pair) for pair in pairwise((side.start, *inner, side.stop))])
        chunks = max(1, chunks * cut // len(side)) if side else chunks
    return strips


@contextmanager
def naming_place(source: Any, rows: slice) -> Iterator[None]:
    """Name the place of what cannot be read."""
    place = source if isinstance(source, str) else getattr(source, "store_path", "V")
    with readable(f"{place}: panel rows {rows.start} to {rows.stop}", "restore that part, or write all anew"):
        yield
