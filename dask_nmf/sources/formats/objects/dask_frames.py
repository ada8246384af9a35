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

logger = logging.getLogger(__name__)


def _open(frame: Any, options: OpenOptions) -> Matrix:
    """Open a frame; null is NaN.

    The rows of the partitions are counted first, from one column, because Dask does not know how many they
    are.

    Raises
    ------
    DataError
        If a column holds no numbers; if there are no rows.
    """
    empty: Any = to_arrays(frame._meta, options.name)
    dtype = default_dtype(np.dtype(empty.dtype))
    logger.info("counting the rows of %d partitions of %s", frame.npartitions, options.name)
    heights = compute_watched([delayed(len)(part) for part in frame[frame.columns[:1]].to_delayed()])
    blocks = [
        da.from_delayed(delayed(as_block)(part, dtype), (height, empty.shape[1]), meta=as_block(empty, dtype))
        for part, height in zip(frame.to_delayed(), heights, strict=True)
        if height
    ]
    if not blocks:
        raise DataError(
            f"{options.name} is empty, in {len(heights)} partitions; it must have at least one row"
        )
    return open_dask_array(da.concatenate(blocks), options)


OPENER = Opener(lambda source: is_a(source, "dask", "DataFrame"), _open)
