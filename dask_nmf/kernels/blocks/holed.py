"""Blocks that are used whole although some of their entries are held out.

A batch of rows is copied with zeros in place of the entries held out, so that products are those of BLAS or
of CSR, and the entries held out leave no trace in them. The gram matrices are those of groups of rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from dask_nmf.kernels.blocks import scaling
from dask_nmf.kernels.blocks.groups import Groups
from dask_nmf.kernels.blocks.masked import EMPTY, Cells
from dask_nmf.kernels.blocks.masking import MaskedBlock
from dask_nmf.kernels.compiled import compiled
from dask_nmf.kernels.linalg.gram_matrices import (
    GroupedGram,
    gram_of_squares,
    grouped_gram,
    squares_of_groups,
)
from dask_nmf.kernels.products.stacked import right_products
from dask_nmf.types import Array, Block

BATCH_CELLS = 4 * 1024 * 1024  # entries of a dense batch
STRIP_CELLS = 512 * 1024  # entries that stay in a cache from their copy to their product with Hᵀ
BATCH_STORED = 4 * 1024 * 1024  # stored entries of a CSR batch


class Given(NamedTuple):
    """An H, and what follows from it for all batches of a block or for one."""

    h: Array  # (k, n)
    gram: GroupedGram  # of its groups of rows
    squares: Array  # of its groups of columns, see `squares_of_groups`
    num: Array | None = None  # V Hᵀ, (r, k)


@dataclass(frozen=True)
class HoledBlock:
    """Rows of V without the entries held out."""

    block: Block  # (r, n), dense or CSR, with zeros in place of the entries held out
    groups: Groups
    given: Given | None = None

    @property
    def shape(self) -> tuple[int, int]:
        rows, columns = self.block.shape
        return rows, columns

    @property
    def row_weight(self) -> Array:
        """The number of entries of each row that count, (r,), float64."""
        return self.groups.row_weight

    def gram_of(self, h: Array) -> GroupedGram:
        """Return the gram matrices of H, (k, n), over the columns that count for each group of rows."""
        if self.given is not None and self.given.h is h:
            return self.given.gram._replace(groups=self.groups.rows)
        return gram_of_rows(h.T, self.groups)

    def product(self, h: Array) -> Array:
        """Return V Hᵀ, (r, k)."""
        if self.given is not None and self.given.h is h and self.given.num is not None:
            return self.given.num
        return np.asarray(self.block @ h.T)

    @property
    def knows_product(self) -> bool:
        """Return whether V Hᵀ is known for a given H."""
        return self.given is not None and self.given.num is not None

    def gram_of_columns(self, w: Array) -> GroupedGram:
        """Return the gram matrices of W, (r, k), over the rows that count for each group of columns."""
        return gram_of_rows(w, self.groups.transpose())

    def of_group(self, rows: NDArray[np.intp], h: Array) -> tuple[Block, Array]:
        """Return rows of one group, and H, both without the columns that do not count for the group."""
        kept = self.groups.counts[self.groups.rows[rows[0]]][self.groups.columns]
        return self.block[rows][:, kept], np.ascontiguousarray(h[:, kept])

    def clear(self, strip: slice | NDArray[np.intp], rest: Array) -> None:
        """Set numbers of some rows, (rows, n), to zero at the entries held out."""
        groups = self.groups
        _clear(
            rest, groups.rows[strip], *_sorted(groups), groups.counts, EMPTY_VALUES[rest.dtype], NO_INDICES
        )

    def widened(self) -> HoledBlock:
        """Return the block in float64."""
        return replace(self, block=self.block.astype(np.float64, copy=False), given=None)


EMPTY_VALUES = {np.dtype(kind): EMPTY.astype(kind) for kind in (np.float32, np.float64)}
NO_INDICES = np.zeros(0, np.int32)


class Batch(NamedTuple):
    """Some rows of a block: what counts, and the cells that are held out."""

    rows: Any  # indices of the rows
    kept: HoledBlock
    held_out: Cells
    of_models: tuple[HoledBlock, ...] = ()  # ``kept`` with each given H

    @property
    def held_of_models(self) -> list[Cells]:
        """The cells that are held out, for a loss with each given H."""
        given = (block.given for block in self.of_models)
        return [self.held_out._replace(squares=None if one is None else one.squares) for one in given]


def gram_of_rows(factor: Array, groups: Groups) -> GroupedGram:
    """Return ``Σ f_j f_jᵀ`` over the columns that count for each group of rows; ``factor`` is (n, k)."""
    return grouped_gram(factor, groups.columns, groups.counts, groups.rows)


def iter_batches(block: MaskedBlock, factors: Sequence[Array] = ()) -> Iterator[Batch]:
    """Yield a block in batches of rows, with the gram matrices of each H, (k, n).

    The next batch takes the memory of the previous one.
    """
    groups = block.groups
    given = [_given(h, groups) for h in factors]
    batches = _csr_batches if scipy.sparse.issparse(block.v) else _dense_batches
    return batches(block, groups, given)


def _given(h: Array, groups: Groups) -> Given:
    squares = squares_of_groups(h.T, groups.columns, groups.counts.shape[1])
    return Given(h, gram_of_squares(squares, groups.counts, groups.rows), squares)


def _csr_batches(block: MaskedBlock, groups: Groups, given: Sequence[Given]) -> Iterator[Batch]:
    v, indptr = block.v, block.v.indptr
    first, rows = 0, v.shape[0]
    while first < rows:
        last = int(np.searchsorted(indptr, indptr[first] + BATCH_STORED, side="right")) - 1
        some = slice(first, min(max(last, first + 1), rows))
        own = groups._replace(rows=groups.rows[some])
        part, held = _take_out(v if some == slice(0, rows) else v[some], own, block.scale)
        yield Batch(some, HoledBlock(part, own), held, tuple(HoledBlock(part, own, one) for one in given))
        first = some.stop


def _dense_batches(block: MaskedBlock, groups: Groups, given: Sequence[Given]) -> Iterator[Batch]:
    """Yield batches of a dense block; neighbours have one group, unless it is stored by columns."""
    v, (rows, columns) = block.v, block.shape
    by_column = v.flags.f_contiguous and not v.flags.c_contiguous
    order = np.arange(rows) if by_column else np.argsort(groups.rows, kind="stable")
    step = max(1, BATCH_CELLS // columns)
    strip = step if by_column else max(1, STRIP_CELLS // columns)
    room = np.empty((min(step, rows), columns), v.dtype, order="F" if by_column else "C")
    placed, missing = _sorted(groups), columns - groups.row_weight
    for first in range(0, rows, step):
        some = order[first : first + step]
        own = groups._replace(rows=groups.rows[some])
        edges = np.concatenate([[0], np.cumsum(missing[some])]).astype(np.int64)
        held = Cells(np.empty(edges[-1], v.dtype), EMPTY, np.empty(edges[-1], np.int32), edges, columns)
        part, products = room[: len(some)], []
        for top in range(0, len(some), strip):
            few = slice(top, top + strip)
            here = slice(edges[top], edges[min(top + strip, len(some))])
            lists = held.values[here], held.indices[here]
            _copy_strip(block, some[few], part[few], (own.rows[few], *placed, groups.counts), lists)
            products.append(right_products(part[few], [one.h for one in given]))
        nums = [np.concatenate(parts) for parts in zip(*products, strict=True)]
        held = held._replace(values=scaling.multiply(held.values, block.scale), weights=held.values[:0])
        known = zip(given, nums, strict=True)
        models = tuple(HoledBlock(part, own, one._replace(num=num)) for one, num in known)
        yield Batch(some, HoledBlock(part, own), held, models)


def _copy_strip(
    block: MaskedBlock,
    which: Array,
    part: Array,
    rule: tuple[Array, Array, Array, Array],
    lists: tuple[Array, Array],
) -> None:
    """Copy rows of a dense block without their entries held out, and list these, unscaled."""
    if part.flags.c_contiguous:
        _copy_cleared(block.v, which, part, *rule, *lists)
    else:
        part[...] = block.v[which[0] : which[-1] + 1]
        _clear(part, *rule, *lists)
    if block.scale != 1:
        part[...] = scaling.multiply(part, block.scale)


def _sorted(groups: Groups) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the columns sorted by their groups, and the edges of the groups."""
    order = np.argsort(groups.columns, kind="stable")
    edges = np.searchsorted(groups.columns[order], np.arange(groups.counts.shape[1] + 1))
    return order, edges


@compiled()
def _clear(
    part: Array, rows: Array, columns: Array, edges: Array, counts: Array, values: Array, indices: Array
) -> None:
    """Set the entries of a dense block that are held out to zero; list them if there is room for them."""
    at = np.int64(0)  # a literal would have `_clear_row` compiled once more
    for i in range(len(rows)):
        at = _clear_row(part[i], columns, edges, counts[rows[i]], values, indices, at)


@compiled()
def _copy_cleared(
    v: Array, which: Array, part: Array, rows: Array, columns: Array, edges: Array, counts: Array,
    values: Array, indices: Array,
) -> None:  # fmt: skip
    """Copy some rows of a dense block, and `_clear` the copy."""
    at = np.int64(0)  # a literal would have `_clear_row` compiled once more
    for i in range(len(rows)):
        part[i] = v[which[i]]
        at = _clear_row(part[i], columns, edges, counts[rows[i]], values, indices, at)


@compiled(inlined=True)
def _clear_row(
    row: Array, columns: Array, edges: Array, counts: Array, values: Array, indices: Array, at: np.int64
) -> np.int64:
    zero = row.dtype.type(0)
    for group in range(len(edges) - 1):
        if counts[group]:
            continue
        for p in range(edges[group], edges[group + 1]):
            j = columns[p]
            if len(values) > 0:
                values[at] = row[j]
                indices[at] = j
                at += 1
            row[j] = zero
    return at


def _take_out(v: Block, own: Groups, scale: float) -> tuple[Block, Cells]:
    """Return a CSR block with zeros in place of the entries held out, and those of them that it stores."""
    room = int(1.1 * v.nnz * (1 - own.row_weight.mean() / v.shape[1])) + 1024
    edges = np.zeros(v.shape[0] + 1, np.int64)
    while True:
        values = np.array(scaling.multiply(v.data, scale))
        held, places = np.empty(room, values.dtype), np.empty(room, np.int32)
        found = _zero_stored(values, v.indices, v.indptr, *own, held, places, edges)
        if found <= room:
            break
        room = found
    part = scipy.sparse.csr_array((values, v.indices, v.indptr), v.shape)
    return part, Cells(
        held[:found], held[:0], places[:found], edges, v.shape[1], True, groups=own.complement()
    )


@compiled()
def _zero_stored(
    values: Array, indices: Array, indptr: Array, rows: Array, columns: Array, counts: Array, held: Array,
    places: Array, edges: Array,
) -> int:  # fmt: skip
    """Set the stored entries that are held out to zero, and list them as CSR; return their number."""
    at = 0
    zero = values.dtype.type(0)
    for i in range(len(indptr) - 1):
        own = counts[rows[i]]
        for p in range(indptr[i], indptr[i + 1]):
            if own[columns[indices[p]]]:
                continue
            if at < len(held):
                held[at], places[at] = values[p], indices[p]
                values[p] = zero
            at += 1
        edges[i + 1] = at
    return at
