"""What files say of themselves, held against what is there before anything is allocated.

A file of V may come from anybody. Its metadata can claim any shape at the price of some bytes.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import scipy.sparse
import zarr
from distributed.system import MEMORY_LIMIT

from dask_nmf.errors import DataError, readable
from dask_nmf.storage.arrays import chunks
from dask_nmf.types import Array

WRITE_ANEW = "write V anew"
SPARSEST = 1000  # of what is claimed, one in so many is there
GIB = 2**30


def check_fits_memory(place: Any, part: str, size: int) -> None:
    """Refuse what would not fit the memory of this machine, in bytes."""
    if size > MEMORY_LIMIT:
        raise DataError(
            f"{place}: {part} takes {size / GIB:.3g} GiB in memory, and this machine has "
            f"{MEMORY_LIMIT / GIB:.3g} GiB; store it in smaller pieces, in Zarr"
        )


def check_stored(array: zarr.Array[Any], place: Any, whole: bool = False) -> None:
    """Refuse an array of whose storage chunks next to none are there, or of which one does not fit in memory.

    ``whole``: all of them must be there.

    Zarr reads a chunk that is not there as the fill value: so some bytes of metadata make a V of any size.
    Lists as few names as show that chunks are there.
    """
    with readable(place, WRITE_ANEW):
        check_chunks(array, place)
        claimed = chunks.count_chunks(array)
        wanted = claimed if whole else -(-claimed // SPARSEST)
        found = chunks.count_stored(array, wanted)
        if found is not None and found < wanted:
            raise DataError(
                f"{place} has shape {array.shape}, in {claimed} storage chunks, of which {found} are "
                "there; write or copy all of it"
            )


def check_chunks(array: zarr.Array[Any], place: Any) -> tuple[int, ...]:
    """The shape of an array's chunks (or shards), refused if one is nothing or does not fit in memory."""
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
    """Where the entries of each row of a CSR matrix begin, as int64, or refused."""
    if indptr.dtype.kind in "iu" and indptr.shape == (rows + 1,):
        pointers = indptr.astype(np.int64)
        if pointers[0] == 0 and pointers[-1] <= entries and np.all(pointers[1:] >= pointers[:-1]):
            return pointers
    raise DataError(f"{place}: indptr does not fit its shape, {rows} rows of {entries} entries; {WRITE_ANEW}")


def canonical_csr(array: Any, dtype: np.dtype[Any]) -> scipy.sparse.csr_array:
    """Return a sparse array as CSR, the entries of a row in order and each once.

    Entries that are stored twice mean their sum, as in SciPy. They are added as ``dtype``, so that narrow
    integers do not overflow. Where none are, the entries stay in the dtype that they have.

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
