"""HDF5 datasets of h5py, which tasks in other processes open anew by the names of file and dataset."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from dask_nmf.sources.checks import check_fits_memory, check_shape
from dask_nmf.sources.decoding.conversion import is_a
from dask_nmf.sources.decoding.packing import find_packing
from dask_nmf.sources.dense import DenseSource, dense_matrix
from dask_nmf.sources.labels.stored import labels_of
from dask_nmf.sources.matrix import Matrix
from dask_nmf.sources.opener import Opener, OpenOptions
from dask_nmf.storage.locations import Location, location_of_file
from dask_nmf.types import Array


class HDF5Dataset:
    """A dataset, read by slices.

    The process that opened it reads the caller's own object. h5py locks the library around each read, so
    threads take turns.
    """

    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset
        self.file = str(dataset.file.filename)
        self.name = str(dataset.name)
        self.shape = tuple(dataset.shape)
        self.dtype = np.dtype(dataset.dtype)
        self.chunks = None if dataset.chunks is None else tuple(dataset.chunks)
        self.store_path = f"{self.file}{self.name}"

    @property
    def in_a_file(self) -> bool:
        """Return whether other processes can open it too."""
        return Path(self.file).is_file()

    def __getitem__(self, box: Any) -> Array:
        if self._dataset is not None:
            return np.asarray(self._dataset[box])
        with import_module("h5py").File(self.file, "r") as file:
            return np.asarray(file[self.name][box])

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_dataset": None, "file": str(Path(self.file).absolute())}


def _open(dataset: Any, options: OpenOptions) -> Matrix:
    """Open a dataset, unpacked by the CF conventions if its attributes say so (netCDF-4 is HDF5)."""
    stored = HDF5Dataset(dataset)
    place = stored.store_path
    check_shape(stored.shape, options.name)
    cuts = stored.chunks or (1, 1)
    chunk_bytes = prod(cuts) * stored.dtype.itemsize
    check_fits_memory(place, f"a storage chunk of shape {cuts}", chunk_bytes)
    packing = find_packing(dict(dataset.attrs), stored.dtype, place)
    chunks = (cuts[0], cuts[1])
    in_memory = not stored.in_a_file
    matrix = dense_matrix(DenseSource(stored, place, chunks, chunk_bytes, packing, in_memory), options)
    return replace(matrix, labels=labels_of(dataset, matrix.shape))


def location_of_node(node: Any) -> Location | None:
    """Return the location of a dataset or a group in a file; None if the file is in memory."""
    file = Path(node.file.filename)
    return location_of_file(Path(f"{file}{node.name}")) if file.is_file() else None


OPENER = Opener(lambda source: is_a(source, "h5py", "Dataset"), _open, location_of_node)
