"""The entries that are held out, by groups of rows and of columns, so that many rows lack the same columns.

Wold (1978) holds out diagonals of a matrix: the entries (i, j) with (i + j) mod K = 0. Here i and j are
replaced by labels, which hashes of (seed, row) and of (seed, column) choose. All rows of one label then
lack the same columns, and share one gram matrix, in which nothing is subtracted.
"""

from __future__ import annotations

from functools import cache, lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dask_nmf import rng
from dask_nmf.kernels.compiled import compiled
from dask_nmf.types import Array

FEWEST, MOST = 32, 256  # labels: fewer would hold out large rectangles, more would leave few rows to each

RANGES = 4  # ranges of rows or columns whose labels are kept

OF_ROW, OF_COLUMN, TAKES_PART = range(3)  # columns of the random numbers of a row or column

Labels = NDArray[np.int16]
Places = NDArray[np.int64] | range


class Groups(NamedTuple):
    """Groups of the rows and of the columns of a block: cells count, or not, by the pair of their groups."""

    rows: Labels  # (r,), the group of each row
    columns: Labels  # (n,), the group of each column
    counts: NDArray[np.bool_]  # (groups of rows, groups of columns)

    @property
    def row_weight(self) -> Array:
        """The number of cells of each row that count, (r,), float64."""
        return np.asarray((self.counts @ sizes(self.columns, self.counts.shape[1]))[self.rows])

    @property
    def column_weight(self) -> Array:
        """The number of cells of each column that count, (n,), float64."""
        return self.transpose().row_weight

    def transpose(self) -> Groups:
        """Return the groups of the transposed block."""
        return Groups(self.columns, self.rows, self.counts.T)

    def complement(self) -> Groups:
        """Return groups by which those cells count that do not count here."""
        return self._replace(counts=~self.counts)

    def row_sums(self, factor: Array) -> Array:
        """Return, for each group of rows, the sum of ``factor``, (n, k), over the columns that count."""
        parts = np.zeros((self.counts.shape[1], factor.shape[1]))
        _add_rows(np.ascontiguousarray(factor), self.columns, parts)
        return self.counts @ parts

    def of_cells(
        self, indices: NDArray[np.int32], indptr: NDArray[np.int64]
    ) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
        """Return which cells of the block count, (cells,), and the edges of the rows among these.

        Parameters
        ----------
        indices, indptr : the columns of cells and the edges of their rows, as those of CSR.
        """
        counts, edges = np.empty(len(indices), np.bool_), np.zeros(len(indptr), np.int64)
        _find_counting(indices.view(np.uint32), indptr, *self, counts, edges)
        return counts, edges


def sizes(labels: Labels, number: int) -> Array:
    """Return the number of members of each group, (number,), float64."""
    return np.bincount(labels, minlength=number).astype(np.float64)


@cache
def pattern(share: float) -> tuple[int, int, float]:
    """Return the number of labels K, how many diagonals are held out, and the share of rows that take part.

    The product of the last two, over K, is the share of the entries that is held out.
    """
    least = min(max(FEWEST, int(1 / share)), MOST)

    def taking_part(labels: int) -> float:
        return float(share * labels / np.ceil(share * labels))

    best = max(range(least, min(2 * least, MOST) + 1), key=lambda labels: round(taking_part(labels), 9))
    return best, int(np.ceil(share * best - 1e-9)), min(1.0, taking_part(best))


def held_out_groups(seed: int, share: float, rows: Places, columns: Places) -> Groups:
    """Return the groups of some rows and columns of V, by global indices, of which ``share`` is held out.

    The labels of a range are kept, because all panels of a pass have the same columns.
    """
    labels, diagonals, _ = pattern(share)
    held = (np.arange(labels)[:, None] + np.arange(labels)) % labels < diagonals
    counts = np.concatenate([~held, np.ones((1, labels), bool)])
    of_rows, of_columns = (
        _kept_labels(seed, share, places, which).copy()
        if isinstance(places, range)
        else _labels(seed, share, places, which)
        for places, which in ((rows, OF_ROW), (columns, OF_COLUMN))
    )
    return Groups(of_rows, of_columns, counts)


@lru_cache(maxsize=RANGES)
def _kept_labels(seed: int, share: float, places: range, which: int) -> Labels:
    return _labels(seed, share, np.asarray(places), which)


def _labels(seed: int, share: float, places: NDArray[np.int64], which: int) -> Labels:
    """Return the labels of rows or of columns; the last label is that of rows that do not take part."""
    labels, _, part = pattern(share)
    found = (labels * _random(seed, places, which)).astype(np.int16)
    if which == OF_ROW:
        found[_random(seed, places, TAKES_PART) >= part] = labels
    return found


def _random(seed: int, places: NDArray[np.int64], which: int) -> Array:
    return rng.uniform_at(seed, rng.Stream.HELD_OUT, places, np.asarray([which]))


@compiled()
def _add_rows(factor: Array, groups: Labels, sums: Array) -> None:
    """Add the rows of a factor, (n, k), to the sum of their groups, (groups, k)."""
    for i in range(len(factor)):
        into = sums[groups[i]]
        for t in range(factor.shape[1]):
            into[t] += factor[i, t]


@compiled()
def _find_counting(
    indices: Array, indptr: Array, rows: Labels, columns: Labels, counts: Array, found: Array, edges: Array
) -> None:
    for i in range(len(indptr) - 1):
        own, kept = counts[rows[i]], 0
        for p in range(indptr[i], indptr[i + 1]):
            found[p] = own[columns[indices[p]]]
            kept += found[p]
        edges[i + 1] = edges[i] + kept
