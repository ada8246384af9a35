"""Dense matrices: the reader of any array that gives boxes, and the `Matrix` around it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise, product
from math import prod
from typing import Any

import numpy as np
import zarr
from zarr.buffer.cpu import NDBuffer

from dask_nmf.errors import readable
from dask_nmf.planning.worker_memory import IN_FLIGHT, Layout
from dask_nmf.sources.checks import check_shape, working_dtype
from dask_nmf.sources.decoding.conversion import masked_to_nan
from dask_nmf.sources.decoding.packing import Packing
from dask_nmf.sources.matrix import Matrix
from dask_nmf.sources.opener import OpenOptions
from dask_nmf.sources.reader import Box, ReaderDefaults
from dask_nmf.types import Array, Orientation


@dataclass(frozen=True)
class DenseRows(ReaderDefaults):
    """Boxes of a dense array: views of NumPy's where the dtype allows, whole storage chunks of Zarr's, and
    slices of any other array."""

    array: Any  # (m, n), as the caller has V
    orientation: Orientation
    dtype: np.dtype[Any]
    packing: Packing | None = None
    in_memory: bool = False
    plain: bool = False  # slices of ``array`` are plain NumPy arrays
    decoded: bool = True  # a read decodes or fetches, and does not only map the pages of a file

    @property
    def shape(self) -> tuple[int, int]:
        m, n = self.array.shape
        return self.orientation.turn((m, n))

    @property
    def stored_dtype(self) -> np.dtype[Any] | None:
        if self.packing is not None or isinstance(self.array, np.ma.MaskedArray):
            return None
        stored: np.dtype[Any] = np.dtype(self.array.dtype)
        return stored

    @property
    def worth_caching(self) -> bool:
        return self.decoded and not self.in_memory

    @property
    def plain_array(self) -> Any | None:
        return self.array if self.plain else None

    def __getitem__(self, index: Box) -> Array:
        box = self.orientation.turn(index)
        with naming_place(self.array, index[0]):
            block = load(self.array, box, self.dtype, self.packing)
        return self.orientation.turn_array(block)


@dataclass(frozen=True)
class DenseSource:
    """A dense array as it is stored, for `dense_matrix`."""

    array: Any  # (m, n), with a shape and a dtype; boxes of it can be read
    place: str  # how messages call it
    chunks: tuple[int, int] = (1, 1)  # rows and columns of a storage chunk
    chunk_bytes: int = 0  # bytes of a storage chunk, decoded
    packing: Packing | None = None
    in_memory: bool = False
    plain: bool = False  # slices of ``array`` are plain NumPy arrays, of V as the caller has it
    decoded: bool = True  # a read decodes or fetches, and does not only map the pages of a file
    listing: str | None = None  # see `Matrix.listing`


def dense_matrix(source: DenseSource, options: OpenOptions) -> Matrix:
    """Return the matrix of a dense array, turned into panel orientation.

    Raises
    ------
    DataError, ValueError
        As `check_shape` and `working_dtype` do.
    """
    dtype, orientation, layout = dense_layout(source.array, options, source.chunks, source.chunk_bytes)
    reader = DenseRows(
        source.array, orientation, dtype, source.packing, source.in_memory, source.plain, source.decoded
    )
    m, n = source.array.shape
    return Matrix((m, n), dtype, source.place, orientation, layout, reader, source.listing)


def dense_layout(
    array: Any, options: OpenOptions, chunks: tuple[int, int] = (1, 1), chunk_bytes: int = 0
) -> tuple[np.dtype[Any], Orientation, Layout]:
    """Return the dtype, the orientation and the layout of the panels of a dense array.

    Parameters
    ----------
    array : anything with a shape and a dtype.
    chunks : rows and columns of its storage chunks, which take ``chunk_bytes`` each.
    """
    check_shape(array.shape, options.name)
    dtype = working_dtype(np.dtype(array.dtype), options.dtype, options.name)
    orientation = options.orientation_of(array.shape)
    rows, columns = orientation.turn(array.shape)
    chunk_rows, chunk_columns = orientation.turn(chunks)
    layout = Layout(
        rows,
        columns,
        dtype.itemsize,
        chunk_rows,
        chunk_bytes,
        needs_cast=array.dtype != dtype,
        chunk_columns=chunk_columns,
    )
    return dtype, orientation, layout


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
    """Return each side of a box, cut at multiples of the chunks into parts of `IN_FLIGHT` bytes of chunks."""
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
    """Name the place, and the panel, of what cannot be read."""
    place = source if isinstance(source, str) else getattr(source, "store_path", "V")
    with readable(f"{place}: panel rows {rows.start} to {rows.stop}", "restore that part, or write all anew"):
        yield
