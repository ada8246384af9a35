"""The sides of a result, W with the rows of V and Hᵀ with its columns, read in pieces with their names."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from dask_nmf.runs.stored_result import StoredResult
from dask_nmf.sources.labels.names import TEXT, Names, gather
from dask_nmf.storage.arrays.factors import ZarrFactor
from dask_nmf.types import Array

NAME = 64  # bytes that a line takes at least, with its name
BYTES = 2**24  # of a factor that are read at once, if a storage chunk is not larger


@dataclass(frozen=True)
class Side:
    """W, or Hᵀ: one line for each row, or each column, of V.

    Attributes
    ----------
    dimension : "row" or "column"
    size : how many lines there are
    rank : how many components
    names : the names of the lines, if there are any
    """

    dimension: str
    size: int
    rank: int
    dtype: np.dtype[np.generic]
    names: Names | None
    factor: ZarrFactor

    def pieces(self) -> Iterator[tuple[int, Array]]:
        """Yield the first line of each piece, and its lines, (lines, k), in order."""
        unit = self.factor.array.chunks[1 if self.factor.transposed else 0]
        line = max(NAME, self.rank * self.dtype.itemsize)
        step = unit * max(1, BYTES // (unit * line))
        for first in range(0, self.size, step):
            yield first, self.factor.read(first, min(first + step, self.size))

    def totals(self) -> Array:
        """Return the sum of each component over all lines, (k,), float64."""
        totals: Array = np.zeros(self.rank)
        for _, lines in self.pieces():
            totals += lines.sum(axis=0, dtype=np.float64)
        return totals

    def names_of(self, first: int, last: int) -> Array:
        """Return the names of a range of lines; their numbers, counted from 0, where there are none."""
        if self.names is None:
            return np.arange(first, last).astype(TEXT)
        return self.names.read(first, last)

    def names_at(self, numbers: Array) -> Array | None:
        """Return the names of some lines; None if there are none."""
        return None if self.names is None else gather(self.names, numbers)


def sides_of(result: StoredResult) -> tuple[Side, Side]:
    """Return the sides of a result: W with the rows of V, and Hᵀ with its columns."""
    (W, H), labels = result.factors, result.labels
    m, k = W.shape
    return (
        Side("row", m, k, result.dtype, labels.rows, ZarrFactor(W)),
        Side("column", H.shape[1], k, result.dtype, labels.columns, ZarrFactor(H, transposed=True)),
    )
