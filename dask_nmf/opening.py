"""`open_matrix`: whatever holds V, as a `Matrix`."""

from __future__ import annotations

from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import dask.array as da
import numpy as np
import scipy.sparse
import zarr

from dask_nmf.kernels import Array
from dask_nmf.matrix import Matrix
from dask_nmf.measures import DataError
from dask_nmf.objects import fetch, is_url
from dask_nmf.places import absolute, at
from dask_nmf.plan import Layout
from dask_nmf.readers import DenseRows, NpyRows, RemoteNpyRows, SparseRows, StoredSparseRows

READ_HEADER = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
HEADER = 2**16  # bytes: the header of an .npy file is shorter
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


def read_whole(path: str | Path) -> Array:
    """What is at a path that `open_matrix` takes, as one array in memory."""
    opened = open_matrix(path, transposed=False)
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
    if any(np.isnan(size) for size in shape):
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
    _check_shape(array.shape)
    cuts = array.shards or array.chunks
    chunk_bytes = int(np.prod(cuts)) * array.dtype.itemsize
    dtype, transposed, layout = _dense(array, wanted, (cuts[0], cuts[1]), chunk_bytes)
    reader = DenseRows(array, transposed, dtype)
    m, n = array.shape
    return Matrix((m, n), dtype, source, transposed, layout, reader)


def _from_npy(path: str, wanted: Wanted) -> Matrix:
    mapped = np.load(path, mmap_mode="r", allow_pickle=False)
    dtype, transposed, layout = _dense(mapped, wanted)
    reader = NpyRows(path, (layout.rows, layout.columns), transposed, dtype)
    return Matrix(mapped.shape, dtype, path, transposed, layout, reader)


def _from_remote_npy(url: str, wanted: Wanted) -> Matrix:
    with BytesIO(fetch(url, 0, HEADER)) as head:
        read = READ_HEADER[np.lib.format.read_magic(head)]
        shape, fortran, stored = read(head)
        begin = head.tell()
    _check_shape(shape)
    if wanted.transposed not in (None, fortran):
        order, needed = ("columns", "rows") if fortran else ("rows", "columns")
        raise DataError(f"{url} holds V by {order}, and V is cut the other way; store it by {needed}")
    nothing = np.broadcast_to(np.empty((), stored), shape)
    dtype, _, layout = _dense(nothing, wanted._replace(transposed=fortran))
    reader = RemoteNpyRows(url, (layout.rows, layout.columns), stored, begin, dtype)
    return Matrix((shape[0], shape[1]), dtype, url, fortran, layout, reader)


def _from_npz(path: str, wanted: Wanted) -> Matrix:
    with np.load(BytesIO(fetch(path)) if is_url(path) else path, allow_pickle=False) as held:
        if {"format", "shape", "data"} <= set(held.files):
            parts = {
                key: held[key] for key in ("data", "indices", "indptr", "shape", "format") if key in held
            }
            return _from_sparse(_sparse_from_parts(parts, path), wanted, path)
        arrays = [key for key in held.files if held[key].ndim == 2]
        key = "X" if "X" in held.files else arrays[0] if len(arrays) == 1 else None
        if key is None:
            raise DataError(
                f"{path} holds {held.files}; it must hold one two-dimensional array, an array named X, "
                "or what scipy.sparse.save_npz writes"
            )
        return _from_numpy(held[key], wanted, path)


def _sparse_from_parts(parts: dict[str, Any], path: str) -> scipy.sparse.csr_array:
    kind = str(parts["format"].item().decode() if parts["format"].dtype.kind == "S" else parts["format"])
    makers = {"csr": scipy.sparse.csr_array, "csc": scipy.sparse.csc_array}
    if kind not in makers:
        raise DataError(f"{path} holds a sparse matrix in format {kind!r}; convert it to csr or csc")
    shape = tuple(int(size) for size in parts["shape"])
    return makers[kind]((parts["data"], parts["indices"], parts["indptr"]), shape=shape)


def _from_sparse(array: Any, wanted: Wanted, source: str) -> Matrix:
    _check_shape(array.shape)
    dtype = working_dtype(array.dtype, wanted.dtype)
    m, n = array.shape
    turned = wanted.turned((m, n))
    rows = scipy.sparse.csr_array(array.T if turned else array)
    height, width = rows.shape
    layout = Layout(height, width, dtype.itemsize, copied=array.dtype != dtype, indptr=rows.indptr)
    return Matrix((m, n), dtype, source, turned, layout, SparseRows(rows, dtype), in_memory=True)


def _from_sparse_group(group: zarr.Group, wanted: Wanted, source: str) -> Matrix:
    encoding = group.attrs.get("encoding-type")
    if encoding not in ("csr_matrix", "csc_matrix"):
        inside = ", ".join(sorted(group.keys())) or "nothing"
        raise DataError(
            f"{source} is a Zarr group with encoding-type {encoding!r} holding {inside}; give the path of an "
            "array, or of a group with encoding-type 'csr_matrix' or 'csc_matrix'"
        )
    shape = tuple(int(size) for size in group.attrs["shape"])  # type: ignore[union-attr, arg-type]
    _check_shape(shape)
    data = group["data"]
    assert isinstance(data, zarr.Array)
    dtype = working_dtype(data.dtype, wanted.dtype)
    transposed = encoding == "csc_matrix"
    if wanted.transposed not in (None, transposed):
        needed = "csc_matrix" if wanted.transposed else "csr_matrix"
        raise DataError(f"{source} is a {encoding} and V is cut the other way; store it as a {needed}")
    across = (shape[1], shape[0]) if transposed else (shape[0], shape[1])
    indptr = np.asarray(group["indptr"][:])  # type: ignore[index]
    if len(indptr) != across[0] + 1 or np.any(np.diff(indptr) < 0) or indptr[-1] > data.shape[0]:
        raise DataError(f"{source}: indptr does not fit its shape {shape} and its {data.shape[0]} entries")
    chunk_bytes = int(np.prod(data.shards or data.chunks)) * (data.dtype.itemsize + 8)
    layout = Layout(
        *across, dtype.itemsize, chunk_bytes=chunk_bytes, copied=data.dtype != dtype, indptr=indptr
    )
    reader = StoredSparseRows(group, across, dtype)
    return Matrix((shape[0], shape[1]), dtype, source, transposed, layout, reader)


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
        opened = zarr.open(at(path).store(), mode="r")
    except (FileNotFoundError, zarr.errors.NodeNotFoundError) as error:
        raise DataError(f"{path} is no Zarr array or group; give {FILES}") from error
    if isinstance(opened, zarr.Group):
        return _from_sparse_group(opened, wanted, path)
    return _from_zarr(opened, wanted, path)
