"""Matrices with names in HDF5 files and in Zarr: AnnData's, 10x Genomics', and plain datasets."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse

from dask_nmf.errors import DataError, readable
from dask_nmf.ingest.files import FilePath, open_binary
from dask_nmf.ingest.formats.matrices.matrix_rows import MatrixRows
from dask_nmf.ingest.options import ConvertOptions
from dask_nmf.ingest.output.group import MARK, open_group
from dask_nmf.ingest.reading import optional_library
from dask_nmf.ingest.rows import BATCH, Batch, Columns, Named, RowSource
from dask_nmf.progress import report_panel, report_read, report_stage
from dask_nmf.sources.checks import canonical_csr, validate_indptr
from dask_nmf.storage.locations import Location
from dask_nmf.wording import counted

SUFFIXES = (".h5ad", ".h5", ".hdf5", ".hdf")
CURE = "write it anew"
TENX = {"data", "indices", "indptr", "shape", "barcodes"}
FEATURES = ("features/id", "genes")  # names of features in files of newer and older versions


def open_hdf5(path: FilePath, options: ConvertOptions, scratch: Path, files: ExitStack) -> RowSource:
    """Open a matrix in an HDF5 file: the one that the options name, or X, or that of 10x Genomics.

    Parameters
    ----------
    files : closes the file, which the matrix is read from until then

    Raises
    ------
    DataError
        If there is no such matrix, or none is named and the file has neither; it lists what there is.
    """
    h5py = optional_library("h5py")
    with readable(path, CURE):
        opened = path if isinstance(path, Path) else files.enter_context(open_binary(path))
        file = files.enter_context(h5py.File(opened, "r"))
    if options.dataset is None:
        for group in filter(lambda node: isinstance(node, h5py.Group), file.values()):
            if set(group) >= TENX:
                return TenXFile(group, options)
    inside = options.dataset or _default(file, h5py.Dataset)
    return _open_inside(file, inside, options, scratch)


def open_zarr_group(location: Location, options: ConvertOptions, scratch: Path) -> RowSource | None:
    """Open a matrix in a Zarr group of AnnData, or the one that the options name; None for anything else."""
    root = open_group(location)
    if root is None or (options.dataset is None and root.attrs.get("encoding-type") != "anndata"):
        return None
    return _open_inside(root, options.dataset or "X", options, scratch)


class TenXFile:
    """Cells by features of an HDF5 file that Cell Ranger wrote: CSC of features by cells, so CSR of cells."""

    sparse = True

    def __init__(self, group: Any, options: ConvertOptions) -> None:
        self._group = group
        self._place = f"{group.file.filename}{group.name}"
        with readable(self._place, CURE):
            self._rules = options.rules(group["data"].dtype)
            self.dtype = self._rules.dtype
            self._features, self._cells = (int(size) for size in group["shape"][:])
            names = next(group[name] for name in FEATURES if name in group)
            self._feature_names = list(names.asstr()[:])
            self._check_names("feature", self._features, len(self._feature_names))
            self._check_names("cell", self._cells, len(group["barcodes"]))
            self._indptr = validate_indptr(
                group["indptr"][:], self._cells, len(group["indices"]), self._place
            )

    def _check_names(self, what: str, number: int, names: int) -> None:
        if names != number:
            found = f"{counted(number, what)} and {counted(names, 'name')} of them"
            raise DataError(f"{self._place} has {found}; {CURE}")

    def columns(self) -> Columns:
        """Return the features."""
        return Columns(self._features, self._feature_names)

    def batches(self, begin: Any = None) -> Iterator[Batch]:
        """Yield the cells in order; a position is a number of cells."""
        step = max(1, BATCH // 16)  # entries
        report_stage(f"reading {self._place}")
        first = begin or 0
        report_read(int(self._indptr[-1] - self._indptr[first]) // step + 1, "batches")
        while first < self._cells:
            last = int(np.searchsorted(self._indptr, self._indptr[first] + step, side="right")) - 1
            last = min(max(last, first + 1), self._cells)
            with readable(self._place, CURE):
                names = self._group["barcodes"].asstr()[first:last]
                block = self._block(first, last)
            yield Batch(block, names, last)
            report_panel()
            first = last

    def _block(self, first: int, last: int) -> scipy.sparse.csr_array:
        """Return some cells."""
        begin, end = int(self._indptr[first]), int(self._indptr[last])
        data, indices = (self._group[name][begin:end] for name in ("data", "indices"))
        indptr = self._indptr[first : last + 1] - begin
        block = scipy.sparse.csr_array((data, indices, indptr), shape=(last - first, self._features))
        return self._rules.cast_rows(canonical_csr(block, np.dtype(np.float64)), partial(self._cell, first))

    def _cell(self, first: int, row: int, column: int) -> str:
        return f"{self._place}: cell {first + row}, feature {column}"


@dataclass(frozen=True)
class StoredTexts:
    """Names in an array of HDF5 or Zarr, which is read by ranges; `DataError` for what is no text."""

    array: Any
    place: str

    def __getitem__(self, key: slice) -> Any:
        """Return a range of the names."""
        with readable(self.place, CURE):
            return self.array[key]


def _open_inside(root: Any, inside: str, options: ConvertOptions, scratch: Path) -> RowSource:
    """Open the matrix at a path of a file or group, with the names that AnnData keeps for it."""
    place = root.filename if hasattr(root, "filename") else str(root.store_path)
    if inside not in root:
        raise DataError(f"{place} has nothing at {inside}, and holds {_listed(root)}; give another --dataset")
    with readable(place, CURE):
        names = [_names(root, frame) for frame in _frames(inside.strip("/"))]
        matrix = root[inside]
    return Named(MatrixRows(matrix, options, scratch), *names)


def _frames(inside: str) -> tuple[str | None, str | None]:
    """Return where AnnData names the rows and the columns of the matrix at a path; None where it does not."""
    if inside == "X" or inside.startswith("layers/"):
        return "obs", "var"
    if inside == "raw/X":
        return "obs", "raw/var"
    return ("obs" if inside.startswith("obsm/") else None), None


def _names(root: Any, frame: str | None) -> Any:
    """Return the array of the names of rows or columns; None if there are none."""
    if frame is None:
        return None
    named = root.attrs[MARK]["named"] if MARK in root.attrs else {}
    if frame not in root or "_index" not in root[frame].attrs or not named.get(frame, True):
        return None
    name = root[frame].attrs["_index"]
    index = root[frame][name]
    place = root.filename if hasattr(root, "filename") else str(root.store_path)
    return StoredTexts(index.asstr() if hasattr(index, "asstr") else index, f"{place}/{frame}/{name}")


def _default(file: Any, dataset: Any) -> str:
    """Return the path of X, or of the only dataset with rows and columns at the root."""
    if "X" in file:
        return "X"
    flat: list[str] = [name for name, node in file.items() if isinstance(node, dataset) and node.ndim == 2]
    if len(flat) != 1:
        raise DataError(f"{file.filename} holds {_listed(file)}; say with --dataset which is V")
    return flat[0]


def _listed(group: Any) -> str:
    return ", ".join(sorted(group.keys())[:20]) or "nothing"
