"""Dask arrays of dense, masked or sparse blocks, in any chunks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import dask.array as da
import numpy as np
import scipy.sparse

from dask_nmf.cluster.watch import compute_watched
from dask_nmf.planning.worker_memory import Layout
from dask_nmf.sources.checks import check_shape, working_dtype
from dask_nmf.sources.matrix import Matrix, as_block
from dask_nmf.sources.opener import Opener, OpenOptions
from dask_nmf.sources.reader import Box, ReaderDefaults
from dask_nmf.types import Block, Orientation


@dataclass(frozen=True)
class DaskReader(ReaderDefaults):
    """Boxes of a Dask array, which the tasks of its own graph compute."""

    array: da.Array  # in panel orientation and dtype
    dtype: np.dtype[Any]
    worth_caching: bool = field(default=False, init=False)

    @property
    def shape(self) -> tuple[int, int]:
        rows, columns = self.array.shape
        return rows, columns

    @property
    def sparse(self) -> bool:
        return bool(scipy.sparse.issparse(self.array._meta))

    @property
    def dask_array(self) -> da.Array:
        return self.array

    def __getitem__(self, index: Box) -> Block:
        return self.read_all([index])[0]

    def read_all(self, boxes: Sequence[Box]) -> list[Block]:
        parts = [self.array[box] for box in boxes]
        blocks = compute_watched([part.rechunk(part.shape).to_delayed()[0, 0] for part in parts])
        return [as_block(block, self.dtype) for block in blocks]


def open_dask_array(array: da.Array, options: OpenOptions) -> Matrix:
    """Open a Dask array.

    Blocks are cast before they are joined. Joining would drop a mask that the array's meta does not show, and
    would add entries of a sparse block that are stored twice in their narrow dtype.
    """
    check_shape(array.shape, options.name)
    dtype = working_dtype(array.dtype, options.dtype, options.name)
    m, n = array.shape
    orientation = options.orientation_of((m, n))
    indices = "".join(orientation.turn(("i", "j")))
    meta = _panel_block(array._meta, dtype, orientation)
    upright = da.blockwise(
        _panel_block, indices, array, "ij", panel_dtype=dtype, orientation=orientation, dtype=dtype, meta=meta
    )
    sparse = scipy.sparse.issparse(meta)
    heights = upright.chunks[0]
    regular = len(set(heights[:-1])) <= 1 and heights[-1] <= heights[0]
    layout = Layout(
        upright.shape[0],
        upright.shape[1],
        dtype.itemsize,
        chunk_rows=max(heights) if regular or sparse else 1,
        chunk_bytes=0 if sparse else int(np.prod(array.chunksize)) * dtype.itemsize,
        needs_cast=array.dtype != dtype,
        density_unknown=sparse,
        chunk_columns=orientation.turn(array.chunksize)[1],
    )
    return Matrix((m, n), dtype, "dask", orientation, layout, DaskReader(upright, dtype))


def _panel_block(block: Any, panel_dtype: np.dtype[Any], orientation: Orientation) -> Block:
    """Return a block in the dtype and the orientation of the panels; CSR stays CSR."""
    upright = orientation.turn_array(as_block(block, panel_dtype))
    return upright.tocsr() if scipy.sparse.issparse(upright) else upright


OPENER = Opener(lambda source: isinstance(source, da.Array), open_dask_array)
