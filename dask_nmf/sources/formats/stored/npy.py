"""Arrays in ``.npy`` files, on a disk or in an object store; no pickle is loaded."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from io import BytesIO
from math import prod
from typing import Any, NamedTuple

import numpy as np

from dask_nmf.errors import DataError, readable
from dask_nmf.sources.checks import WRITE_ANEW_WITH, check_shape
from dask_nmf.sources.dense import DenseSource, dense_layout, dense_matrix, naming_place
from dask_nmf.sources.matrix import Matrix
from dask_nmf.sources.opener import Opener, OpenOptions, ends_with, nothing_at
from dask_nmf.sources.reader import Box, ReaderDefaults
from dask_nmf.storage.arrays.chunks import stamp_of
from dask_nmf.storage.locations import Location
from dask_nmf.storage.objects.requests import fetch, stat
from dask_nmf.types import Array, Orientation

HEAD = 2**16  # bytes: a header is shorter
READ_HEADER = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


class Header(NamedTuple):
    """The header of an ``.npy`` file: the shape, dtype and order that the file claims to have."""

    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]
    fortran: bool  # its columns come one after the other
    begin: int  # bytes from the start of the file to the entries

    @property
    def end(self) -> int:
        """Bytes from the start of the file to the end of the entries."""
        return self.begin + prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True)
class NpyFile:
    """An array in a file, which is mapped anew for each box so that no page outlives its task."""

    store_path: str
    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]

    def __getitem__(self, box: Box) -> Array:
        mapped: Array = np.lib.format.open_memmap(self.store_path, mode="r")
        return mapped[box]


@dataclass(frozen=True)
class RemoteNpyRows(ReaderDefaults):
    """Rows of an ``.npy`` file in an object store, where a panel is one range of bytes."""

    url: str
    shape: tuple[int, int]
    stored: np.dtype[Any]
    begin: int  # bytes of the header
    dtype: np.dtype[Any]
    any_box: bool = field(default=False, init=False)

    @property
    def stored_dtype(self) -> np.dtype[Any]:
        return self.stored

    def __getitem__(self, index: Box) -> Array:
        first, last, _ = index[0].indices(self.shape[0])
        row_bytes = self.shape[1] * self.stored.itemsize
        with naming_place(self.url, index[0]):
            content = fetch(self.url, self.begin + first * row_bytes, (last - first) * row_bytes)
            block = np.frombuffer(content, self.stored).reshape(last - first, self.shape[1])
            return block[:, index[1]].astype(self.dtype, copy=False)


def header_of(place: str, head: bytes | memoryview, size: int) -> Header:
    """Return the header of an ``.npy`` file, from its first `HEAD` bytes.

    Raises
    ------
    DataError
        If the file is of another kind, of Python objects, or its ``size`` in bytes is less than its header
        says.
    """
    with readable(place, WRITE_ANEW_WITH):
        header = parse_header(head)
    check_header(place, header, size)
    return header


def parse_header(head: bytes | memoryview) -> Header:
    """Return the header that the first `HEAD` bytes of an ``.npy`` file hold; raise whatever NumPy raises."""
    with BytesIO(head) as file:
        version = np.lib.format.read_magic(file)
        if version not in READ_HEADER:
            raise ValueError(f"it has format {version}, which no array of numbers needs")
        shape, fortran, dtype = READ_HEADER[version](file)
        return Header(shape, dtype, fortran, file.tell())


def check_header(place: str, header: Header, available: int) -> None:
    """Refuse Python objects, and a shape for which more bytes are needed than are available."""
    if header.dtype.hasobject:
        raise DataError(f"{place} has Python objects, which are never loaded; NMF needs real numbers")
    if min(header.shape, default=1) < 0 or header.end > available:
        raise DataError(
            f"{place} says that its shape is {header.shape} and its type {header.dtype}, for which "
            f"{header.end} bytes are needed, and there are at most {available}; {WRITE_ANEW_WITH}"
        )


def _open(location: Location, options: OpenOptions) -> Matrix:
    if location.path is not None:
        return _open_file(location.address, options)
    try:
        return _open_object(location.address, options)
    except FileNotFoundError:
        raise nothing_at(location) from None


def _open_file(path: str, options: OpenOptions) -> Matrix:
    with readable(path, WRITE_ANEW_WITH), open(path, "rb") as file:
        header = header_of(path, file.read(HEAD), file.seek(0, 2))
        np.lib.format.open_memmap(path, mode="r")  # fails here, if at all, and not in a task
    array = NpyFile(path, header.shape, header.dtype)
    return dense_matrix(DenseSource(array, path, decoded=False, listing=stamp_of(os.stat(path))), options)


def _open_object(url: str, options: OpenOptions) -> Matrix:
    size, stamp = stat(url)
    header = header_of(url, fetch(url, 0, HEAD), size)
    check_shape(header.shape, options.name)
    order, other = Orientation.ROWS, Orientation.COLUMNS
    if header.fortran:
        order, other = other, order
    if options.orientation is other:
        raise DataError(
            f"{url} holds V by {order.value}, and V is cut the other way; store it by {other.value}"
        )
    nothing = np.broadcast_to(np.empty((), header.dtype), header.shape)
    dtype, _, layout = dense_layout(nothing, options._replace(orientation=order))
    reader = RemoteNpyRows(url, (layout.rows, layout.columns), header.dtype, header.begin, dtype)
    return Matrix(nothing.shape, dtype, url, order, layout, reader, stamp)


OPENER = Opener(lambda source: ends_with(source, ".npy"), _open)
