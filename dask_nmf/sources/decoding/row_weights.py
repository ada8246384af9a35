"""Weights of the rows of V: V with scaled rows, or a matrix of weights whose rows are constant."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import dask
import dask.array as da
import numpy as np
import scipy.sparse

from dask_nmf.planning.worker_memory import Layout
from dask_nmf.sources.matrix import Matrix
from dask_nmf.sources.reader import Box, ReaderDefaults, WrappedReader
from dask_nmf.types import Array, Block, Orientation
from dask_nmf.wording import counted


@dataclass(frozen=True)
class ScaledRows(WrappedReader):
    """V with each row multiplied by a number, block by block as they are read."""

    scales: Array  # (m,), of the rows of V
    orientation: Orientation

    @property
    def in_memory(self) -> bool:
        return self.reader.in_memory

    @property
    def worth_caching(self) -> bool:
        return self.reader.worth_caching

    @property
    def dask_array(self) -> da.Array | None:
        array = self.reader.dask_array
        if array is None:
            return None
        chunks = ((1,), array.chunks[1]) if self.orientation.by_columns else (array.chunks[0], (1,))
        scales = da.from_array(self._across(slice(None)), chunks=chunks)
        return array.map_blocks(scale_block, scales, dtype=self.dtype, meta=array._meta)

    def __getitem__(self, index: Box) -> Block:
        return scale_block(self.reader[index], self._across(self.orientation.turn(index)[0]))

    def _across(self, rows: slice) -> Array:
        """Return the scales of some rows of V, as a column or a row that is broadcast over a block."""
        scales = self.scales[rows, None]
        return scales.T if self.orientation.by_columns else scales


def scale_block(block: Block, scales: Array) -> Block:
    """Return a copy of a block, dense or CSR, times a column (r, 1) or a row (1, n) of numbers."""
    if not scipy.sparse.issparse(block):
        return np.asarray(block * scales)
    by_columns = scales.shape[1] == block.shape[1] and scales.shape[0] == 1
    factors = scales[0][block.indices] if by_columns else np.repeat(scales[:, 0], np.diff(block.indptr))
    return scipy.sparse.csr_array((block.data * factors, block.indices, block.indptr), block.shape)


@dataclass(frozen=True)
class RepeatedWeights(ReaderDefaults):
    """Weights of the entries of V that are the same in each row of V."""

    weights: Array  # (m,), of the rows of V
    orientation: Orientation
    shape: tuple[int, int]  # in panel orientation

    @property
    def dtype(self) -> np.dtype[Any]:
        dtype: np.dtype[Any] = self.weights.dtype
        return dtype

    @property
    def worth_caching(self) -> bool:
        return False

    def __getitem__(self, index: Box) -> Array:
        rows, columns = self.orientation.turn(index)
        size = len(range(*columns.indices(self.orientation.turn(self.shape)[1])))
        weights = self.weights[rows]
        return np.ascontiguousarray(
            self.orientation.turn_array(np.broadcast_to(weights[:, None], (len(weights), size)))
        )


def scale_rows(matrix: Matrix, scales: Array) -> Matrix:
    """Return V with each row multiplied by a number, (m,); nothing of V is read or copied now."""
    reader = ScaledRows(matrix.reader, scales.astype(matrix.dtype), matrix.orientation)
    layout = replace(matrix.layout, needs_cast=True)  # for the time of the product there are two copies
    return replace(matrix, reader=reader, layout=layout, listing=None)


def read_row_weights(weights: Any, rows: int, names: tuple[str, str]) -> Array:
    """Return weights of rows as an array in memory, (rows,), float64.

    Parameters
    ----------
    names : how messages call the weights, and the matrix of the rows.

    Raises
    ------
    ValueError
        If there is not one for each row, or one is negative, not finite or masked.
    """
    name, matrix = names
    (given,) = dask.compute(weights)
    try:
        values = np.ma.filled(np.ma.asarray(given, np.float64), np.nan)  # what is masked is no weight
    except (TypeError, ValueError):
        raise ValueError(
            f"{name} is a {type(given).__name__} of other things than numbers; give one number for each row"
        ) from None
    if values.shape != (rows,):
        raise ValueError(
            f"{name} has shape {values.shape} and {matrix} has {counted(rows, 'row')}; "
            "give one weight for each row"
        )
    bad = np.flatnonzero(~(np.isfinite(values) & (values >= 0)))
    if bad.size:
        raise ValueError(
            f"{name} is {values[bad[0]]} for row {bad[0]}; each weight must be a finite number >= 0"
        )
    return values


def weights_of_rows(matrix: Matrix, weights: Array) -> Matrix:
    """Return weights of the entries of V from those of its rows, (m,); a block is made when it is read."""
    reader = RepeatedWeights(weights.astype(matrix.dtype), matrix.orientation, matrix.reader.shape)
    layout = Layout(matrix.layout.rows, matrix.layout.columns, matrix.dtype.itemsize)
    return Matrix(matrix.shape, matrix.dtype, "sample_weight", matrix.orientation, layout, reader)
