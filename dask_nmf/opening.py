"""`open_matrix`: whatever holds V, as a `Matrix`."""

from __future__ import annotations

from contextlib import suppress
from io import BytesIO
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import dask.array as da
import numpy as np
import scipy.sparse
import zarr

from dask_nmf.archives import HEAD, WRITE_ANEW, Npz, header_of, map_npy, opened_npz
from dask_nmf.chunks import holding
from dask_nmf.claims import check_room, check_stored, check_width, csr, row_pointers
from dask_nmf.errors import DataError, readable
from dask_nmf.kernels import Array
from dask_nmf.matrix import Matrix
from dask_nmf.objects import fetch, is_url, size_of
from dask_nmf.places import absolute, at
from dask_nmf.plan import Layout
from dask_nmf.readers import DenseRows, NpyRows, RemoteNpyRows, SparseRows, StoredSparseRows

FILES = "a Zarr array, a CSR or CSC matrix in a Zarr group, an .npy or an .npz file"


class Wanted(NamedTuple):
    """What is asked of a matrix beside its entries."""

    dtype: str | np.dtype[Any] | None = None
    transposed: bool | None = None  # panels of columns; None: of whichever are more

    def turned(self, shape: tuple[int, int]) -> bool:
        """Whether the panels are columns, where either is as good."""
        return shape[0] < shape[1] if self.transposed is None else self.transposed


def open_matrix(
    source: Any, dtype: str | np.dtype[Any] | None = None, transposed: bool | None = None
) -> Matrix:
    """Open V as row panels; reads no more of it than its metadata (and a CSR matrix's row pointers).

    Parameters
    ----------
    source : a NumPy array, a ``scipy.sparse`` matrix or array, a Dask array of any chunking with dense or
        ``csr_array`` blocks, or a path: to a Zarr v2 or v3 array, to a CSR or CSC matrix in a Zarr group
        (AnnData's layout), to an ``.npy`` (memory-mapped) or an ``.npz`` file (dense or scipy's; loaded).
    dtype : of the panels, ``float32`` or ``float64``. By default these stay what they are, integers and
        floats of at most 16 bits become ``float32``, wider integers ``float64``.
    transposed : cut into panels of columns (True) or of rows; by default of whichever are more.

    Raises
    ------
    DataError (a ValueError), TypeError
        For what is not a non-empty two-dimensional matrix of real numbers of known size.
    FileNotFoundError
        If there is nothing at the path.
    """
    wanted = Wanted(dtype, transposed)
    if isinstance(source, str | Path):
        return _open_path(absolute(source), wanted)
    if isinstance(source, Matrix):
        return source
    if isinstance(source, da.Array):
        return _from_dask(source, wanted)
    if scipy.sparse.issparse(source):
        return _from_sparse(source, wanted, "scipy.sparse")
    if isinstance(source, zarr.Array):
        return _from_zarr(source, wanted, str(source.store_path))
    if isinstance(source, np.ndarray):
        return _from_numpy(source, wanted, "numpy")
    kind = type(source).__name__
    raise TypeError(f"V is {kind}; give an array (NumPy, scipy.sparse, Dask, Zarr) or the path of {FILES}")


def open_holding(source: Any, dtype: str | np.dtype[Any] | None, transposed: bool | None) -> Matrix:
    """V in panels of columns, or of rows, which hold the factor that is asked for: each solves its own part.

    Unless it is stored the other way, so that such a panel would be all of it. None: as `open_matrix` does.
    """
    with suppress(DataError):  # a sparse matrix that is stored the other way; what else is wrong stays so
        opened = open_matrix(source, dtype, transposed)
        if not (1 < opened.layout.rows <= opened.layout.chunk_rows and opened.layout.tiled):
            return opened
    return open_matrix(source, dtype)


def read_whole(opened: Matrix) -> Array:
    """What a path held that was opened by rows, as one array in memory."""
    assert opened.reader is not None
    rows, columns = (slice(0, size) for size in opened.shape)
    block = opened.reader[rows, columns]
    return block.toarray() if scipy.sparse.issparse(block) else np.asarray(block)


def open_beside(matrix: Matrix, weights: Any) -> Matrix:
    """Open the weights of a V's entries, to be cut as V is.

    Raises
    ------
    DataError
        If their shape is another one, or they are stored the other way.
    """
    opened = open_matrix(weights, matrix.dtype, matrix.transposed)
    if opened.shape != matrix.shape:
        raise DataError(f"weights has shape {opened.shape} and V {matrix.shape}; they must be equal")
    return opened


def working_dtype(stored: np.dtype[Any], wanted: str | np.dtype[Any] | None) -> np.dtype[Any]:
    """The dtype of a panel: see `open_matrix`."""
    if stored.kind not in "biuf":
        cure = "; take its absolute value or its real part" if stored.kind == "c" else ""
        raise DataError(f"V has entries of type {stored}; NMF needs real numbers{cure}")
    if wanted is not None:
        chosen = np.dtype(wanted)
        if chosen not in (np.float32, np.float64):
            raise ValueError(f"dtype is {chosen}; it must be float32 or float64")
        return chosen
    if stored.kind == "f" and stored.itemsize >= 4:
        return np.dtype(np.float32 if stored.itemsize == 4 else np.float64)
    return np.dtype(np.float32 if stored.itemsize <= 2 else np.float64)


def _check_shape(shape: tuple[Any, ...]) -> None:
    if len(shape) != 2:
        raise DataError(f"V has {len(shape)} dimension(s), shape {shape}; it must have rows and columns")
    if any(size != size for size in shape):
        raise DataError(f"V has unknown chunk sizes, shape {shape}; call V.compute_chunk_sizes() first")
    if 0 in shape:
        raise DataError(f"V is empty, shape {shape}; it must have at least one row and one column")


def _dense(
    array: Any, wanted: Wanted, chunks: tuple[int, int] = (1, 1), chunk_bytes: int = 0
) -> tuple[np.dtype[Any], bool, Layout]:
    _check_shape(array.shape)
    dtype = working_dtype(np.dtype(array.dtype), wanted.dtype)
    transposed = wanted.turned(array.shape)
    rows, columns = array.shape[::-1] if transposed else array.shape
    return (
        dtype,
        transposed,
        Layout(
            rows,
            columns,
            dtype.itemsize,
            chunks[transposed],
            chunk_bytes,
            copied=array.dtype != dtype,
            chunk_columns=chunks[not transposed],
        ),
    )


def _from_numpy(array: Any, wanted: Wanted, source: str) -> Matrix:
    dtype, transposed, layout = _dense(array, wanted)
    reader = DenseRows(array, transposed, dtype)
    return Matrix(array.shape, dtype, source, transposed, layout, reader, in_memory=True)


def _from_zarr(array: zarr.Array[Any], wanted: Wanted, source: str) -> Matrix:
    check_stored(array, source)
    _check_shape(array.shape)
    cuts = array.shards or array.chunks
    chunk_bytes = prod(cuts) * array.dtype.itemsize
    dtype, transposed, layout = _dense(array, wanted, (cuts[0], cuts[1]), chunk_bytes)
    complete, listing = holding(array, [array])
    reader = DenseRows(complete, transposed, dtype)
    m, n = array.shape
    return Matrix((m, n), dtype, source, transposed, layout, reader, listing=listing)


def _from_npy(path: str, wanted: Wanted) -> Matrix:
    mapped = map_npy(path)
    dtype, transposed, layout = _dense(mapped, wanted)
    reader = NpyRows(path, (layout.rows, layout.columns), transposed, dtype)
    return Matrix(mapped.shape, dtype, path, transposed, layout, reader)


def _from_remote_npy(url: str, wanted: Wanted) -> Matrix:
    header = header_of(url, fetch(url, 0, HEAD), size_of(url))
    fortran = header.fortran
    _check_shape(header.shape)
    if wanted.transposed not in (None, fortran):
        order, needed = ("columns", "rows") if fortran else ("rows", "columns")
        raise DataError(f"{url} holds V by {order}, and V is cut the other way; store it by {needed}")
    nothing = np.broadcast_to(np.empty((), header.dtype), header.shape)
    dtype, _, layout = _dense(nothing, wanted._replace(transposed=fortran))
    reader = RemoteNpyRows(url, (layout.rows, layout.columns), header.dtype, header.begin, dtype)
    return Matrix(nothing.shape, dtype, url, fortran, layout, reader)


def _from_npz(path: str, wanted: Wanted) -> Matrix:
    with opened_npz(BytesIO(fetch(path)) if is_url(path) else path, path) as held:
        names = list(held.headers)
        if {"format", "shape", "data"} <= set(names):
            return _from_sparse(_sparse_of(held), wanted, path)
        arrays = [name for name in names if len(held.headers[name].shape) == 2]
        name = "X" if "X" in names else arrays[0] if len(arrays) == 1 else None
        if name is None:
            raise DataError(
                f"{path} holds {names}; it must hold one two-dimensional array, an array named X, "
                "or what scipy.sparse.save_npz writes"
            )
        (array,) = held.read(name)
        return _from_numpy(array, wanted, path)


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
        pointers = row_pointers(indptr, across[0], len(data), held.place)
        check_width(held.place, shape, across[1], len(data))
        return makers[kind]((data, indices, pointers), shape=shape)


def _from_sparse(array: Any, wanted: Wanted, source: str) -> Matrix:
    _check_shape(array.shape)
    dtype = working_dtype(array.dtype, wanted.dtype)
    m, n = array.shape
    turned = wanted.turned((m, n))
    with readable(source, WRITE_ANEW):
        rows = csr(array.T if turned else array)
    height, width = rows.shape
    layout = Layout(height, width, dtype.itemsize, copied=array.dtype != dtype, indptr=rows.indptr)
    return Matrix((m, n), dtype, source, turned, layout, SparseRows(rows, dtype), in_memory=True)


def _from_sparse_group(group: zarr.Group, wanted: Wanted, source: str) -> Matrix:
    encoding = group.attrs.get("encoding-type")
    if encoding not in ("csr_matrix", "csc_matrix"):
        inside = ", ".join(sorted(group.keys())) or "nothing" if group.store.supports_listing else "arrays"
        raise DataError(
            f"{source} is a Zarr group with encoding-type {encoding!r} holding {inside}; give the path of an "
            "array, or of a group with encoding-type 'csr_matrix' or 'csc_matrix'"
        )
    with readable(source, WRITE_ANEW):
        m, n = (int(size) for size in group.attrs["shape"])  # type: ignore[union-attr, arg-type]
    _check_shape((m, n))
    data, indices, stored = (_part(group, name, source) for name in ("data", "indices", "indptr"))
    dtype = working_dtype(data.dtype, wanted.dtype)
    transposed = encoding == "csc_matrix"
    if wanted.transposed not in (None, transposed):
        needed = "csc_matrix" if wanted.transposed else "csr_matrix"
        raise DataError(f"{source} is a {encoding} and V is cut the other way; store it as a {needed}")
    across = (n, m) if transposed else (m, n)
    entries = min(data.shape[0], indices.shape[0])
    check_width(source, (m, n), across[1], entries)
    check_room(source, "indptr", stored.nbytes)
    with readable(source, WRITE_ANEW):
        indptr = row_pointers(np.asarray(stored[:]), across[0], entries, source)
    chunk_bytes = prod(data.shards or data.chunks) * (data.dtype.itemsize + 8)
    layout = Layout(
        *across, dtype.itemsize, chunk_bytes=chunk_bytes, copied=data.dtype != dtype, indptr=indptr
    )
    complete, listing = holding(group, [data, indices, stored])
    reader = StoredSparseRows(complete, across, dtype)
    return Matrix((m, n), dtype, source, transposed, layout, reader, listing=listing)


def _part(group: zarr.Group, name: str, source: str) -> zarr.Array[Any]:
    """An array of a sparse matrix in a group."""
    with readable(source, WRITE_ANEW):
        part = group.get(name)
    if not isinstance(part, zarr.Array) or part.ndim != 1:
        raise DataError(f"{source} has no array {name} of one dimension, as CSR and CSC have; {WRITE_ANEW}")
    check_stored(part, f"{source}/{name}", whole=name == "indices")  # no chunk of theirs is all zeros
    return part


def _from_dask(array: da.Array, wanted: Wanted) -> Matrix:
    _check_shape(array.shape)
    dtype = working_dtype(array.dtype, wanted.dtype)
    m, n = array.shape
    sparse = scipy.sparse.issparse(array._meta)
    turned = wanted.turned((m, n))
    upright = _transpose(array) if turned else array
    heights = upright.chunks[0]
    regular = len(set(heights[:-1])) <= 1 and heights[-1] <= heights[0]
    layout = Layout(
        upright.shape[0],
        upright.shape[1],
        dtype.itemsize,
        chunk_rows=max(heights) if regular or sparse else 1,
        chunk_bytes=0 if sparse else int(np.prod(array.chunksize)) * array.dtype.itemsize,
        copied=array.dtype != dtype,
        blind=sparse,
        chunk_columns=array.chunksize[not turned],
    )
    return Matrix((m, n), dtype, "dask", turned, layout, array=upright)


def _transpose(array: da.Array) -> da.Array:
    """V turned, block by block: `da.transpose` would leave CSR blocks as CSC."""
    return da.blockwise(_turn, "ji", array, "ij", dtype=array.dtype, meta=_turn(array._meta))


def _turn(block: Any) -> Any:
    return block.T.tocsr() if scipy.sparse.issparse(block) else block.T


def _open_path(path: str, wanted: Wanted) -> Matrix:
    if is_url(path):
        return _open_url(path, wanted)
    if not Path(path).exists():
        raise FileNotFoundError(f"there is nothing at {path}; give the path of {FILES}")
    if path.endswith(".npy"):
        return _from_npy(path, wanted)
    if path.endswith(".npz"):
        return _from_npz(path, wanted)
    if Path(path).is_file():
        raise DataError(f"{path} is a file of another kind; give {FILES}")
    return _open_zarr(path, wanted)


def _open_url(url: str, wanted: Wanted) -> Matrix:
    place = at(url)
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


def _open_zarr(path: str, wanted: Wanted) -> Matrix:
    try:
        with readable(path, f"give {FILES}"):
            opened = zarr.open(at(path).store(), mode="r", use_consolidated=False)
    except (FileNotFoundError, zarr.errors.NodeNotFoundError) as error:
        raise DataError(f"{path} is no Zarr array or group; give {FILES}") from error
    if isinstance(opened, zarr.Group):
        return _from_sparse_group(opened, wanted, path)
    return _from_zarr(opened, wanted, path)
