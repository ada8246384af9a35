"""Cells of V that are observed, with their weights: a missing cell is not a zero.

Each row of W has its own normal equations, over the columns that its row of V observes, and each column of
H over the rows that observe it. ``gram`` matrices of many rows are packed: their lower triangles, row by
row, (rows, k (k + 1) / 2).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import scipy.sparse

from dask_nmf.kernels.blocks.groups import Groups, Labels
from dask_nmf.kernels.compiled import compiled
from dask_nmf.kernels.linalg.gram_matrices import apply_gram, gram_of_squares, squares_of_groups
from dask_nmf.kernels.linalg.packed_grams import packed_size
from dask_nmf.types import Array, Block

PIECE_GRAMS = 2 * 1024 * 1024  # numbers in the gram matrices of rows that are processed at once
REMAINS = 0.1  # share of a component's part in a gram matrix that must remain: less would be rounding


EMPTY = np.zeros(0)


class Cells(NamedTuple):
    """Observed cells of a block with their weights, by rows: CSR with sorted columns.

    Positions always have these types, because functions are compiled for each combination, for seconds.
    If weights are separable, `transpose` leaves out the weights of single cells.
    """

    values: Array  # (cells,)
    weights: Array  # (cells,), > 0; empty: all 1
    indices: Array  # (cells,), the column of each cell, int32
    indptr: Array  # (rows + 1,), int64
    columns: int
    implicit_zeros: bool = False  # whether cells that are not listed count too, and are 0
    by_row: Array = EMPTY  # (rows,), if all cells are listed and ω_ij = by_row[i] by_column[j]; else empty
    by_column: Array = EMPTY  # (columns,), likewise
    groups: Groups | None = None  # if zeros are implicit: which cells count; None: all
    squares: Array | None = None  # `squares_of_groups` of the H whose loss is taken, if they are known

    @property
    def separable(self) -> bool:
        """Return whether all cells are listed with separable weights: rows share a gram matrix, scaled."""
        return len(self.by_column) > 0

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.indptr) - 1, self.columns

    @property
    def row_weight(self) -> Array:
        """The sum of the weights of each row, (rows,), float64."""
        if self.separable:
            return np.asarray(self.by_row * self.by_column.sum())
        if self.implicit_zeros:
            rows = len(self.indptr) - 1
            return np.full(rows, float(self.columns)) if self.groups is None else self.groups.row_weight
        if len(self.weights) == 0:
            return np.diff(self.indptr).astype(np.float64)
        return self.row_sums(self.weights)

    @property
    def column_weight(self) -> Array:
        """The sum of the weights of each column, (columns,), float64."""
        if self.separable:
            return np.asarray(self.by_column * self.by_row.sum())
        if self.implicit_zeros:
            rows = float(self.shape[0])
            return np.full(self.columns, rows) if self.groups is None else self.groups.column_weight
        return np.bincount(self.indices, self.weights if len(self.weights) else None, self.columns).astype(
            float
        )

    def row_sums(self, numbers: Array) -> Array:
        """Return the sum over each row of one number a cell, (rows,), float64; rows do not mix."""
        rows = np.repeat(np.arange(len(self.indptr) - 1), np.diff(self.indptr))
        return np.bincount(rows, numbers, minlength=len(self.indptr) - 1)

    def whole_sums(self, factor: Array) -> tuple[Array, Labels]:
        """Return sums of ``factor``, (columns, k), over the cells that count, listed or not.

        Returns
        -------
        One sum for each group of rows, (groups, k), float64, and the group of each row, (rows,).
        """
        if self.groups is None:
            return factor.sum(axis=0, dtype=np.float64)[None], np.zeros(self.shape[0], np.int16)
        return self.groups.row_sums(factor), self.groups.rows

    def split_rows(self, rank: int) -> Iterator[tuple[slice, Cells]]:
        """Yield batches of rows and their cells, small enough for gram matrices of rank ``rank``."""
        rows, step = len(self.indptr) - 1, max(1, PIECE_GRAMS // packed_size(rank))
        for first in range(0, rows, step):
            some = slice(first, min(first + step, rows))
            edges = self.indptr[first : some.stop + 1]
            here = slice(int(edges[0]), int(edges[-1]))
            yield (
                some,
                self._replace(
                    values=self.values[here],
                    weights=self.weights[here],
                    indices=self.indices[here],
                    indptr=edges - edges[0],
                    by_row=self.by_row[some],
                    groups=self.groups and self.groups._replace(rows=self.groups.rows[some]),
                ),
            )

    def transpose(self) -> Cells:
        """Return the cells of the transposed block."""
        rows, columns = self.shape
        if self.separable:
            turned = all_cells(
                self.values.reshape(rows, columns).T.ravel(), self.weights[:0], (columns, rows)
            )
            return turned._replace(by_row=self.by_column, by_column=self.by_row)
        places = np.arange(len(self.values), dtype=np.int32 if len(self.values) < 2**31 else np.int64)
        edges = self.indptr.astype(places.dtype)
        by_column = scipy.sparse.csr_array((places, self.indices, edges), shape=self.shape).tocsc()
        order = by_column.data
        weights = self.weights[order] if len(self.weights) else self.weights
        return Cells(
            self.values[order],
            weights,
            by_column.indices.astype(np.int32, copy=False),
            by_column.indptr.astype(np.int64),
            self.shape[0],
            self.implicit_zeros,
            groups=self.groups and self.groups.transpose(),
        )


def all_cells(values: Array, weights: Array, shape: tuple[int, int]) -> Cells:
    """Return all cells of a dense block from its values and weights (empty: all 1), row by row."""
    rows, columns = shape
    indices = np.tile(np.arange(columns, dtype=np.int32), rows)
    return Cells(values, weights, indices, columns * np.arange(rows + 1, dtype=np.int64), columns)


def stored_cells(v: Block, implicit_zeros: bool) -> Cells:
    """Return the stored entries of a CSR block as cells."""
    indices, indptr = v.indices.astype(np.int32, copy=False), v.indptr.astype(np.int64, copy=False)
    return Cells(v.data, v.data[:0], indices, indptr, v.shape[1], implicit_zeros)


def normal_equations(cells: Cells, factor: Array) -> tuple[Array, Array]:
    """Return normal equations of each row: ``Σ ω v f``, (rows, k), and ``Σ ω f fᵀ``, packed; float64.

    Sums run over the cells of the row. ``factor`` is (columns, k): Hᵀ for the rows of W, W for the columns
    of H.
    """
    factor = np.ascontiguousarray(factor)
    wide = factor.astype(np.float64, copy=False)
    if cells.separable:
        num, gram = separable_equations(cells, factor)
        triangle = gram[np.tril_indices(len(gram))]
        return cells.by_row[:, None] * num, cells.by_row[:, None] * triangle
    num = _nums(cells.values, cells.weights, cells.indices, cells.indptr, wide)
    most = len(cells.weights) == 0 and np.any(2 * np.diff(cells.indptr) > cells.columns)
    whole = wide.T @ wide if most else np.zeros((0, 0))
    return num, _grams(cells.weights, cells.indices, cells.indptr, wide, whole)


def separable_equations(cells: Cells, factor: Array) -> tuple[Array, Array]:
    """Return `normal_equations` of separable cells over ``by_row``: (rows, k), and one (k, k)."""
    weighed = factor * cells.by_column[:, None]
    num = cells.values.reshape(cells.shape) @ weighed.astype(cells.values.dtype)
    return num.astype(np.float64), weighed.T @ factor.astype(np.float64, copy=False)


def residual(cells: Cells, w: Array, h: Array) -> float:
    """Return Σ ω (v − w h)² over the cells, float64.

    Where zeros are implicit it is expanded, as that of a CSR block.
    """
    if cells.separable:
        rest = cells.values.reshape(cells.shape) - w @ h
        return float(cells.by_row @ (np.square(rest, dtype=np.float64) @ cells.by_column))
    columns = np.ascontiguousarray(h.T)
    listed = float(_residual(*cells[:4], cells.implicit_zeros, np.ascontiguousarray(w), columns))
    return listed + (_squares_of_model(cells, w, columns) if cells.implicit_zeros else 0.0)


def _squares_of_model(cells: Cells, w: Array, columns: Array) -> float:
    """Return Σ (w h)² over all cells that count, by groups, float64; ``columns`` is Hᵀ."""
    assert cells.groups is not None
    groups, squares = cells.groups, cells.squares
    if squares is None:
        squares = squares_of_groups(columns, groups.columns, groups.counts.shape[1])
    of_rows = gram_of_squares(squares, groups.counts, groups.rows)
    wide = w.astype(np.float64, copy=False)
    return float(np.vdot(apply_gram(wide, of_rows), wide))


@compiled(fastmath={"contract", "reassoc"})
def _nums(values: Array, weights: Array, indices: Array, indptr: Array, factor: Array) -> Array:
    rows, k = len(indptr) - 1, factor.shape[1]
    out = np.zeros((rows, k))
    for i in range(rows):
        for p in range(indptr[i], indptr[i + 1]):
            x = np.float64(values[p])
            if len(weights) > 0:
                x *= weights[p]
            f = factor[indices[p]]
            for t in range(k):
                out[i, t] += x * f[t]
    return out


@compiled(fastmath={"contract", "reassoc"})
def _grams(weights: Array, indices: Array, indptr: Array, factor: Array, whole: Array) -> Array:
    """Return the gram matrix of each row over its cells, packed.

    If most columns are observed and count alike, it is ``whole`` minus the missing ones, if enough remains.
    """
    columns, k = factor.shape
    out = np.zeros((len(indptr) - 1, k * (k + 1) // 2))
    square = np.zeros((k, k))
    for i in range(len(out)):
        there = indices[indptr[i] : indptr[i + 1]]
        most = len(whole) > 0 and 2 * len(there) > columns
        if not (most and _subtract_missing(square, whole, there, factor)):
            square[:] = 0
            for p in range(indptr[i], indptr[i + 1]):
                _add_square(square, factor[indices[p]], weights[p] if len(weights) > 0 else 1.0)
        at = 0
        for t in range(k):
            for u in range(t + 1):
                out[i, at] = square[t, u]
                at += 1
    return out


@compiled(fastmath={"contract", "reassoc"}, inlined=True)
def _subtract_missing(square: Array, whole: Array, there: Array, factor: Array) -> bool:
    """Set ``square`` to ``whole`` minus the columns that are not ``there``; return whether enough remains.

    The rounding of ``whole`` stays in the remainder, so that no component may lose nearly all of its part.
    """
    square[:] = whole
    p = 0
    for j in range(len(factor)):
        if p < len(there) and there[p] == j:
            p += 1
            continue
        _add_square(square, factor[j], -1.0)
    enough = True
    for t in range(len(square)):
        enough &= square[t, t] >= REMAINS * whole[t, t]
    return enough


@compiled(fastmath={"contract", "reassoc"}, inlined=True)
def _add_square(square: Array, f: Array, weight: float) -> None:
    for t in range(len(f)):
        x = weight * f[t]
        for u in range(len(f)):
            square[t, u] += x * f[u]


@compiled(fastmath={"contract", "reassoc"})
def _residual(
    values: Array, weights: Array, indices: Array, indptr: Array, zeros: bool, w: Array, columns: Array
) -> float:
    """Return the sum over listed cells; with ``zeros``, without the squares of w h."""
    total = 0.0
    for i in range(len(indptr) - 1):
        for p in range(indptr[i], indptr[i + 1]):
            value, y = np.float64(values[p]), 0.0
            h = columns[indices[p]]
            for t in range(w.shape[1]):
                y += np.float64(w[i, t]) * np.float64(h[t])
            square = value * (value - 2 * y) if zeros else (value - y) * (value - y)
            total += square * (weights[p] if len(weights) > 0 else 1.0)
    return total
