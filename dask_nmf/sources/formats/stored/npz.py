"""Arrays in ``.npz`` files, dense ones and sparse ones as SciPy writes them; no pickle is loaded."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import IO

import numpy as np
import scipy.sparse

from dask_nmf.errors import DataError, readable
from dask_nmf.sources.checks import WRITE_ANEW_WITH, check_fits_memory, check_width, validate_indptr
from dask_nmf.sources.formats.objects.memory import open_dense, open_sparse
from dask_nmf.sources.formats.stored.npy import HEAD, Header, check_header, parse_header
from dask_nmf.sources.matrix import Matrix
from dask_nmf.sources.opener import Opener, OpenOptions, ends_with, nothing_at
from dask_nmf.storage.arrays.chunks import stamp_of
from dask_nmf.storage.locations import Location
from dask_nmf.storage.objects.requests import stat
from dask_nmf.types import Array

SUFFIX = ".npy"  # of the arrays in an archive
PARTS = {  # of a sparse matrix beside its entries, by its format
    "csr": ("indices", "indptr"),
    "csc": ("indices", "indptr"),
    "bsr": ("indices", "indptr"),
    "coo": ("row", "col"),
    "dia": ("offsets",),
}
MAKERS = {kind: getattr(scipy.sparse, f"{kind}_array") for kind in PARTS}
DEFLATED = 1032  # bytes that deflate can make of one


def _open(location: Location, options: OpenOptions) -> Matrix:
    if location.path is not None:
        stamp = stamp_of(os.stat(location.path))
        return replace(_load(location.path, location.name, options), listing=stamp)
    try:
        version = stat(location.address)[1]
        return replace(_load(BytesIO(location.read()), location.name, options), listing=version)
    except FileNotFoundError:
        raise nothing_at(location) from None


def _load(file: Path | IO[bytes], place: str, options: OpenOptions) -> Matrix:
    with _open_archive(file, place) as archive:
        names = list(archive.headers)
        if {"format", "shape", "data"} <= set(names):
            return open_sparse(_sparse_of(archive), options, place)
        arrays = [name for name in names if len(archive.headers[name].shape) == 2]
        name = "X" if "X" in names else arrays[0] if len(arrays) == 1 else None
        if name is None:
            raise DataError(
                f"{place} holds {names}; it must hold one two-dimensional array, an array named X, "
                "or what scipy.sparse.save_npz writes"
            )
        (array,) = archive.read(name)
        return open_dense(array, options, place)


def _sparse_of(archive: Npz) -> scipy.sparse.sparray:
    """Return the matrix that `scipy.sparse.save_npz` wrote."""
    with readable(archive.place, WRITE_ANEW_WITH):
        (named,) = archive.read("format")
        kind = named.item().decode() if named.dtype.kind == "S" else str(named)
        if kind not in PARTS:
            raise DataError(f"{archive.place} holds a sparse matrix in format {kind!r}; convert it to csr")
        data, sizes, *parts = archive.read("data", "shape", *PARTS[kind])
        shape = int(sizes[0]), int(sizes[1])
        if kind in ("csr", "csc"):
            along, across = shape if kind == "csr" else shape[::-1]
            check_width(archive.place, shape, across, len(data))
            pointers = validate_indptr(parts[1], along, len(data), archive.place)
            return MAKERS[kind]((data, parts[0], pointers), shape=shape)
        check_width(archive.place, shape, max(shape), data.size)
        if kind == "bsr":
            parts[1] = _block_pointers(parts[1], shape, data.shape, archive.place)
        found = MAKERS[kind]((data, tuple(parts)) if kind == "coo" else (data, *parts), shape=shape)
        if kind == "bsr":
            found.check_format(full_check=True)  # of its indices, which SciPy follows when it transposes
        return found


def _block_pointers(indptr: Array, shape: tuple[int, int], blocks: tuple[int, ...], place: str) -> Array:
    """Return the row pointers of a BSR matrix; SciPy checks neither them, if the last is 0, nor its shape.

    Parameters
    ----------
    blocks : the shape of its entries, which is (blocks, rows of a block, columns of a block).

    Raises
    ------
    DataError
        If the pointers do not fit the rows, or blocks do not fill the shape.
    """
    entries, height, width = blocks
    if shape[0] % height or shape[1] % width:
        raise DataError(
            f"{place} has shape {shape}, which blocks of {height} x {width} do not fill; {WRITE_ANEW_WITH}"
        )
    return validate_indptr(indptr, shape[0] // height, entries, place)


class Npz:
    """The arrays of an ``.npz`` file, each read only when it is asked for."""

    def __init__(self, archive: zipfile.ZipFile, place: str) -> None:
        self.archive = archive
        self.place = place
        names = [name.removesuffix(SUFFIX) for name in archive.namelist() if name.endswith(SUFFIX)]
        self.headers: dict[str, Header] = {}
        for name in names:
            with archive.open(name + SUFFIX) as member:
                self.headers[name] = parse_header(member.read(HEAD))

    def read(self, *names: str) -> list[Array]:
        """Return arrays by name.

        Raises
        ------
        DataError
            If they are longer than their bytes can be, or do not fit in memory together: before any is read.
        """
        for name in names:
            member = self.archive.getinfo(name + SUFFIX)
            available = min(member.file_size, DEFLATED * member.compress_size)
            check_header(f"{self.place}: {name}", self.headers[name], available)
        check_fits_memory(self.place, "what it holds", sum(self.headers[name].end for name in names))
        return [self._read(name) for name in names]

    def _read(self, name: str) -> Array:
        with readable(f"{self.place}: {name}", WRITE_ANEW_WITH), self.archive.open(name + SUFFIX) as member:
            array: Array = np.lib.format.read_array(member, allow_pickle=False)
            return array


@contextmanager
def _open_archive(source: Path | IO[bytes], place: str) -> Iterator[Npz]:
    """Open an ``.npz`` file and read the headers of its arrays.

    Raises
    ------
    DataError
        If it is of another kind.
    """
    with readable(place, WRITE_ANEW_WITH):
        archive = zipfile.ZipFile(source)
    with archive:
        with readable(place, WRITE_ANEW_WITH):
            opened = Npz(archive, place)
        yield opened


OPENER = Opener(lambda source: ends_with(source, ".npz"), _open)
