"""Sums that tell where W H fails: losses by blocks of rows and columns of V, and its worst rows and columns.

They are taken where the loss of a panel is taken, from the same differences, and add over rows.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any, NamedTuple, Self

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from dask_nmf.kernels.blocks import scaling
from dask_nmf.kernels.blocks.holed import HoledBlock
from dask_nmf.kernels.blocks.masked import EMPTY, Cells, stored_cells
from dask_nmf.kernels.summary.residual_loops import add_cells, add_squares
from dask_nmf.types import Array, Block

MOST_BLOCKS = 64  # of rows, and of columns
WORST = 20  # rows and columns that are kept
STRIP_ENTRIES, STRIP_ROWS = 256 * 1024, 256  # processed at once at most; columns are added up in their dtype


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


class ResidualSums(NamedTuple):
    """Losses and sizes (Σ v², or the entries that count) over some rows of V. They add over rows."""

    blocks: Array  # (2, row blocks, column blocks)
    columns: Array  # (2, n); without the loss of what is in ``zeros``
    worst: Array  # (3, rows): numbers, losses and sizes of the rows with the largest losses
    zeros: Array  # of W where unlisted zeros count: WᵀW, (k, k), or Σ w, (k,); else empty

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

    def finish(self, places: Places, h: Array) -> Residuals:
        """Return the residuals of all rows; ``h`` is the (k, n) of the pass."""
        losses, sizes = self.columns
        if self.zeros.ndim == 2 and self.zeros.size:
            losses = losses + np.einsum("kn,kn->n", self.zeros @ h, h)
        elif self.zeros.size:
            losses = losses + 2 * self.zeros @ h
        numbers = np.arange(len(losses), dtype=np.float64)
        sides = [
            Side(edges, each[0].astype(np.int64), *each[1:])
            for edges, each in (
                (places.rows, self.worst),
                (places.columns, largest(np.stack([numbers, losses, sizes]))),
            )
        ]
        return Residuals(*np.maximum(self.blocks, 0), *sides)


def block_edges(size: int) -> NDArray[np.int64]:
    """Return the edges of at most `MOST_BLOCKS` blocks of about equal sizes."""
    return np.unique(np.linspace(0, size, min(MOST_BLOCKS, size) + 1).astype(np.int64))


def largest(rows: Array) -> Array:
    """Return the `WORST` columns of numbers, losses and sizes, (3, rows), with the largest losses."""
    losses = np.maximum(rows[1], 0)
    if len(losses) > WORST:
        some = np.flatnonzero(losses >= np.partition(losses, -WORST)[-WORST])
        rows, losses = rows[:, some], losses[some]
    kept: Array = np.stack([rows[0], losses, rows[2]])[:, np.lexsort((rows[0], -losses))[:WORST]]
    return kept


def places_of_columns(places: Places) -> NDArray[np.uint8]:
    """Return the block of each column, (n,)."""
    counts = np.diff(places.columns)
    return np.repeat(np.arange(len(counts), dtype=np.uint8), counts)


def residual_sums(v: Block, w: Array, h: Array, places: Places, numbers: Array) -> ResidualSums | None:
    """Return the sums of a block; None if it is sparse with entries held out whose zeros would be told apart.

    Entries that are held out do not count.

    Parameters
    ----------
    v : (r, n), dense, CSR, `Cells` or a `HoledBlock`.
    w, h : (r, k), (k, n).
    numbers : the number of each row in V, (r,), ascending unless v is a `HoledBlock`.
    """
    by = 1.0
    if not isinstance(v, Cells):
        v, by = scaling.unwrap(v)
    sums = _Growing(places, numbers)
    if isinstance(v, np.ndarray):
        return sums.add_dense(v, w, h, by).total(EMPTY)
    if isinstance(v, HoledBlock) and isinstance(v.block, np.ndarray):
        return sums.add_holed(v, w, h).total(EMPTY)
    if scipy.sparse.issparse(v):
        listed = stored_cells(v, True)
        return sums.add_cells(listed, scaling.multiply(w.astype(np.float64), 1 / by), h).scaled(by * by)
    if isinstance(v, Cells) and v.groups is None:
        return sums.add_cells(v, w, h).scaled(1.0)
    return None


class _Growing:
    """Residual sums of a block in the making."""

    def __init__(self, places: Places, numbers: Array) -> None:
        self.places, self.numbers = places, numbers
        self.groups = np.searchsorted(places.rows, numbers, side="right") - 1
        n = int(places.columns[-1])
        self.blocks = np.zeros((2, len(places.rows) - 1, len(places.columns) - 1))
        self.columns, self.rows = np.zeros((2, n)), np.zeros((2, len(numbers)))
        self.zeros = EMPTY

    def total(self, zeros: Array) -> ResidualSums:
        """Return the sums of the rows that were added."""
        worst = largest(np.vstack([self.numbers, self.rows]))
        return ResidualSums(self.blocks, self.columns, worst, zeros)

    def scaled(self, by: float) -> ResidualSums:
        """Return the sums of the rows that were added, for V and W H times the root of ``by``."""
        for part in (self.blocks, self.columns, self.rows):
            part *= by
        return self.total(self.zeros * by)

    def add_dense(self, v: Array, w: Array, h: Array, by: float) -> Self:
        """Add the squared error of all rows of a dense block times ``by``."""
        close = scaling.squares_fit(by, v.dtype)
        w, by_strip = (scaling.multiply(w, 1 / by), 1.0) if close else (w, by)
        unit = by * by if close else 1.0

        def strip(some: slice) -> tuple[slice, Array, Array]:
            return some, scaling.multiply(v[some], by_strip), w[some] @ h

        self._add_groups(np.arange(len(w)), strip, unit)
        self.rows *= unit
        return self

    def add_holed(self, v: HoledBlock, w: Array, h: Array) -> Self:
        """Add the squared error of all rows of a dense block, but for its entries held out."""
        order = np.argsort(self.numbers, kind="stable")

        def strip(some: slice) -> tuple[Array, Array, Array]:
            rows = order[some]
            product = w[rows] @ h
            v.clear(rows, product)
            return rows, np.ascontiguousarray(v.block[rows]), product

        self._add_groups(order, strip, 1.0)
        return self

    def _add_groups(
        self, order: Array, strip: Callable[[slice], tuple[Any, Array, Array]], unit: float
    ) -> None:
        """Add the squared error of rows, group by group in strips.

        Parameters
        ----------
        order : the rows in the order of their groups.
        strip : returns rows, their part of V and of W H for a strip of the order.
        unit : multiplies the sums, but for those of rows.
        """
        groups, n = self.groups[order], self.columns.shape[1]
        step = min(max(16, STRIP_ENTRIES // n), STRIP_ROWS)
        cuts = (np.flatnonzero(np.diff(groups)) + 1).tolist()
        for first, last in pairwise([0, *cuts, len(order)]):
            total = np.zeros((2, n))
            for at in range(first, last, step):
                some, v, product = strip(slice(at, min(at + step, last)))
                columns, rows = np.zeros((2, n), product.dtype), np.zeros((2, len(v)))
                add_squares(v, product, rows, columns)
                self.rows[:, some] = rows
                total += columns
            total *= unit
            self.columns += total
            self.blocks[:, groups[first]] += np.add.reduceat(total, self.places.columns[:-1], axis=1)

    def add_cells(self, cells: Cells, w: Array, h: Array) -> Self:
        """Add the loss of listed cells, and of zeros that are not listed where they count."""
        wide, columns = np.ascontiguousarray(w, np.float64), np.ascontiguousarray(h.T)
        across, of_columns = places_of_columns(self.places), np.zeros((cells.columns, 2))
        add_cells(
            *cells[:4], cells.implicit_zeros, wide, columns, self.places.beta, self.groups, across,
            self.rows, of_columns, self.blocks,
        )  # fmt: skip
        self.columns += of_columns.T
        if cells.implicit_zeros:
            self._add_zeros(wide, h.astype(np.float64, copy=False))
        return self

    def _add_zeros(self, w: Array, h: Array) -> None:
        """Add what all entries would lose if V were 0; listed cells have left it out."""
        spans = [slice(*span) for span in pairwise(self.places.columns.tolist())]
        groups, firsts = np.unique(self.groups, return_index=True)
        parts = np.split(w, firsts[1:])
        if self.places.beta == 2:
            of_h = np.array([h[:, some] @ h[:, some].T for some in spans])
            of_w = np.array([part.T @ part for part in parts])
            self.rows[0] += np.einsum("ij,ij->i", w @ of_h.sum(axis=0), w)
            self.blocks[0, groups] += of_w.reshape(len(groups), -1) @ of_h.reshape(len(spans), -1).T
        else:
            of_h = np.array([h[:, some].sum(axis=1) for some in spans])
            of_w = np.array([part.sum(axis=0) for part in parts])
            self.rows[0] += 2 * w @ of_h.sum(axis=0)
            self.blocks[0, groups] += 2 * of_w @ of_h.T
            rows = np.bincount(self.groups, minlength=self.blocks.shape[1])
            self.rows[1], self.columns[1] = float(h.shape[1]), float(len(w))
            self.blocks[1] = np.outer(rows, np.diff(self.places.columns))
        self.zeros = of_w.sum(axis=0)
