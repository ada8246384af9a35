"""Arrays in ``.npy`` and ``.npz`` files: their headers first, and nothing that is a pickle."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from math import prod
from typing import IO, NamedTuple

import numpy as np

from dask_nmf.errors import DataError, readable
from dask_nmf.sources.checks import check_fits_memory
from dask_nmf.types import Array

SUFFIX = ".npy"
WRITE_ANEW = "write V anew, with numpy.save, numpy.savez or scipy.sparse.save_npz"
DEFLATED = 1032  # bytes that deflate can make of one
HEAD = 2**16  # bytes: a header is shorter
READ_HEADER = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


class Header(NamedTuple):
    """What an array says of itself."""

    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]
    fortran: bool  # its columns come one after the other
    begin: int  # of the entries, in bytes

    @property
    def end(self) -> int:
        """Of the entries, in bytes."""
        return self.begin + prod(self.shape) * self.dtype.itemsize


def map_npy(path: str) -> Array:
    """The array of an ``.npy`` file, mapped.

    Raises
    ------
    DataError
        If the file is of another kind, of Python objects, or shorter than its header says.
    """
    with readable(path, WRITE_ANEW), open(path, "rb") as file:
        header_of(path, file.read(HEAD), file.seek(0, 2))
        return np.lib.format.open_memmap(path, mode="r")


class Npz:
    """The arrays of an ``.npz`` file, of which only what is asked for is read."""

    def __init__(self, archive: zipfile.ZipFile, place: str) -> None:
        self.archive = archive
        self.place = place
        names = [name.removesuffix(SUFFIX) for name in archive.namelist() if name.endswith(SUFFIX)]
        self.headers: dict[str, Header] = {}
        for name in names:
            with archive.open(name + SUFFIX) as member:
                self.headers[name] = _header(member.read(HEAD))

    def read(self, *names: str) -> list[Array]:
        """Arrays by name.

        Raises
        ------
        DataError
            Before any is read, if they are longer than their bytes can be, or do not fit in memory together.
        """
        for name in names:
            member = self.archive.getinfo(name + SUFFIX)
            held = min(member.file_size, DEFLATED * member.compress_size)
            _check(f"{self.place}: {name}", self.headers[name], held)
        check_fits_memory(self.place, "what it holds", sum(self.headers[name].end for name in names))
        return [self._read(name) for name in names]

    def _read(self, name: str) -> Array:
        with readable(f"{self.place}: {name}", WRITE_ANEW), self.archive.open(name + SUFFIX) as member:
            array: Array = np.lib.format.read_array(member, allow_pickle=False)
            return array


@contextmanager
def opened_npz(source: str | IO[bytes], place: str) -> Iterator[Npz]:
    """An ``.npz`` file, its headers read.

    Raises
    ------
    DataError
        If it is of another kind.
    """
    with readable(place, WRITE_ANEW):
        archive = zipfile.ZipFile(source)
    with archive:
        with readable(place, WRITE_ANEW):
            opened = Npz(archive, place)
        yield opened


def header_of(place: str, head: bytes | memoryview, size: int) -> Header:
    """The header of an ``.npy`` file, from its first `HEAD` bytes, held against how many bytes there are.

    Raises
    ------
    DataError
    """
    with readable(place, WRITE_ANEW):
        header = _header(head)
    _check(place, header, size)
    return header


def _header(head: bytes | memoryview) -> Header:
    with BytesIO(head) as file:
        version = np.lib.format.read_magic(file)
        if version not in READ_HEADER:
            raise ValueError(f"it has format {version}, which no array of numbers needs")
        shape, fortran, dtype = READ_HEADER[version](file)
        return Header(shape, dtype, fortran, file.tell())


def _check(place: str, header: Header, held: int) -> None:
    if header.dtype.hasobject:
        raise DataError(f"{place} has Python objects, which are never loaded; NMF needs real numbers")
    if min(header.shape, default=1) < 0 or header.end > held:
        raise DataError(
            f"{place} says that its shape is {header.shape} and its type {header.dtype}, for which "
            f"{header.end} bytes are needed, and there are at most {held}; {WRITE_ANEW}"
        )
