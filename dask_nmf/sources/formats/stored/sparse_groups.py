"""CSR and CSC matrices in groups of Zarr or HDF5, in AnnData's layout: arrays data, indices and indptr."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse
import zarr

from dask_nmf.errors import DataError, readable
from dask_nmf.planning.worker_memory import IN_FLIGHT, Layout
from dask_nmf.sources.checks import (
    WRITE_ANEW_WITH,
    canonical_csr,
    check_fits_memory,
    check_shape,
    check_stored,
    check_width,
    validate_indptr,
    working_dtype,
)
from dask_nmf.sources.decoding.conversion import is_a
from dask_nmf.sources.decoding.packing import SCALING, Packing, packing_of
from dask_nmf.sources.dense import load, naming_place
from dask_nmf.sources.formats.stored.conversions import recipe_of
from dask_nmf.sources.formats.stored.hdf5 import HDF5Dataset, location_of_node
from dask_nmf.sources.labels.stored import labels_of
from dask_nmf.sources.matrix import Matrix
from dask_nmf.sources.opener import Opener, OpenOptions
from dask_nmf.sources.reader import Box, ReaderDefaults
from dask_nmf.storage.arrays.chunks import require_chunks
from dask_nmf.storage.locations import Location, location_of_store
from dask_nmf.types import Array, Block, Orientation

PARTS = ("data", "indices", "indptr")


@dataclass(frozen=True)
class StoredSparseRows(ReaderDefaults):
    """Rows of a CSR matrix in a group, or columns of a CSC matrix."""

    group: zarr.Group | Mapping[str, Any]  # of `PARTS`
    shape: tuple[int, int]
    dtype: np.dtype[Any]
    packing: Packing | None = None  # of data
    in_memory: bool = False
    sparse: bool = field(default=True, init=False)
    any_box: bool = field(default=False, init=False)

    @property
    def stored_dtype(self) -> np.dtype[Any] | None:
        data: Any = self.group["data"]
        return np.dtype(data.dtype) if self.packing is None else None

    def __getitem__(self, index: Box) -> Block:
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
        block = scipy.sparse.csr_array((data, indices, indptr - indptr[0]), shape=shape)
        return canonical_csr(block, self.dtype)


class _Claim(NamedTuple):
    """The matrix that the attributes of a group claim to hold."""

    shape: tuple[int, int]  # (m, n), as the caller has V
    orientation: Orientation  # by columns if the matrix is CSC: panels are what is stored together

    @property
    def upright(self) -> tuple[int, int]:
        """The shape in panel orientation."""
        return self.orientation.turn(self.shape)


def open_sparse_group(group: Any, options: OpenOptions, place: str) -> Matrix:
    """Open the matrix of a group; its row pointers are read.

    Raises
    ------
    DataError
        If the group holds anything else; if the matrix is stored by rows and the caller wants panels of
        columns, or the other way.
    """
    claim = _read_claim(group, options, place)
    data, indices, indptr = (_part(group, name, place) for name in PARTS)
    packing = packing_of(data, f"{place}/data")
    dtype = working_dtype(data.dtype, options.dtype, options.name)
    _check_order(claim, options, place)
    pointers = _read_indptr(claim, min(data.shape[0], indices.shape[0]), indptr, place)
    cuts = getattr(data, "shards", None) or data.chunks or (1,)
    chunk_bytes = prod(cuts) * (data.dtype.itemsize + 8)
    layout = Layout(
        *claim.upright,
        dtype.itemsize,
        chunk_bytes=chunk_bytes if packing is None else 2 * max(chunk_bytes, IN_FLIGHT),
        needs_cast=data.dtype != dtype,
        indptr=pointers,
    )
    labels = labels_of(group, claim.shape)
    if isinstance(group, zarr.Group):
        whole, listing = require_chunks(group, [data, indices, indptr])
        reader = StoredSparseRows(whole, claim.upright, dtype, packing)
        matrix = Matrix(claim.shape, dtype, place, claim.orientation, layout, reader, listing, labels=labels)
        return replace(matrix, recipe=recipe_of(group))
    datasets = {name: HDF5Dataset(part) for name, part in zip(PARTS, (data, indices, indptr), strict=True)}
    in_memory = not datasets["data"].in_a_file
    reader = StoredSparseRows(datasets, claim.upright, dtype, packing, in_memory)
    return Matrix(claim.shape, dtype, place, claim.orientation, layout, reader, labels=labels)


def _read_claim(group: Any, options: OpenOptions, place: str) -> _Claim:
    encoding = group.attrs.get("encoding-type")
    if encoding not in ("csr_matrix", "csc_matrix"):
        kind = "a Zarr" if isinstance(group, zarr.Group) else "an HDF5"
        listed = not isinstance(group, zarr.Group) or group.store.supports_listing
        inside = (", ".join(sorted(group.keys())) or "nothing") if listed else "arrays"
        raise DataError(
            f"{place} is {kind} group with encoding-type {encoding!r} holding {inside}; give the path "
            "of an array, or of a group with encoding-type 'csr_matrix' or 'csc_matrix'"
        )
    with readable(place, WRITE_ANEW_WITH):
        m, n = (int(size) for size in group.attrs["shape"])
    check_shape((m, n), options.name)
    return _Claim((m, n), Orientation.COLUMNS if encoding == "csc_matrix" else Orientation.ROWS)


def _part(group: Any, name: str, place: str) -> Any:
    """Return one of the arrays of a group."""
    with readable(place, WRITE_ANEW_WITH):
        part = group.get(name)
    if getattr(part, "ndim", 0) != 1:
        raise DataError(
            f"{place} has no array {name} of one dimension, as CSR and CSC have; {WRITE_ANEW_WITH}"
        )
    if isinstance(part, zarr.Array):
        check_stored(part, f"{place}/{name}", whole=name == "indices")  # no chunk of indices is all zeros
    scaling = [attribute for attribute in (*SCALING, "_Unsigned") if attribute in part.attrs]
    if name != "data" and scaling:
        raise DataError(
            f"{place}/{name} has the attribute {', '.join(scaling)}, and it must hold plain integers; "
            "of a sparse matrix only data may be packed"
        )
    return part


def _check_order(claim: _Claim, options: OpenOptions, place: str) -> None:
    """Refuse a CSR matrix that is to be cut into columns, or a CSC matrix that is to be cut into rows."""
    if options.orientation in (None, claim.orientation):
        return
    stored, needed = claim.orientation.turn(("csr_matrix", "csc_matrix"))
    raise DataError(f"{place} is a {stored} and V is cut the other way; store it as a {needed}")


def _read_indptr(claim: _Claim, entries: int, indptr: Any, place: str) -> Array:
    """Return the row pointers, (rows + 1,); refuse those that do not fit the shape or the entries."""
    rows, columns = claim.upright
    check_width(place, claim.shape, columns, entries)
    check_fits_memory(place, "indptr", indptr.nbytes)
    with readable(place, WRITE_ANEW_WITH):
        return validate_indptr(np.asarray(indptr[:]), rows, entries, place)


def _is_group(source: Any) -> bool:
    return isinstance(source, zarr.Group) or is_a(source, "h5py", "Group")


def _group_of(source: Any) -> Any:
    return source if _is_group(source) else source.group


def _location_of(source: Any) -> Location | None:
    group = _group_of(source)
    if isinstance(group, zarr.Group):
        return location_of_store(group.store, group.path)
    return location_of_node(group)


def _open(source: Any, options: OpenOptions) -> Matrix:
    """Open a group, or an object that is backed by one, such as AnnData's ``X`` in backed mode."""
    group = _group_of(source)
    place = group.store_path if isinstance(group, zarr.Group) else f"{group.file.filename}{group.name}"
    return open_sparse_group(group, options, str(place))


OPENER = Opener(
    lambda source: _is_group(source) or _is_group(getattr(source, "group", None)), _open, _location_of
)
