"""Sums that tell where W H fails: losses by blocks of rows and columns of V, and its worst rows and columns.

They are taken where the loss of a panel is taken, from the same differences, and add over rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dask_nmf.kernels.blocks import scaling
from dask_nmf.kernels.blocks.groups import Groups
from dask_nmf.kernels.blocks.holed import HoledBlock
from dask_nmf.kernels.blocks.masked import EMPTY, Cells, stored_cells
from dask_nmf.kernels.linalg.gram_matrices import apply_gram, squares_of_groups
from dask_nmf.kernels.summary.residual_loops import (
    TILE_COLUMNS,
    add_cells,
    add_squares,
    all_zeros,
    blocks_of_columns,
    largest,
    loss_of_zeros,
    squares_that_count,
    zeros_that_count,
)
from dask_nmf.types import Array, Block

MOST_BLOCKS = 64  # of rows, and of columns
STRIP_ROWS = 256  # of W H at once, with `TILE_COLUMNS`


class Side(NamedTuple):
    """The rows or the columns of V with the largest losses, the worst first."""

    edges: Array  # of the blocks, (blocks + 1,)
    worst: Array  # their numbers
    losses: Array  # Σ of the losses of their entries
    sizes: Array  # Σ v² of their entries, or their number


class Residuals(NamedTuple):
    """The loss of W H by blocks of V: squares of V - W H, or twice the divergence.

    Attributes
    ----------
    losses : (row blocks, column blocks)
    sizes : (row blocks, column blocks), Σ v² for the squared error, else the number of entries that count
    rows, columns : the worst of them
    """

    losses: Array
    sizes: Array
    rows: Side
    columns: Side

    @property
    def total(self) -> float:
        """The loss of all entries."""
        return float(self.losses.sum())

    @property
    def transposed(self) -> Residuals:
        """The residuals of Vᵀ."""
        return Residuals(self.losses.T, self.sizes.T, self.columns, self.rows)

    def relative(self, squared: bool) -> Array:
        """Return the loss of each block by its size, (row blocks, column blocks).

        It is the part of Σ v² that is left, or with ``squared`` false the mean divergence of an entry in
        units of that of V. It is NaN for blocks that are 0, or in which no entry counts.
        """
        sizes = self.sizes if squared else self.sizes * self.total / max(self.sizes.sum(), 1)
        return np.divide(np.maximum(self.losses, 0), sizes, out=np.full(sizes.shape, np.nan), where=sizes > 0)

    def scaled(self, loss: float, size: float) -> Residuals:
        """Return the residuals in another unit of the losses, and of the sizes."""
        rows, columns = (
            side._replace(losses=side.losses * loss, sizes=side.sizes * size)
            for side in (self.rows, self.columns)
        )
        return Residuals(self.losses * loss, self.sizes * size, rows, columns)


class Places(NamedTuple):
    """The blocks of V by which losses are summed up, and the β of the loss."""

    beta: float
    rows: NDArray[np.int64]  # edges
    columns: NDArray[np.int64]  # edges

    @classmethod
    def of(cls, shape: tuple[int, int], beta: float) -> Places:
        """Return the blocks of a V of this shape."""
        return cls(beta, *map(block_edges, shape))

    def of_columns(self, first: int, last: int) -> Places:
        """Return the blocks of some columns, which are counted from the first of them."""
        inside = self.columns[(self.columns > first) & (self.columns < last)]
        return self._replace(columns=np.array([first, *inside, last]) - first)


class ResidualSums(NamedTuple):
    """Losses and sizes (Σ v², or the entries that count) over some rows of V. They add over rows."""

    blocks: Array  # (2, row blocks, column blocks)
    columns: Array  # (2, n); without the loss of what is in ``zeros``
    worst: Array  # (3, rows): numbers, losses and sizes of the rows with the largest losses
    zeros: Array  # where unlisted zeros count: see `loss_of_zeros`; else empty

    def __add__(self, other: ResidualSums) -> ResidualSums:  # type: ignore[override]
        worst = largest(np.hstack([self.worst, other.worst]))
        zeros = other.zeros if not self.zeros.size else self.zeros
        if self.zeros.size and other.zeros.size:
            zeros = self.zeros + other.zeros
        return ResidualSums(self.blocks + other.blocks, self.columns + other.columns, worst, zeros)

    @property
    def loss(self) -> float:
        """The loss of all entries."""
        return float(self.blocks[0].sum())

    def finish(self, places: Places, h: Array, groups: Groups | None = None) -> Residuals:
        """Return the residuals of all rows.

        Parameters
        ----------
        h : (k, n), that of the pass.
        groups : of all columns, and of no rows, if entries of a sparse V are held out.
        """
        losses, sizes = self.columns
        if self.zeros.size:
            losses = losses + loss_of_zeros(self.zeros, h, groups)
        columns = largest((np.arange(len(losses)), losses, sizes))
        losses, sizes = np.maximum(self.blocks, 0)
        return Residuals(losses, sizes, side_of(places.rows, self.worst), side_of(places.columns, columns))


def block_edges(size: int) -> NDArray[np.int64]:
    """Return the edges of at most `MOST_BLOCKS` blocks of about equal sizes."""
    return np.unique(np.linspace(0, size, min(MOST_BLOCKS, size) + 1).astype(np.int64))


def joined(places: Places, parts: Sequence[tuple[int, Residuals]], rows: Array) -> Residuals:
    """Return the residuals of V from those of parts of it that have all rows and some columns.

    Parameters
    ----------
    parts : the first column of each, and its residuals.
    rows : (3, rows): the worst rows, as in `ResidualSums.worst`.
    """
    blocks = np.zeros((2, len(places.rows) - 1, len(places.columns) - 1))
    for first, part in parts:
        own = np.searchsorted(places.columns, first, side="right") - 1
        blocks[:, :, own : own + part.losses.shape[1]] += part.losses, part.sizes
    sides = [(first + part.columns.worst, *part.columns[2:]) for first, part in parts]
    columns = largest(np.hstack([np.array(side, np.float64) for side in sides]))
    return Residuals(blocks[0], blocks[1], side_of(places.rows, rows), side_of(places.columns, columns))


def side_of(edges: Array, worst: Array) -> Side:
    """Return a side from what `largest` returns."""
    return Side(edges, worst[0].astype(np.int64), *worst[1:])


def residual_sums(v: Block, w: Array, h: Array, places: Places, numbers: Array) -> ResidualSums:
    """Return the sums of a block: see `sums_with_rows`."""
    sums, rows = sums_with_rows(v, w, h, places, numbers)
    return sums._replace(worst=largest((numbers, *rows)))


def sums_with_rows(
    v: Block, w: Array, h: Array, places: Places, numbers: Array
) -> tuple[ResidualSums, Array]:
    """Return the sums of a block without its worst rows, and the losses and sizes of its rows, (2, r).

    Entries that are held out do not count.

    Parameters
    ----------
    v : (r, n), dense, CSR, `Cells` or a `HoledBlock`.
    w, h : (r, k), (k, n).
    numbers : the number of each row in V, (r,), ascending.
    """
    sums = _Growing(places, numbers)
    if isinstance(v, Cells):
        sums.add_cells(v, w, h)
    elif isinstance(v, HoledBlock):
        (sums.add_holed if v.dense is None else sums.add_cleared)(v, w, h)
    else:
        block, by = scaling.unwrap(v)
        if isinstance(block, np.ndarray):
            sums.add_dense(block, w, h, by)
        else:
            sums.add_cells(stored_cells(block, True), scaling.multiply(w.astype(np.float64), 1 / by), h)
            sums.scale(by * by)
    return ResidualSums(sums.blocks, sums.columns, np.zeros((3, 0)), sums.zeros), sums.rows


class _Growing:
    """Residual sums of a block in the making."""

    def __init__(self, places: Places, numbers: Array) -> None:
        self.places = places
        sizes = np.diff(np.searchsorted(numbers, places.rows))
        self.groups = np.repeat(np.arange(len(sizes)), sizes)
        self.blocks = np.zeros((2, len(places.rows) - 1, len(places.columns) - 1))
        self.columns, self.rows, self.zeros = EMPTY, np.zeros((2, len(numbers))), EMPTY

    def scale(self, by: float) -> None:
        """Multiply the sums of the rows that were added: V and W H are times the root of ``by``."""
        self.blocks *= by
        self.columns *= by
        self.rows *= by
        self.zeros = self.zeros * by

    def add_dense(self, v: Array, w: Array, h: Array, by: float) -> None:
        """Add the squared error of all rows of a dense block times ``by``."""
        close = scaling.squares_fit(by, v.dtype)
        w, by_tile = (scaling.multiply(w, 1 / by), 1.0) if close else (w, by)
        self.columns = np.zeros((2, v.shape[1]))
        room = np.empty(min(STRIP_ROWS, len(v)) * min(TILE_COLUMNS, v.shape[1]), np.result_type(w, h))
        for top in range(0, len(v), STRIP_ROWS):
            some = slice(top, min(top + STRIP_ROWS, len(v)))
            for left in range(0, v.shape[1], TILE_COLUMNS):
                across = slice(left, min(left + TILE_COLUMNS, v.shape[1]))
                shape = some.stop - top, across.stop - left
                product = np.matmul(w[some], h[:, across], out=room[: shape[0] * shape[1]].reshape(shape))
                tile, place = v, (top, left)
                if by_tile != 1 or not v.flags.c_contiguous:
                    tile, place = np.ascontiguousarray(scaling.multiply(v[some, across], by_tile)), (0, 0)
                self._add_tile(tile, place, product, some, left)
        if close:
            self.scale(by * by)

    def add_cleared(self, v: HoledBlock, w: Array, h: Array) -> None:
        """Add the squared error of all rows of a dense block, but for its entries held out."""
        self.columns = np.zeros((2, h.shape[1]))
        step = min(max(16, STRIP_ROWS * TILE_COLUMNS // h.shape[1]), STRIP_ROWS)
        for rows, kept in v.block.strips(step):
            product = w[rows] @ h
            v.block.clear(rows, product)
            self._add_tile(np.ascontiguousarray(kept), (0, 0), product, rows, 0)

    def _add_tile(self, v: Array, place: tuple[int, int], product: Array, rows: slice, first: int) -> None:
        """Add the squared error of a part of W H, whose entries of V begin at ``place`` of ``v``."""
        of_rows, edges = np.zeros((2, len(product))), self.places.columns
        groups = self.groups[rows]
        add_squares(v, place, product, first, groups, edges, of_rows, self.columns, self.blocks)
        self.rows[:, rows] += of_rows

    def add_holed(self, v: HoledBlock, w: Array, h: Array) -> None:
        """Add the squared error of all rows of a CSR block, but for its entries held out."""
        wide = self._add_listed(stored_cells(v.block, True), w, h)
        self.rows[0] += np.einsum("ij,ij->i", apply_gram(wide, v.gram_of(h)), wide)
        self._add_blocks(squares_that_count(wide, h, v.groups, self.groups, self.places.columns))
        self.zeros = squares_of_groups(wide, v.groups.rows, len(v.groups.counts))

    def add_cells(self, cells: Cells, w: Array, h: Array) -> None:
        """Add the loss of listed cells, and of zeros that are not listed where they count."""
        wide = self._add_listed(cells, w, h)
        if cells.groups is not None:
            found = zeros_that_count(wide, h, cells.groups, self.groups, self.places.columns)
            self.rows[0] += found.rows[0]
            self.columns[0] += found.columns[0]
            self.rows[1], self.columns[1] = found.rows[1], found.columns[1]
            self.blocks[1] = 0
            self._add_blocks(found.blocks)
        elif cells.implicit_zeros:
            self._add_zeros(wide, h)

    def _add_listed(self, cells: Cells, w: Array, h: Array) -> Array:
        """Add the loss of listed cells without that of zeros, and return W in float64."""
        wide, columns = np.ascontiguousarray(w, np.float64), np.zeros((cells.columns, 2))
        add_cells(
            *cells[:4], cells.implicit_zeros, wide, np.ascontiguousarray(h.T), self.places.beta, self.groups,
            blocks_of_columns(self.places.columns), self.rows, columns, self.blocks,
        )  # fmt: skip
        self.columns = columns.T
        return wide

    def _add_blocks(self, found: Array) -> None:
        """Add losses and sizes of the blocks whose rows there are."""
        own = np.unique(self.groups)
        self.blocks[: len(found), own] += found

    def _add_zeros(self, w: Array, h: Array) -> None:
        """Add what all entries would lose if V were 0; listed cells have left it out."""
        squared = self.places.beta == 2
        of_rows, of_blocks, self.zeros = all_zeros(w, h, self.groups, self.places.columns, squared)
        self.rows[0] += of_rows
        self._add_blocks(of_blocks[None])
        if not squared:
            rows = np.bincount(self.groups, minlength=self.blocks.shape[1])
            self.rows[1], self.columns[1] = float(h.shape[1]), float(len(w))
            self.blocks[1] = np.outer(rows, np.diff(self.places.columns))
