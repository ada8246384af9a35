"""The top-k columns of W H in each row of a block, among the cells that V does not have."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse

from dask_nmf.kernels.compiled import compiled
from dask_nmf.types import Array, Block

STRIP = 256  # rows that are searched at once
TILE = 4096  # columns whose values are in memory at once, for `STRIP` rows


class TopKSpec(NamedTuple):
    """How many columns to find in each row of V, and which cells count as absent from V."""

    n_columns: int  # the most columns to find in a row
    missing: str | None = None  # how V marks a cell that it does not have: see `observed_index`


class TopK(NamedTuple):
    """The columns with the largest values in each row, best first; the first column wins a tie."""

    columns: Array  # (rows, count) int64; -1 after the last column that was found
    values: Array  # (rows, count); NaN there

    def shifted(self, first_column: int) -> TopK:
        """Return the same cells where the block begins at column ``first_column`` of V."""
        return TopK(np.where(self.columns < 0, -1, self.columns + first_column), self.values)


def top_k(v: Block, w: Array, h: Array, spec: TopKSpec) -> TopK:
    """Return the largest values of w h, (r, n), among the cells that v does not have.

    A column of h that has a NaN is never found. Values are computed for `STRIP` rows and `TILE` columns at a
    time.

    Parameters
    ----------
    v : (r, n), dense or CSR.
    w : (r, k).
    h : (k, n).
    """
    shape = (len(w), spec.n_columns)
    best = TopK(np.full(shape, -1, np.int64), np.full(shape, np.nan, w.dtype))
    for first in range(0, len(w), STRIP):
        rows = slice(first, first + STRIP)
        strip = v[rows]
        for left in range(0, h.shape[1], TILE):
            tile = slice(left, left + TILE)
            values = w[rows] @ h[:, tile]
            values[:, np.isnan(h[:, tile]).any(axis=0)] = np.nan
            values[observed_index(strip[:, tile], spec.missing)] = np.nan
            _insert(values, left, best.columns[rows], best.values[rows])
    return best


def top_k_by_columns(v: Block, w: Array, h: Array, spec: TopKSpec) -> TopK:
    """Return the largest values among some columns of V for all rows of V; the columns are the rows of v.

    Parameters
    ----------
    v : (r, m), r columns of V.
    w : (r, k), the part of Hᵀ for these columns.
    h : (k, m), Wᵀ.
    """
    by_rows = v.T.tocsr() if scipy.sparse.issparse(v) else v.T
    return top_k(by_rows, h.T, w.T, spec)


def observed_index(v: Block, missing: str | None) -> Any:
    """Return an index of the cells that a block has: a mask, or the coordinates of a sparse block.

    Parameters
    ----------
    missing : the cells that V does not have. "nan": those that are NaN; "unstored": those that a sparse V
        does not store; None: those that are not positive.
    """
    if not scipy.sparse.issparse(v):
        return v > 0 if missing is None else ~np.isnan(v)
    stored = v.tocoo()
    if missing == "nan":
        mask = np.ones(v.shape, bool)
        mask[_selected(stored.coords, np.isnan(stored.data))] = False
        return mask
    return stored.coords if missing == "unstored" else _selected(stored.coords, stored.data > 0)


def _selected(coords: tuple[Array, Array], kept: Array) -> tuple[Array, Array]:
    rows, columns = coords
    return rows[kept], columns[kept]


def merge(parts: Sequence[TopK]) -> TopK:
    """Return the best of the same rows over neighbouring ranges of columns, given from left to right."""
    return reduce(_merge_two, parts)


def _merge_two(left: TopK, right: TopK) -> TopK:
    columns, values = (np.concatenate(side, axis=1) for side in zip(left, right, strict=True))
    order = np.argsort(-values, axis=1, kind="stable")[:, : left.columns.shape[1]]
    return TopK(np.take_along_axis(columns, order, axis=1), np.take_along_axis(values, order, axis=1))


@compiled()
def _insert(values: Array, left: int, columns: Array, best: Array) -> None:
    """Insert values, (r, t), of columns from ``left`` on into the sorted list of each row; skip NaN."""
    count = columns.shape[1]
    for i in range(values.shape[0]):
        for j in range(values.shape[1]):
            value = values[i, j]
            if np.isnan(value) or value <= best[i, count - 1]:
                continue
            at = count - 1
            while at > 0 and not best[i, at - 1] >= value:
                columns[i, at] = columns[i, at - 1]
                best[i, at] = best[i, at - 1]
                at -= 1
            columns[i, at] = left + j
            best[i, at] = value
