"""Dask DataFrames, of which each partition is a block of rows."""

from __future__ import annotations

import logging
from typing import Any

import dask.array as da
import numpy as np
from dask.delayed import delayed

from dask_nmf.cluster.watch import compute_watched
from dask_nmf.errors import DataError
from dask_nmf.sources.decoding.conversion import default_dtype, is_a, to_arrays
from dask_nmf.sources.formats.objects.dask_arrays import open_dask_array
from dask_nmf.sources.matrix import Matrix, as_block
from dask_nmf.sources.opener import Opener, OpenOptions
from dask_nmf.wording import counted

logger = logging.getLogger(__name__)


def is_dask_frame(source: Any) -> bool:
    """Return whether an object is a Dask DataFrame."""
    return is_a(source, "dask", "DataFrame")


def rows_of_frame(frame: Any, name: str = "V") -> tuple[da.Array, list[int]]:
    """Return a frame as an array, and the numbers of the partitions that have rows: its blocks.

    Null becomes NaN. The rows of the partitions are counted first, from one column, because Dask does not
    know how many they are.

    Raises
    ------
    DataError
        If a column holds no numbers; if there are no rows.
    """
    empty: Any = to_arrays(frame._meta, name)
    dtype = default_dtype(np.dtype(empty.dtype))
    logger.info("counting the rows of %s of %s", counted(frame.npartitions, "partition"), name)
    heights = compute_watched([delayed(len)(part) for part in frame[frame.columns[:1]].to_delayed()])
    filled = [number for number, height in enumerate(heights) if height]
    if not filled:
        raise DataError(
            f"{name} is empty, in {counted(len(heights), 'partition')}; it must have at least one row"
        )
    parts, meta = frame.to_delayed(), as_block(empty, dtype)
    blocks = [
        da.from_delayed(delayed(as_block)(parts[number], dtype), (heights[number], empty.shape[1]), meta=meta)
        for number in filled
    ]
    return da.concatenate(blocks), filled


def _open(frame: Any, options: OpenOptions) -> Matrix:
    rows, _ = rows_of_frame(frame, options.name)
    return open_dask_array(rows, options)


OPENER = Opener(is_dask_frame, _open)
