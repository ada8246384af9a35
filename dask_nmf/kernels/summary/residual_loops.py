"""Loops over a block that add up where W H fails, the part of zeros, and the worst, for `residual_sums`."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from dask_nmf.kernels.blocks.groups import Groups, Labels
from dask_nmf.kernels.compiled import compiled
from dask_nmf.kernels.divergence import TINY, dot, entry_divergence
from dask_nmf.kernels.linalg.gram_matrices import GroupedGram, apply_gram, gram_of_squares, squares_of_groups
from dask_nmf.types import Array

WORST = 20  # rows and columns that are kept
TILE_COLUMNS = 1000  # or rows, processed at once; with a power of two, rows would share places of caches
GRAMS = 2 * 1024 * 1024  # numbers in the gram matrices of groups of rows that are in memory at once


def largest(rows: Iterable[Array]) -> Array:
    """Return the `WORST` of some rows or columns with the largest losses, (3, at most `WORST`).

    Parameters
    ----------
    rows : numbers, losses and sizes.
    """
    numbers, losses, sizes = rows
    losses = np.maximum(losses, 0)
    if len(losses) > WORST:
        some = np.flatnonzero(losses >= np.partition(losses, -WORST)[-WORST])
        numbers, losses, sizes = numbers[some], losses[some], sizes[some]
    order = np.lexsort((numbers, -losses))[:WORST]
    kept: Array = np.stack([numbers[order].astype(np.float64), losses[order], sizes[order]])
    return kept


def blocks_of_columns(edges: Array) -> NDArray[np.uint8]:
    """Return the block of each column, (n,), by the edges of the blocks."""
    counts = np.diff(edges)
    return np.repeat(np.arange(len(counts), dtype=np.uint8), counts)


@compiled(fastmath={"contract", "reassoc"})
def add_squares(
    v: Array, place: tuple[int, int], product: Array, first: int, groups: Array, edges: Array,
    rows: Array, columns: Array, blocks: Array,
) -> None:  # fmt: skip
    """Add the squares of v − product and of v to the sums of their rows, columns and blocks.

    Neighbours of one group are added up in the dtype of the product, and everything else in float64.

    Parameters
    ----------
    v : of which the part from row and column ``place`` on, with the shape of ``product``, is compared.
    product : (r, t) of W H.
    first : the first of the t columns in V.
    groups : the block of each row, (r,).
    edges : of the blocks of columns.
    rows, columns, blocks : sums of losses and of sizes: (2, r), (2, n), (2, row blocks, column blocks).
    """
    r, t = product.shape
    sums = np.zeros((2, t), product.dtype)
    losses, sizes = sums[0], sums[1]
    zero = product.dtype.type(0)
    top, left = np.uintp(place[0]), np.uintp(place[1])
    for i in range(r):
        row, own = np.uintp(i), top + np.uintp(i)
        loss, size = zero, zero
        for number in range(t):
            j = np.uintp(number)  # an index without a sign needs no look whether it counts from the end
            x = v[own, left + j]
            rest = x - product[row, j]
            lost, square = rest * rest, x * x
            loss += lost
            size += square
            losses[j] += lost
            sizes[j] += square
        rows[0, i] += loss
        rows[1, i] += size
        if i + 1 == r or groups[i + 1] != groups[i]:
            _add_group(sums, first, edges, columns, blocks[:, groups[i]])


@compiled(fastmath={"contract", "reassoc"}, inlined=True)
def _add_group(sums: Array, first: int, edges: Array, columns: Array, blocks: Array) -> None:
    """Add the sums of some columns, (2, t), to those of all columns and of blocks, and set them to zero."""
    t = sums.shape[1]
    for part in range(2):
        block = np.searchsorted(edges, first, side="right") - 1
        total = 0.0
        for j in range(t):
            if first + j == edges[block + 1]:
                blocks[part, block] += total
                block, total = block + 1, 0.0
            total += sums[part, j]
            columns[part, first + j] += sums[part, j]
            sums[part, j] = 0
        blocks[part, block] += total


@compiled(fastmath={"contract", "reassoc"})
def add_cells(
    values: Array, weights: Array, indices: Array, indptr: Array, zeros: bool, w: Array, h: Array,
    beta: float, groups: Array, across: Array, rows: Array, columns: Array, blocks: Array,
) -> None:  # fmt: skip
    """Add the loss and the size of listed cells to the sums of their rows, columns and blocks."""
    for i in range(len(indptr) - 1):
        loss, size = 0.0, 0.0
        into_losses, into_sizes = blocks[0, groups[i]], blocks[1, groups[i]]
        own = w[i]
        for p in range(indptr[i], indptr[i + 1]):
            value, j = np.float64(values[p]), indices[p]
            y = dot(own, h[j])
            if beta == 2:
                lost = value * (value - 2 * y) if zeros else (value - y) * (value - y)
                counts = value * value
            elif y <= 0 and beta <= 1 and value > 0:
                lost, counts = np.inf, 1.0
            else:
                lost, counts = 2 * entry_divergence(value, max(y, TINY), beta, zeros), 1.0
            if len(weights) > 0:
                lost *= weights[p]
                counts *= weights[p]
            loss += lost
            size += counts
            columns[j, 0] += lost
            columns[j, 1] += counts
            into_losses[across[j]] += lost
            into_sizes[across[j]] += counts
        rows[0, i] += loss
        rows[1, i] += size


class Zeros(NamedTuple):
    """The loss and the number of entries that count, as if V were 0: by rows, columns and blocks."""

    rows: Array  # (2, r)
    columns: Array  # (2, n)
    blocks: Array  # (2, b, column blocks), of the blocks of rows that there are


def all_zeros(w: Array, h: Array, of_rows: Array, edges: Array, squared: bool) -> tuple[Array, Array, Array]:
    """Return what the entries of rows, (r,), and of blocks, (b, column blocks), would lose if V were 0.

    The parameters are those of `zeros_that_count`, and so are the b blocks. The last of the results is that
    from which `loss_of_zeros` finds what columns would lose.
    """
    spans = [slice(*span) for span in pairwise(edges.tolist())]
    pieces = (h[:, some].astype(np.float64, copy=False) for some in spans)
    parts = np.split(w, _cuts(of_rows))
    if squared:
        of_h, of_w = (
            np.array([piece @ piece.T for piece in pieces]),
            np.array([part.T @ part for part in parts]),
        )
        of_rows = np.einsum("ij,ij->i", w @ of_h.sum(axis=0), w)
        return of_rows, of_w.reshape(len(of_w), -1) @ of_h.reshape(len(of_h), -1).T, of_w.sum(axis=0)
    of_h, of_w = (
        np.array([piece.sum(axis=1) for piece in pieces]),
        np.array([part.sum(axis=0) for part in parts]),
    )
    return 2 * w @ of_h.sum(axis=0), 2 * of_w @ of_h.T, of_w.sum(axis=0)


def zeros_that_count(w: Array, h: Array, groups: Groups, of_rows: Array, edges: Array) -> Zeros:
    """Return twice the divergence of 0 from W H over the entries that are not held out: 2 Σ w_i · h_j.

    Parameters
    ----------
    w, h : (r, k), (k, n).
    of_rows : the block of each row, ascending, (r,).
    edges : of the blocks of columns.
    """
    counts, labels = groups.counts, groups.counts.shape
    cuts = _cuts(of_rows)
    parts, members = np.split(w, cuts), np.split(groups.rows, cuts)
    spans = [slice(*span) for span in pairwise(edges.tolist())]
    of_h, of_w = (np.empty((number, labels[1], len(h))) for number in (len(spans), len(members)))
    for place, some in enumerate(spans):
        of_h[place] = _sums_by_label(h[:, some].T, groups.columns[some], labels[1])
    for place, own in enumerate(members):
        of_w[place] = counts.T @ _sums_by_label(parts[place], own, labels[0])
    below = _products(w, counts @ of_h.sum(axis=0), groups.rows)
    beside = _products(h.T, of_w.sum(axis=0), groups.columns)
    across = np.stack([np.bincount(groups.columns[some], minlength=labels[1]) for some in spans])
    down = np.stack([np.bincount(own, minlength=labels[0]) for own in members])
    inside = of_w.reshape(len(of_w), -1) @ of_h.reshape(len(of_h), -1).T
    return Zeros(
        np.stack([2 * below, groups.row_weight]),
        np.stack([2 * beside, groups.column_weight]),
        np.stack([2 * inside, down @ counts @ across.T]),
    )


def squares_that_count(w: Array, h: Array, groups: Groups, of_rows: Array, edges: Array) -> Array:
    """Return Σ (w_i · h_j)² over the entries of blocks that are not held out, (1, b, column blocks).

    The parameters are those of `zeros_that_count`, and so are the b blocks. Gram matrices of W by groups are
    those of some blocks at once, so that at most `GRAMS` numbers, or those of one block, are in memory.
    """
    counts, cuts = groups.counts, _cuts(of_rows)
    parts = list(zip(np.split(w, cuts), np.split(groups.rows, cuts), strict=True))
    step = max(1, GRAMS // (len(counts) * w.shape[1] ** 2))
    found = np.empty((1, len(parts), len(edges) - 1))
    for first in range(0, len(parts), step):
        some = parts[first : first + step]
        of_w = np.empty((len(some), len(counts), w.shape[1] ** 2))
        for place, (part, own) in enumerate(some):
            of_w[place] = squares_of_groups(part, own, len(counts)).reshape(len(counts), -1)
        for number, span in enumerate(pairwise(edges.tolist())):
            across = slice(*span)
            of_h = squares_of_groups(h[:, across].T, groups.columns[across], counts.shape[1])
            both = gram_of_squares(of_h, counts, groups.rows).squares
            found[0, first : first + step, number] = of_w.reshape(len(some), -1) @ both.ravel()
    return found


def loss_of_zeros(zeros: Array, h: Array, groups: Groups | None = None) -> Array:
    """Return what each column would lose if V were 0, (n,).

    Parameters
    ----------
    zeros : WᵀW, (k, k), for the squared error, or that of the rows of each group, (groups of rows, k, k);
        Σ w, (k,), for a divergence.
    h : (k, n).
    groups : those of the columns, if rows have groups.
    """
    found = np.empty(h.shape[1])
    of_columns = None if groups is None else gram_of_squares(zeros, groups.counts.T, groups.columns)
    for first in range(0, len(found), TILE_COLUMNS):
        some = slice(first, first + TILE_COLUMNS)
        piece = h[:, some].T.astype(np.float64)
        if of_columns is None:
            projected = piece @ zeros
        else:
            projected = apply_gram(piece, GroupedGram(of_columns.squares, of_columns.groups[some]))
        found[some] = 2 * projected if zeros.ndim == 1 else (projected * piece).sum(axis=1)
    return found


def _cuts(of_rows: Array) -> Array:
    """Return the first row of each block of rows but the first one, given the block of each row."""
    return np.flatnonzero(np.diff(of_rows)) + 1


def _products(rows: Array, of_labels: Array, labels: Labels) -> Array:
    """Return the product of each of some rows, (r, k), with the row of its label, (labels, k)."""
    found = np.empty(len(rows))
    for first in range(0, len(rows), TILE_COLUMNS):
        some = slice(first, first + TILE_COLUMNS)
        found[some] = np.einsum("ij,ij->i", rows[some], of_labels[labels[some]])
    return found


def _sums_by_label(rows: Array, labels: Labels, number: int) -> Array:
    """Return the sums of the rows, (r, k), of each of some labels, (number, k), float64."""
    edges = np.arange(len(labels) + 1)
    indicator = scipy.sparse.csc_array((np.ones(len(labels)), labels, edges), shape=(number, len(labels)))
    return np.asarray(indicator @ rows.astype(np.float64, copy=False))
