"""Checks of shapes, dtypes and offsets against what NMF takes, and against the bytes that are there.

A file of V may come from anybody. Its metadata can claim any shape at the price of some bytes, so claims are
checked before memory is allocated for them.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import scipy.sparse
import zarr
from distributed.system import MEMORY_LIMIT

from dask_nmf.errors import DataError, readable
from dask_nmf.sources.decoding.conversion import default_dtype
from dask_nmf.storage.arrays import chunks
from dask_nmf.types import Array

WRITE_ANEW = "write V anew"
WRITE_ANEW_WITH = "write V anew, with numpy.save, numpy.savez or scipy.sparse.save_npz"
SPARSEST = 1000  # one in so many of the chunks, or rows, that are claimed must be there
GIB = 2**30


def working_dtype(stored: np.dtype[Any], dtype: str | np.dtype[Any] | None, name: str) -> np.dtype[Any]:
    """Return the dtype of the panels of a matrix.

    Parameters
    ----------
    stored : dtype of its entries.
    dtype : what the caller asks for; None: that of `default_dtype`.
    name : how messages call the matrix.

    Raises
    ------
    DataError
        If the entries are no real numbers.
    ValueError
        If the caller asks for anything but ``float32`` or ``float64``.
    """
    if stored.kind not in "biuf":
        cure = "; take its absolute value or its real part" if stored.kind == "c" else ""
        raise DataError(f"{name} has entries of type {stored}; NMF needs real numbers{cure}")
    if dtype is None:
        return default_dtype(stored)
    chosen = np.dtype(dtype)
    if chosen not in (np.float32, np.float64):
        raise ValueError(f"dtype is {chosen}; it must be float32 or float64")
    return chosen


def check_shape(shape: tuple[Any, ...], name: str) -> None:
    """Refuse what is not two-dimensional, of known size and at least one row and one column."""
    if len(shape) != 2:
        raise DataError(f"{name} has {len(shape)} dimension(s), shape {shape}; it must have rows and columns")
    if any(size != size for size in shape):
        raise DataError(
            f"{name} has unknown chunk sizes, shape {shape}; call {name}.compute_chunk_sizes() first"
        )
    if 0 in shape:
        raise DataError(f"{name} is empty, shape {shape}; it must have at least one row and one column")


def check_fits_memory(place: Any, part: str, size: int) -> None:
    """Refuse a part of V that takes more bytes than this machine has memory."""
    if size > MEMORY_LIMIT:
        raise DataError(
            f"{place}: {part} takes {size / GIB:.3g} GiB in memory, and this machine has "
            f"{MEMORY_LIMIT / GIB:.3g} GiB; store it in smaller pieces, in Zarr"
        )


def check_stored(array: zarr.Array[Any], place: Any, whole: bool = False) -> None:
    """Refuse an array of which hardly any storage chunk is there, or one chunk does not fit in memory.

    Zarr reads a chunk that is not there as the fill value, so some bytes of metadata make a V of any size.
    No more names are listed than show that enough chunks are there.

    Parameters
    ----------
    whole : whether all chunks must be there, and not only one in `SPARSEST`.
    """
    with readable(place, WRITE_ANEW):
        if not isinstance(array.metadata.attributes, dict):
            raise DataError(f"{place} has attributes that are no JSON object; write it anew")
        check_chunks(array, place)
        claimed = chunks.count_chunks(array)
        needed = claimed if whole else -(-claimed // SPARSEST)
        present = chunks.count_stored(array, needed)
        if present is not None and present < needed:
            raise DataError(
                f"{place} has shape {array.shape}, in {claimed} storage chunks, of which {present} are "
                "there; write or copy all of it"
            )


def check_chunks(array: zarr.Array[Any], place: Any) -> tuple[int, ...]:
    """Return the shape of an array's chunks (or shards); refuse an empty one and one that exceeds memory."""
    cuts: tuple[int, ...] = array.shards or array.chunks
    if 0 in cuts:
        raise DataError(f"{place} has chunks of shape {cuts}; {WRITE_ANEW}, in chunks of some entries")
    check_fits_memory(place, f"a storage chunk of shape {cuts}", prod(cuts) * array.dtype.itemsize)
    return cuts


def check_width(place: Any, shape: tuple[int, int], across: int, entries: int) -> None:
    """Refuse a sparse matrix with far more rows or columns, ``across``, than any entry could be in."""
    if across > SPARSEST * max(entries, SPARSEST):
        raise DataError(
            f"{place} has shape {shape} and {entries} entries; leave out rows and columns without any"
        )


def validate_indptr(indptr: Array, rows: int, entries: int, place: Any) -> Array:
    """Return the row pointers of a CSR matrix as int64, (rows + 1,); refuse those that do not fit it."""
    if indptr.dtype.kind in "iu" and indptr.shape == (rows + 1,):
        pointers = indptr.astype(np.int64)
        if pointers[0] == 0 and pointers[-1] <= entries and np.all(pointers[1:] >= pointers[:-1]):
            return pointers
    raise DataError(f"{place}: indptr does not fit its shape, {rows} rows of {entries} entries; {WRITE_ANEW}")


def canonical_csr(array: Any, dtype: np.dtype[Any]) -> scipy.sparse.csr_array:
    """Return a sparse array as CSR, with the entries of a row in order and each stored once.

    Entries that are stored twice mean their sum, as in SciPy. They are added as ``dtype``, so that narrow
    integers do not overflow. Where there are none, the entries stay in the dtype that they have.

    Raises
    ------
    ValueError
        If the indices are outside of the shape. SciPy itself would write there.
    """
    if hasattr(array, "check_format"):
        array.check_format(full_check=True)
    if array.format not in ("csr", "csc"):  # converting those adds
        array = array.astype(dtype)
    rows = scipy.sparse.csr_array(array)
    if not rows.has_canonical_format:
        rows = rows.astype(dtype, copy=True)
        rows.sum_duplicates()
    return rows
