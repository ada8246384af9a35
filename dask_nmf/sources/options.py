"""What a caller asks of a matrix beside its entries, and the checks that all kinds of sources share."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from dask_nmf.errors import DataError
from dask_nmf.planning.row_panels import Layout
from dask_nmf.sources.formats.in_memory import default_dtype


class OpenOptions(NamedTuple):
    """What is asked of a matrix beside its entries."""

    dtype: str | np.dtype[Any] | None = None
    transposed: bool | None = None  # panels of columns; None: of whichever are more
    name: str = "V"  # how messages call it

    def turned(self, shape: tuple[int, int]) -> bool:
        """Whether the panels are columns, where either is as good."""
        return shape[0] < shape[1] if self.transposed is None else self.transposed


def working_dtype(stored: np.dtype[Any], wanted: OpenOptions) -> np.dtype[Any]:
    """Return the dtype of a panel: the one that is wanted, else that of `in_memory.floating`."""
    if stored.kind not in "biuf":
        cure = "; take its absolute value or its real part" if stored.kind == "c" else ""
        raise DataError(f"{wanted.name} has entries of type {stored}; NMF needs real numbers{cure}")
    if wanted.dtype is None:
        return default_dtype(stored)
    chosen = np.dtype(wanted.dtype)
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


def dense_layout(
    array: Any, wanted: OpenOptions, chunks: tuple[int, int] = (1, 1), chunk_bytes: int = 0
) -> tuple[np.dtype[Any], bool, Layout]:
    """Return the dtype of the panels of a dense array, whether they are columns, and their layout.

    Parameters
    ----------
    array : anything with a shape and a dtype.
    chunks : shape of its storage chunks, which take ``chunk_bytes`` each.
    """
    check_shape(array.shape, wanted.name)
    dtype = working_dtype(np.dtype(array.dtype), wanted)
    transposed = wanted.turned(array.shape)
    rows, columns = array.shape[::-1] if transposed else array.shape
    layout = Layout(
        rows,
        columns,
        dtype.itemsize,
        chunks[transposed],
        chunk_bytes,
        needs_cast=array.dtype != dtype,
        chunk_columns=chunks[not transposed],
    )
    return dtype, transposed, layout
