"""`open_matrix`: whatever holds V, as a `Matrix`."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from io import BytesIO
from math import prod
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import ZipFile

import dask.array as da
import numpy as np
import scipy.sparse
import zarr
from zarr.storage import ZipStore

from dask_nmf.errors import DataError, readable
from dask_nmf.kernels.summary.block_summary import measure
from dask_nmf.planning.row_panels import IN_FLIGHT, Layout
from dask_nmf.sources.checks import check_fits_memory, check_stored, check_width, validate_indptr
from dask_nmf.sources.formats.arrays import from_dask, from_held, from_numpy, from_sparse
from dask_nmf.sources.formats.hdf5 import HDF5Dataset, from_hdf5
from dask_nmf.sources.formats.in_memory import ACCEPTED, is_a, is_sliced, to_arrays
from dask_nmf.sources.formats.lazy import from_frame, from_xarray, is_lazy
from dask_nmf.sources.formats.npy import HEAD, WRITE_ANEW, Npz, header_of, map_npy, opened_npz
from dask_nmf.sources.formats.packing import SCALING, Packing, find_packing
from dask_nmf.sources.matrix import Matrix
from dask_nmf.sources.options import OpenOptions, check_shape, dense_layout, working_dtype
from dask_nmf.sources.readers import DenseRows, NpyRows, RemoteNpyRows, StoredSparseRows
from dask_nmf.storage.arrays.chunks import METADATA, require_chunks, stamp_of
from dask_nmf.storage.locations import absolute, locate
from dask_nmf.storage.objects.requests import fetch, stat
from dask_nmf.storage.objects.urls import is_url
from dask_nmf.types import Array

FILES = "a Zarr array, a CSR or CSC matrix in a Zarr group, an .npy or an .npz file"


class Opener(NamedTuple):
    """A kind of source that is not in the memory of this process, and how it is opened."""

    can_open: Callable[[Any], bool]
    open: Callable[[Any, OpenOptions], Matrix]


def open_matrix(
    source: Any,
    dtype: str | np.dtype[Any] | None = None,
    transposed: bool | None = None,
    name: str = "V",
) -> Matrix:
    """Open V as row panels; reads no more of it than its metadata (and a CSR matrix's row pointers).

    Parameters
    ----------
    source : one of

        * a path, to a Zarr v2 or v3 array (also in a ``.zip``), to a CSR or CSC matrix in a Zarr group
          (AnnData's layout), to an ``.npy`` (memory-mapped) or an ``.npz`` file (dense or SciPy's; loaded);
        * what is read by panels: a Dask array of any chunking with dense, masked or sparse blocks, a Dask
          DataFrame (whose rows are counted first), a ``zarr.Array``, an ``h5py.Dataset``, an xarray
          ``DataArray``, a ``zarr.Group`` or ``h5py.Group`` in AnnData's layout, AnnData's backed matrices,
          and other arrays of which parts can be read by slices;
        * what is in memory: NumPy, masked and ``scipy.sparse`` arrays and matrices, lists of rows, tables of
          pandas, polars and pyarrow, ``sparse`` arrays of pydata, and what ``numpy.asarray`` takes.

        What is masked, null, or missing by the CF conventions is NaN in the panels.
    dtype : of the panels, ``float32`` or ``float64``. By default these stay what they are, integers and
        floats of at most 16 bits become ``float32``, wider integers ``float64``.
    transposed : cut into panels of columns (True) or of rows; by default of whichever are more.
    name : how messages call it.

    Raises
    ------
    DataError (a ValueError), TypeError
        For what is not a non-empty two-dimensional matrix of real numbers of known size.
    FileNotFoundError
        If there is nothing at the path.
    """
    if isinstance(source, Matrix):
        return source
    wanted = OpenOptions(dtype, transposed, name)
    for opener in OPENERS:
        if opener.can_open(source):
            return opener.open(source, wanted)
    held = to_arrays(source, name)
    if held is not None:
        return from_held(held, wanted)
    if is_sliced(source):
        return from_numpy(source, wanted, type(source).__name__)
    raise TypeError(f"{name} is {type(source).__name__}; give {ACCEPTED} of {FILES}")


def in_memory_form(source: Any, name: str = "V") -> Any | None:
    """Return what is in this process's memory as NumPy or SciPy hold it; None for what is read by panels."""
    if isinstance(source, Matrix) or any(opener.can_open(source) for opener in OPENERS):
        return None
    return to_arrays(source, name)


def open_for_fixed_factor(
    source: Any, dtype: str | np.dtype[Any] | None, transposed: bool | None, name: str = "V"
) -> Matrix:
    """V in panels of columns, or of rows, which hold the factor that is asked for: each solves its own part.

    Unless it is stored the other way, so that such a panel would be all of it. None: as `open_matrix` does.
    """
    with suppress(DataError):  # a sparse matrix that is stored the other way; what else is wrong stays so
        opened = open_matrix(source, dtype, transposed, name)
        if not (1 < opened.layout.rows <= opened.layout.chunk_rows and opened.layout.tiled):
            return opened
    return open_matrix(source, dtype, name=name)


def open_entry_weights(matrix: Matrix, weights: Any) -> Matrix:
    """Open the weights of a V's entries, to be cut as V is.

    Raises
    ------
    DataError
        If their shape is another one, or they are stored the other way.
    """
    opened = open_matrix(weights, matrix.dtype, matrix.transposed, "weights")
    if opened.shape != matrix.shape:
        raise DataError(f"weights has shape {opened.shape} and V {matrix.shape}; they must be equal")
    return opened


def read_factor(factor: Any, name: str, shape: tuple[int, int] | None = None) -> Array:
    """Return a factor that the caller gives, in any way that V may be given, as one array in memory.

    Raises
    ------
    ValueError
        If it has another shape than ``shape``: before it is read.
    DataError
        If an entry is negative, not finite or masked; and as `open_matrix` does.
    """
    opened = open_matrix(factor, transposed=False, name=name)
    if shape is not None and opened.shape != shape:
        raise ValueError(f"{name} has shape {opened.shape}; for this V and rank it must be {shape}")
    block = opened.reader[slice(0, opened.layout.rows), slice(0, opened.layout.columns)]
    array = block.toarray() if scipy.sparse.issparse(block) else np.asarray(block)
    array = array.T if opened.transposed else array
    bad = measure(array).invalid
    if bad is not None:
        raise DataError(
            f"{name} has {bad.value} at row {bad.row}, column {bad.column}; a factor must be finite and ≥ 0, "
            "with nothing masked"
        )
    return array


def _open_group(source: Any, wanted: OpenOptions) -> Matrix:
    """Open a group, or an object that is backed by one, in AnnData's layout."""
    group = source if _is_group(source) else source.group
    place = group.store_path if isinstance(group, zarr.Group) else f"{group.file.filename}{group.name}"
    return _from_sparse_group(group, wanted, str(place))


def _is_group(source: Any) -> bool:
    return isinstance(source, zarr.Group) or is_a(source, "h5py", "Group")


def _from_zarr(array: zarr.Array[Any], wanted: OpenOptions, source: str) -> Matrix:
    check_stored(array, source)
    check_shape(array.shape, wanted.name)
    packing = _packing_of(array, source)
    cuts = array.shards or array.chunks
    chunk_bytes = prod(cuts) * array.dtype.itemsize
    if packing is not None:  # what is read beside the panel, before it is decoded into that
        chunk_bytes = 2 * max(chunk_bytes, IN_FLIGHT)
    dtype, transposed, layout = dense_layout(array, wanted, (cuts[0], cuts[1]), chunk_bytes)
    complete, listing = require_chunks(array, [array])
    reader = DenseRows(complete, transposed, dtype, packing, plain=packing is None)
    m, n = array.shape
    return Matrix((m, n), dtype, source, transposed, layout, reader, listing)


def _packing_of(array: Any, place: str) -> Packing | None:
    """Return how an array of Zarr or of h5py is packed; None if it is not packed."""
    fill = None
    if isinstance(array, zarr.Array) and array.metadata.zarr_format == 2:
        fill = array.fill_value
    return find_packing(dict(array.attrs), array.dtype, place, fill)


def _from_npy(path: str, wanted: OpenOptions) -> Matrix:
    mapped = map_npy(path)
    dtype, transposed, layout = dense_layout(mapped, wanted)
    reader = NpyRows(path, (layout.rows, layout.columns), transposed, dtype)
    return Matrix(mapped.shape, dtype, path, transposed, layout, reader, listing=stamp_of(os.stat(path)))


def _from_remote_npy(url: str, wanted: OpenOptions) -> Matrix:
    size, stamp = stat(url)
    header = header_of(url, fetch(url, 0, HEAD), size)
    fortran = header.fortran
    check_shape(header.shape, wanted.name)
    if wanted.transposed not in (None, fortran):
        order, needed = ("columns", "rows") if fortran else ("rows", "columns")
        raise DataError(f"{url} holds V by {order}, and V is cut the other way; store it by {needed}")
    nothing = np.broadcast_to(np.empty((), header.dtype), header.shape)
    dtype, _, layout = dense_layout(nothing, wanted._replace(transposed=fortran))
    reader = RemoteNpyRows(url, (layout.rows, layout.columns), header.dtype, header.begin, dtype)
    return Matrix(nothing.shape, dtype, url, fortran, layout, reader, listing=stamp)


def _from_npz(path: str, wanted: OpenOptions) -> Matrix:
    stamp = stat(path)[1] if is_url(path) else stamp_of(os.stat(path))
    return replace(_load_npz(path, wanted), listing=stamp)


def _load_npz(path: str, wanted: OpenOptions) -> Matrix:
    with opened_npz(BytesIO(fetch(path)) if is_url(path) else path, path) as held:
        names = list(held.headers)
        if {"format", "shape", "data"} <= set(names):
            return from_sparse(_sparse_of(held), wanted, path)
        arrays = [name for name in names if len(held.headers[name].shape) == 2]
        name = "X" if "X" in names else arrays[0] if len(arrays) == 1 else None
        if name is None:
            raise DataError(
                f"{path} holds {names}; it must hold one two-dimensional array, an array named X, "
                "or what scipy.sparse.save_npz writes"
            )
        (array,) = held.read(name)
        return from_numpy(array, wanted, path)


def _sparse_of(held: Npz) -> scipy.sparse.csr_array | scipy.sparse.csc_array:
    """What `scipy.sparse.save_npz` wrote."""
    with readable(held.place, WRITE_ANEW):
        (named,) = held.read("format")
        kind = named.item().decode() if named.dtype.kind == "S" else str(named)
        makers = {"csr": scipy.sparse.csr_array, "csc": scipy.sparse.csc_array}
        if kind not in makers:
            raise DataError(
                f"{held.place} holds a sparse matrix in format {kind!r}; convert it to csr or csc"
            )
        data, indices, indptr, sizes = held.read("data", "indices", "indptr", "shape")
        shape = (int(sizes[0]), int(sizes[1]))
        across = shape[::-1] if kind == "csc" else shape
        pointers = validate_indptr(indptr, across[0], len(data), held.place)
        check_width(held.place, shape, across[1], len(data))
        return makers[kind]((data, indices, pointers), shape=shape)


def _from_sparse_group(group: Any, wanted: OpenOptions, source: str) -> Matrix:
    """Open a CSR or CSC matrix in AnnData's layout, in a group of Zarr or of HDF5."""
    encoding = group.attrs.get("encoding-type")
    if encoding not in ("csr_matrix", "csc_matrix"):
        kind = "a Zarr" if isinstance(group, zarr.Group) else "an HDF5"
        listed = not isinstance(group, zarr.Group) or group.store.supports_listing
        inside = (", ".join(sorted(group.keys())) or "nothing") if listed else "arrays"
        raise DataError(
            f"{source} is {kind} group with encoding-type {encoding!r} holding {inside}; give the path "
            "of an array, or of a group with encoding-type 'csr_matrix' or 'csc_matrix'"
        )
    with readable(source, WRITE_ANEW):
        m, n = (int(size) for size in group.attrs["shape"])
    check_shape((m, n), wanted.name)
    data, indices, stored = (_part(group, name, source) for name in ("data", "indices", "indptr"))
    packing = _packing_of(data, f"{source}/data")
    dtype = working_dtype(data.dtype, wanted)
    transposed = encoding == "csc_matrix"
    if wanted.transposed not in (None, transposed):
        needed = "csc_matrix" if wanted.transposed else "csr_matrix"
        raise DataError(f"{source} is a {encoding} and V is cut the other way; store it as a {needed}")
    across = (n, m) if transposed else (m, n)
    entries = min(data.shape[0], indices.shape[0])
    check_width(source, (m, n), across[1], entries)
    check_fits_memory(source, "indptr", stored.nbytes)
    with readable(source, WRITE_ANEW):
        indptr = validate_indptr(np.asarray(stored[:]), across[0], entries, source)
    cuts = getattr(data, "shards", None) or data.chunks or (1,)
    chunk_bytes = prod(cuts) * (data.dtype.itemsize + 8)
    layout = Layout(
        *across,
        dtype.itemsize,
        chunk_bytes=chunk_bytes if packing is None else 2 * max(chunk_bytes, IN_FLIGHT),
        needs_cast=data.dtype != dtype,
        indptr=indptr,
    )
    listing, in_memory = None, False
    parts: Any = {"data": data, "indices": indices, "indptr": stored}
    if isinstance(group, zarr.Group):
        parts, listing = require_chunks(group, list(parts.values()))
    else:
        parts = {name: HDF5Dataset(part) for name, part in parts.items()}
        in_memory = not parts["data"].in_a_file
    reader = StoredSparseRows(parts, across, dtype, packing, in_memory)
    return Matrix((m, n), dtype, source, transposed, layout, reader, listing)


def _part(group: Any, name: str, source: str) -> Any:
    """Return an array of a sparse matrix in a group."""
    with readable(source, WRITE_ANEW):
        part = group.get(name)
    if getattr(part, "ndim", 0) != 1:
        raise DataError(f"{source} has no array {name} of one dimension, as CSR and CSC have; {WRITE_ANEW}")
    if isinstance(part, zarr.Array):
        check_stored(part, f"{source}/{name}", whole=name == "indices")  # no chunk of theirs is all zeros
    scaling = [attribute for attribute in (*SCALING, "_Unsigned") if attribute in part.attrs]
    if name != "data" and scaling:
        raise DataError(
            f"{source}/{name} has the attribute {', '.join(scaling)}, and it must hold plain integers; "
            "of a sparse matrix only data may be packed"
        )
    return part


def _open_path(path: str, wanted: OpenOptions) -> Matrix:
    if is_url(path):
        return _open_url(path, wanted)
    if not Path(path).exists():
        raise FileNotFoundError(f"there is nothing at {path}; give the path of {FILES}")
    if path.endswith(".npy"):
        return _from_npy(path, wanted)
    if path.endswith(".npz"):
        return _from_npz(path, wanted)
    if path.endswith(".zip"):
        return _open_zip(path, wanted)
    if Path(path).is_file():
        raise DataError(f"{path} is a file of another kind; give {FILES}")
    return _open_zarr(path, wanted)


def _open_url(url: str, wanted: OpenOptions) -> Matrix:
    place = locate(url)
    try:
        if url.endswith(".npy"):
            return _from_remote_npy(url, wanted)
        if url.endswith(".npz"):
            return _from_npz(url, wanted)
    except FileNotFoundError:
        raise FileNotFoundError(f"there is nothing at {url}; give the URL of {FILES}") from None
    if not place.exists():
        raise FileNotFoundError(f"there is nothing at {url}; give the URL of {FILES}")
    return _open_zarr(url, wanted)


def _open_zip(path: str, wanted: OpenOptions) -> Matrix:
    """Open what Zarr wrote into a zip archive, at its root or in its one folder."""
    with readable(path, f"give {FILES}"), ZipFile(path) as archive:
        members = [Path(name) for name in archive.namelist() if Path(name).name in METADATA]
    roots = {str(name.parent) for name in members if len(name.parts) <= 2}
    inside = "." if "." in roots or len(roots) != 1 else roots.pop()
    opened = _open_zarr(path, wanted, ZipStore(path, mode="r"), inside.strip("."))
    return replace(opened, listing=stamp_of(os.stat(path)))


def _open_zarr(path: str, wanted: OpenOptions, store: Any = None, inside: str = "") -> Matrix:
    try:
        with readable(path, f"give {FILES}"):
            place = locate(path).store() if store is None else store
            opened = zarr.open(place, path=inside, mode="r", use_consolidated=False)
    except (FileNotFoundError, zarr.errors.NodeNotFoundError) as error:
        raise DataError(f"{path} is no Zarr array or group; give {FILES}") from error
    if isinstance(opened, zarr.Group):
        return _from_sparse_group(opened, wanted, path)
    return _from_zarr(opened, wanted, path)


OPENERS = (  # the first that can open a source does
    Opener(
        lambda source: isinstance(source, str | os.PathLike),
        lambda path, wanted: _open_path(absolute(path), wanted),
    ),
    Opener(lambda source: isinstance(source, da.Array), from_dask),
    Opener(lambda source: is_a(source, "dask", "DataFrame"), from_frame),
    Opener(
        lambda source: isinstance(source, zarr.Array),
        lambda array, wanted: _from_zarr(array, wanted, str(array.store_path)),
    ),
    Opener(lambda source: is_a(source, "h5py", "Dataset"), from_hdf5),
    Opener(lambda source: _is_group(source) or _is_group(getattr(source, "group", None)), _open_group),
    Opener(is_lazy, from_xarray),
)
