"""The cells of a block where W H is largest, among those that V does not have."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse

from dask_nmf.kernels.compiled import compiled
from dask_nmf.kernels.least_squares import STRIP
from dask_nmf.types import Array, Block

TILE = 4096  # columns whose values are in memory, of `STRIP` rows


class Choice(NamedTuple):
    """What is looked for in each row of V."""

    count: int  # most columns of a row
    missing: str | None = None  # how V says that it does not have a cell: see `seen`


class Best(NamedTuple):
    """For each row the columns with the largest values, best first; of equal ones the first column."""

    columns: Array  # (rows, count) int64; -1 where there are no more
    values: Array  # (rows, count); NaN there

    def at(self, first_column: int) -> Best:
        """The same where the block begins at ``first_column``."""
        return Best(np.where(self.columns < 0, -1, self.columns + first_column), self.values)


def best(v: Block, w: Array, h: Array, choice: Choice) -> Best:
    """The largest values of w h, (r, n), among the cells that v does not have.

    A column of h that has a NaN is not looked at. The values of `STRIP` rows and `TILE` columns are in memory
    at a time.
    """
    shape = (len(w), choice.count)
    found = Best(np.full(shape, -1, np.int64), np.full(shape, np.nan, w.dtype))
    for first in range(0, len(w), STRIP):
        rows = slice(first, first + STRIP)
        strip = v[rows]
        for left in range(0, h.shape[1], TILE):
            tile = slice(left, left + TILE)
            values = w[rows] @ h[:, tile]
            values[:, np.isnan(h[:, tile]).any(axis=0)] = np.nan
            values[seen(strip[:, tile], choice.missing)] = np.nan
            _insert(values, left, found.columns[rows], found.values[rows])
    return found


def best_across(v: Block, w: Array, h: Array, choice: Choice) -> Best:
    """The same where v is columns of V, given as rows: the best of all rows of V among these columns.

    Parameters
    ----------
    w : (r, k), the columns' part of Hᵀ.
    h : (k, m), Wᵀ.
    """
    turned = v.T.tocsr() if scipy.sparse.issparse(v) else v.T
    return best(turned, h.T, w.T, choice)


def seen(v: Block, missing: str | None) -> Any:
    """An index of the cells that a block has.

    Parameters
    ----------
    missing : what V does not have: "nan", what is NaN; "unstored", what a sparse V does not store; None, what
        is not positive.
    """
    if not scipy.sparse.issparse(v):
        return v > 0 if missing is None else ~np.isnan(v)
    held = v.tocoo()
    if missing == "nan":
        found = np.ones(v.shape, bool)
        found[_some(held.coords, np.isnan(held.data))] = False
        return found
    return held.coords if missing == "unstored" else _some(held.coords, held.data > 0)


def _some(coords: tuple[Array, Array], kept: Array) -> tuple[Array, Array]:
    rows, columns = coords
    return rows[kept], columns[kept]


def merge(parts: Sequence[Best]) -> Best:
    """The best of the same rows in neighbouring columns, given in their order."""
    return reduce(_merge_two, parts)


def _merge_two(left: Best, right: Best) -> Best:
    columns, values = (np.concatenate(side, axis=1) for side in zip(left, right, strict=True))
    order = np.argsort(-values, axis=1, kind="stable")[:, : left.columns.shape[1]]
    return Best(np.take_along_axis(columns, order, axis=1), np.take_along_axis(values, order, axis=1))


@compiled()
def _insert(values: Array, left: int, columns: Array, held: Array) -> None:
    """Put values, (r, t), of columns that begin at ``left`` into the lists of those before; NaN is none."""
    count = columns.shape[1]
    for i in range(values.shape[0]):
        for j in range(values.shape[1]):
            value = values[i, j]
            if np.isnan(value) or value <= held[i, count - 1]:
                continue
            at = count - 1
            while at > 0 and not held[i, at - 1] >= value:
                columns[i, at] = columns[i, at - 1]
                held[i, at] = held[i, at - 1]
                at -= 1
            columns[i, at] = left + j
            held[i, at] = value
