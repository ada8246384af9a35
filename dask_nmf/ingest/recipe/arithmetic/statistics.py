"""Statistics of the columns of V, from one pass over blocks of rows, in double precision."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import scipy.sparse

from dask_nmf.types import Array, Block

SLAB = 2**20  # entries of a dense block that are in double precision at once


def positive_counts(blocks: Iterable[Block]) -> tuple[int, Array]:
    """Return the number of rows, and for each column in how many of them it is > 0, (n,)."""
    rows, counts = 0, np.zeros(0, np.int64)
    for block in blocks:
        if scipy.sparse.issparse(block):
            found = np.bincount(block.indices[block.data > 0], minlength=block.shape[1])
        else:
            found = np.count_nonzero(block > 0, axis=0)
        counts = found if rows == 0 else counts + found
        rows += block.shape[0]
    return rows, counts


def column_sums(blocks: Iterable[Block]) -> Array:
    """Return the sum of each column, (n,); of counts it is exact."""
    total = np.zeros(1)
    for block in blocks:
        if scipy.sparse.issparse(block):
            total = total + np.bincount(block.indices, np.nan_to_num(block.data), block.shape[1])
        else:
            total = total + np.nansum(block, axis=0, dtype=np.float64)
    return total


def maxima(blocks: Iterable[Block]) -> Array:
    """Return the greatest value of each column, (n,)."""
    highest = np.zeros(0)
    for block in blocks:
        if not len(highest):
            highest = np.zeros(block.shape[1])
        if scipy.sparse.issparse(block):
            np.fmax.at(highest, block.indices, block.data)
        else:
            highest = np.fmax(highest, np.fmax.reduce(block, axis=0))
    return highest


class Moments:
    """Number, mean and sum of squared deviations of each column; missing values do not count.

    Those of several parts are merged by the formula of Chan, Golub and LeVeque (1983).
    """

    def __init__(self, blocks: Iterable[Block]) -> None:
        self.count = self.mean = self._squares = np.zeros(0)
        for block in blocks:
            if scipy.sparse.issparse(block):
                self._merge(*_sparse_moments(block))
                continue
            step = max(1, SLAB // block.shape[1])
            for first in range(0, block.shape[0], step):
                self._merge(*_dense_moments(block[first : first + step]))

    def variance(self, degrees: int) -> Array:
        """Return the sums of squared deviations over the numbers of values less ``degrees``, (n,)."""
        return self._squares / np.maximum(self.count - degrees, 1)

    def _merge(self, count: Array, mean: Array, squares: Array) -> None:
        if not len(self.count):
            self.count, self.mean, self._squares = count, mean, squares
            return
        both = np.maximum(self.count + count, 1)
        difference = mean - self.mean
        self._squares = self._squares + squares + difference**2 * self.count * count / both
        self.mean = self.mean + difference * count / both
        self.count = self.count + count


def _dense_moments(block: Array) -> tuple[Array, Array, Array]:
    values = block.astype(np.float64)
    missing = np.isnan(values)
    values[missing] = 0
    count = len(values) - missing.sum(axis=0, dtype=np.float64)
    mean = values.sum(axis=0) / np.maximum(count, 1)
    values -= mean
    values[missing] = 0
    return count, mean, np.square(values).sum(axis=0)


def _sparse_moments(block: scipy.sparse.csr_array) -> tuple[Array, Array, Array]:
    known = ~np.isnan(block.data)
    values, columns = block.data[known].astype(np.float64), block.indices[known]
    width = block.shape[1]
    count = block.shape[0] - np.bincount(block.indices[~known], minlength=width).astype(np.float64)
    mean = np.bincount(columns, values, width) / np.maximum(count, 1)
    unstored = count - np.bincount(columns, minlength=width)
    squares = np.bincount(columns, (values - mean[columns]) ** 2, width) + unstored * mean**2
    return count, mean, squares
