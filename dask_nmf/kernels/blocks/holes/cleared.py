"""Rows of a dense V with zeros in place of the entries held out, of which a few are copied at once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dask_nmf.kernels.blocks import scaling
from dask_nmf.kernels.blocks.groups import Groups
from dask_nmf.kernels.compiled import compiled
from dask_nmf.types import Array

MOST_BYTES = 16 * 1024 * 1024  # of a copy
CACHED_BYTES = 4 * 1024 * 1024  # of a copy that stays in a cache until its product
CACHED_ROWS = 64  # of a copy, at least, if they fit `MOST_BYTES`: BLAS copies H for each product

EMPTY = {np.dtype(kind): np.zeros(0, kind) for kind in (np.float32, np.float64)}


class SortedColumns(NamedTuple):
    """The columns of a block in the order of their groups."""

    order: NDArray[np.intp]  # (n,)
    edges: NDArray[np.intp]  # of the groups in this order, (groups + 1,)

    @classmethod
    def of(cls, groups: Groups) -> SortedColumns:
        """Return the columns of a block with these groups."""
        order = np.argsort(groups.columns, kind="stable")
        return cls(order, np.searchsorted(groups.columns[order], np.arange(groups.counts.shape[1] + 1)))


@dataclass(frozen=True)
class ClearedRows:
    """Rows of a dense V without their entries held out: they are copied, with zeros there."""

    v: Array  # (r, n)
    groups: Groups
    columns: SortedColumns
    scale: float  # a power of two that copies are multiplied by
    dtype: np.dtype[Any]  # of copies

    @property
    def shape(self) -> tuple[int, int]:
        rows, columns = self.v.shape
        return rows, columns

    def widened(self) -> ClearedRows:
        """Return these rows with copies in float64."""
        return replace(self, dtype=np.dtype(np.float64))

    def __getitem__(self, rows: Any) -> Array:
        """Return a copy of some rows, given by a slice or by their indices."""
        some = self.v[rows]
        return self._copy(some, self.groups.rows[rows], self._room(len(some)))

    def strips(self, most: int | None = None, held: Array | None = None) -> Iterator[tuple[slice, Array]]:
        """Yield ranges of about equally many rows, at most ``most``, with copies.

        Each copy is small enough to stay in a cache until it is used. The next one takes its memory.

        Parameters
        ----------
        held : (entries,), to which the entries held out are written row by row, and in each row by the order
            of the columns; None: they are not.
        """
        edges = np.zeros(self.shape[0] + 1, np.int64)
        if held is not None:
            edges[1:] = np.cumsum(self.shape[1] - self.groups.row_weight)
        room: Array | None = None
        for some in self._ranges(most):
            room = self._room(some.stop - some.start) if room is None else room
            own = None if held is None else held[edges[some.start] : edges[some.stop]]
            yield some, self._copy(self.v[some], self.groups.rows[some], room[: some.stop - some.start], own)

    def clear(self, rows: Any, numbers: Array) -> None:
        """Set numbers of some rows, (rows, n), to zero at the entries held out."""
        rule = (*self.columns, self.groups.counts)
        _clear(numbers, self.groups.rows[rows], *rule, EMPTY[numbers.dtype])

    @property
    def _by_column(self) -> bool:
        return self.v.flags.f_contiguous and not self.v.flags.c_contiguous

    def _ranges(self, most: int | None = None) -> Iterator[slice]:
        """Yield ranges of rows that are copied at once, the first one of most rows."""
        rows, of_row = self.shape[0], max(1, self.shape[1] * self.dtype.itemsize)
        step = max(1, CACHED_BYTES // of_row, min(CACHED_ROWS, MOST_BYTES // of_row))
        step = step if most is None else min(step, most)
        step = max(1, -(-rows // max(1, -(-rows // step))))
        return (slice(first, min(first + step, rows)) for first in range(0, rows, step))

    def _room(self, rows: int) -> Array:
        return np.empty((rows, self.shape[1]), self.dtype, order="F" if self._by_column else "C")

    def _copy(self, v: Array, groups: Array, place: Array, held: Array | None = None) -> Array:
        """Return rows of V in ``place`` without the entries held out; list these if ``held`` has room."""
        lists = EMPTY[self.dtype] if held is None else held
        rule = (*self.columns, self.groups.counts)
        if self._by_column or not scaling.fits(self.scale, v.dtype):
            place[...] = scaling.multiply(v, self.scale)
            _clear(place, groups, *rule, lists)
        else:
            _copy_cleared(v, v.dtype.type(self.scale), place, groups, *rule, lists)
        return place


@compiled()
def _clear(part: Array, rows: Array, columns: Array, edges: Array, counts: Array, held: Array) -> None:
    """Set the entries of a dense block that are held out to zero; list them if there is room for them."""
    at = np.int64(0)  # a literal would have `_clear_row` compiled once more
    for i in range(len(rows)):
        at = _clear_row(part[i], columns, edges, counts[rows[i]], held, at)


@compiled()
def _copy_cleared(
    v: Array, scale: float, part: Array, rows: Array, columns: Array, edges: Array, counts: Array, held: Array
) -> None:
    """Copy rows of a dense block times ``scale``, and `_clear` the copy."""
    at = np.int64(0)  # a literal would have `_clear_row` compiled once more
    for i in range(len(rows)):
        for j in range(v.shape[1]):
            part[i, j] = v[i, j] * scale
        at = _clear_row(part[i], columns, edges, counts[rows[i]], held, at)


@compiled(inlined=True)
def _clear_row(
    row: Array, columns: Array, edges: Array, counts: Array, held: Array, at: np.int64
) -> np.int64:
    zero = row.dtype.type(0)
    for group in range(len(edges) - 1):
        if counts[group]:
            continue
        if len(held) > 0:
            for p in range(edges[group], edges[group + 1]):
                held[at] = row[columns[p]]
                at += 1
        for p in range(edges[group], edges[group + 1]):
            row[columns[p]] = zero
    return at
