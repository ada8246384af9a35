"""Blocks that are used whole although some of their entries are held out.

Rows are copied with zeros in place of the entries held out, so that products are those of BLAS or of CSR, and
the entries held out leave no trace in them. The gram matrices are those of groups of rows.
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
from dask_nmf.kernels.blocks.holes.cleared import ClearedRows, SortedColumns
from dask_nmf.kernels.blocks.holes.held_entries import HeldEntries
from dask_nmf.kernels.blocks.masked import Cells
from dask_nmf.kernels.blocks.masking import MaskedBlock
from dask_nmf.kernels.compiled import compiled
from dask_nmf.kernels.linalg.gram_matrices import (
    GroupedGram,
    gram_of_squares,
    grouped_gram,
    squares_of_groups,
)
from dask_nmf.kernels.products.stacked import RightFactors, right_products
from dask_nmf.types import Array, Block

BATCH_HELD = 8 * 1024 * 1024  # bytes of the entries held out of a dense batch
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

    block: Any  # (r, n): CSR with zeros in place of the entries held out, or `ClearedRows`
    groups: Groups
    row_weight: Array  # the number of entries of each row that count, (r,), float64
    given: Given | None = None

    @property
    def shape(self) -> tuple[int, int]:
        rows, columns = self.block.shape
        return rows, columns

    @property
    def dense(self) -> ClearedRows | None:
        """The rows of a dense block; None if it is CSR."""
        return self.block if isinstance(self.block, ClearedRows) else None

    def gram_of(self, h: Array) -> GroupedGram:
        """Return the gram matrices of H, (k, n), over the columns that count for each group of rows."""
        if self.given is not None and self.given.h is h:
            return self.given.gram._replace(groups=self.groups.rows)
        return gram_of_rows(h.T, self.groups)

    def product(self, h: Array) -> Array:
        """Return V Hᵀ, (r, k)."""
        if self.given is not None and self.given.h is h and self.given.num is not None:
            return self.given.num
        return right_products(self.block, [h])[0]

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

    def strips(self) -> Iterator[tuple[slice, Block]]:
        """Yield ranges of rows that are few where V is dense, with these rows of V."""
        if self.dense is not None:
            return self.dense.strips()
        return iter([(slice(0, self.shape[0]), self.block)])

    def widened(self) -> HoledBlock:
        """Return the block in float64."""
        block = self.block.astype(np.float64, copy=False) if self.dense is None else self.dense.widened()
        return replace(self, block=block, given=None)


class Batch(NamedTuple):
    """Some rows of a block: what counts, and the entries that are held out."""

    rows: slice
    kept: HoledBlock
    held_out: HeldEntries | Cells
    of_models: tuple[HoledBlock, ...] = ()  # ``kept`` with each given H

    @property
    def held_of_models(self) -> list[HeldEntries | Cells]:
        """The entries that are held out, for a loss with each given H."""
        held = self.held_out
        if isinstance(held, HeldEntries):
            return [held] * len(self.of_models)
        given = (block.given for block in self.of_models)
        return [held._replace(squares=None if one is None else one.squares) for one in given]


def gram_of_rows(factor: Array, groups: Groups) -> GroupedGram:
    """Return ``Σ f_j f_jᵀ`` over the columns that count for each group of rows; ``factor`` is (n, k)."""
    return grouped_gram(factor, groups.columns, groups.counts, groups.rows)


def iter_batches(block: MaskedBlock, factors: Sequence[Array] = ()) -> Iterator[Batch]:
    """Yield a block in batches of rows, with the gram matrices of each H, (k, n)."""
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
        weight = own.row_weight
        part, held = _take_out(v if some == slice(0, rows) else v[some], own, weight, block.scale)
        kept = HoledBlock(part, own, weight)
        yield Batch(some, kept, held, tuple(replace(kept, given=one) for one in given))
        first = some.stop


def _dense_batches(block: MaskedBlock, groups: Groups, given: Sequence[Given]) -> Iterator[Batch]:
    v, (rows, columns) = block.v, block.shape
    order, weight = SortedColumns.of(groups), groups.row_weight
    of_row = max(float(columns - weight.mean()), 1.0) if rows else 1.0
    step = max(1, int(BATCH_HELD / (of_row * v.itemsize)))
    factors = RightFactors([one.h for one in given])
    for first in range(0, rows, step):
        some = slice(first, min(first + step, rows))
        own = groups._replace(rows=groups.rows[some])
        cleared = ClearedRows(v[some], own, order, block.scale, v.dtype)
        kept = HoledBlock(cleared, own, weight[some])
        held = np.empty(int((columns - kept.row_weight).sum()), v.dtype)
        nums = factors.multiply_strips(some.stop - first, cleared.strips(held=held))
        known = zip(given, nums, strict=True)
        models = tuple(replace(kept, given=one._replace(num=num)) for one, num in known)
        yield Batch(some, kept, HeldEntries(held, own, order), models)


def _take_out(v: Block, own: Groups, weight: Array, scale: float) -> tuple[Block, Cells]:
    """Return a CSR block with zeros in place of the entries held out, and those of them that it stores."""
    room = int(1.1 * v.nnz * (1 - weight.mean() / v.shape[1])) + 1024
    edges = np.zeros(v.shape[0] + 1, np.int64)
    rule = own.rows.view(np.uint16), own.columns.view(np.uint16), own.counts
    while True:
        values = np.array(scaling.multiply(v.data, scale))
        held, places = np.empty(room, values.dtype), np.empty(room, np.int32)
        found = _zero_stored(values, _unsigned(v.indices), _unsigned(v.indptr), *rule, held, places, edges)
        if found <= room:
            break
        room = found
    part = scipy.sparse.csr_array((values, v.indices, v.indptr), v.shape)
    return part, Cells(
        held[:found], held[:0], places[:found], edges, v.shape[1], True, groups=own.complement()
    )


def _unsigned(places: NDArray[np.signedinteger[Any]]) -> NDArray[np.unsignedinteger[Any]]:
    """Return indices in a type with which a compiled function need not look for negative ones."""
    return places.view(f"u{places.itemsize}")


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
