"""Arrays and tables of other libraries that are read part by part: those of xarray, and Dask DataFrames."""

from __future__ import annotations

import logging
from typing import Any

import dask.array as da
import numpy as np
from dask.delayed import delayed

from dask_nmf.cluster.client import compute_watched
from dask_nmf.errors import DataError
from dask_nmf.sources.formats.arrays import from_dask
from dask_nmf.sources.formats.in_memory import default_dtype, is_a, to_arrays
from dask_nmf.sources.formats.packing import check_decoded
from dask_nmf.sources.matrix import Matrix, as_block
from dask_nmf.sources.options import OpenOptions, dense_layout
from dask_nmf.sources.readers import DenseRows

logger = logging.getLogger(__name__)


def is_lazy(source: Any) -> bool:
    """Whether an object is of xarray and reads, or computes, its values when they are asked for."""
    return is_a(source, "xarray", "DataArray", "Variable") and not (
        source.chunks is None and getattr(source, "variable", source)._in_memory
    )


def from_xarray(array: Any, wanted: OpenOptions) -> Matrix:
    """Open a labelled array that is backed by Dask, or by a file that xarray reads part by part."""
    check_decoded(array.attrs, wanted.name)
    if array.chunks is not None and isinstance(array.data, da.Array):
        return from_dask(array.data, wanted)
    dtype, transposed, layout = dense_layout(array, wanted)
    m, n = array.shape
    return Matrix((m, n), dtype, "xarray", transposed, layout, DenseRows(array, transposed, dtype))


def from_frame(frame: Any, wanted: OpenOptions) -> Matrix:
    """Open a Dask DataFrame, a block for each partition; null is NaN.

    The rows of the partitions are counted first, from one column: Dask does not know how many they are.

    Raises
    ------
    DataError
        If a column holds no numbers; if there are no rows.
    """
    empty: Any = to_arrays(frame._meta, wanted.name)
    dtype = default_dtype(np.dtype(empty.dtype))
    logger.info("counting the rows of %d partitions of %s", frame.npartitions, wanted.name)
    heights = compute_watched([delayed(len)(part) for part in frame[frame.columns[:1]].to_delayed()])
    blocks = [
        da.from_delayed(delayed(as_block)(part, dtype), (height, empty.shape[1]), meta=as_block(empty, dtype))
        for part, height in zip(frame.to_delayed(), heights, strict=True)
        if height
    ]
    if not blocks:
        raise DataError(
            f"{wanted.name} is empty, in {len(heights)} partitions; it must have at least one row"
        )
    return from_dask(da.concatenate(blocks), wanted)
