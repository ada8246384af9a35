"""Blocks of V of which some entries do not count, or count more than others.

An entry counts with its weight, unless it is missing or held out for validation. The cells that count are
taken out of a block some rows at a time, so that they are never in memory all at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from dask_nmf import rng
from dask_nmf.errors import DataError, InvalidEntryError
from dask_nmf.kernels.blocks import scaling
from dask_nmf.kernels.blocks.masked import EMPTY, Cells, all_cells
from dask_nmf.kernels.summary import block_summary, means
from dask_nmf.kernels.summary.block_summary import NO_TERMS, BlockSummary, row_at
from dask_nmf.kernels.summary.digests import NO_KEYS, Hashes, row_hashes
from dask_nmf.types import Array, Block

STRIP_CELLS = 512 * 1024  # looked at together


@dataclass(frozen=True)
class EntryMask:
    """Which entries count."""

    missing: str | None = None  # None: all; "nan": those that are not NaN; "unstored": the stored ones
    held_out: float = 0.0  # share of the entries that is kept for validation
    seed: int = 0  # of their choice, by a hash of (seed, row, column)
    transposed: bool = False  # the rows of a block are columns of V
    weighted: bool = False
    beta: float = 2.0  # of the divergence that is the loss

    @property
    def is_uniform(self) -> bool:
        """Whether every entry counts, and as much as any other."""
        return self.missing is None and self.held_out == 0 and not self.weighted

    @property
    def needs_means(self) -> bool:
        """Whether of some rows or columns nothing may be observed, so that their means are to be known."""
        return self.missing is not None or self.weighted

    @property
    def uses_whole_blocks(self) -> bool:
        """Whether blocks are taken as they are: the squared error does not look at cells one by one."""
        return self.is_uniform and self.beta == 2

    @property
    def implicit_zeros(self) -> bool:
        """Whether the cells that are 0 need not be listed: of Kullback & Leibler's their sum is enough."""
        return self.is_uniform and self.beta == 1


@dataclass(frozen=True)
class MaskedBlock:
    """A block with the weights of its entries, and the rule by which they count."""

    v: Block  # (r, n), dense or CSR
    weights: Block | None  # (r, n), ≥ 0, dense or CSR
    rows: NDArray[np.int64]  # global indices
    mask: EntryMask
    row_weights: Array | None = None  # (r,): by this the weights of a row are multiplied
    first_column: int = 0  # global index
    scale: float = 1.0  # a power of two, by which the entries count

    @property
    def shape(self) -> tuple[int, int]:
        rows, columns = self.v.shape
        return rows, columns

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the entries."""
        dtype: np.dtype[Any] = self.v.dtype
        return dtype

    def __getitem__(self, rows: Any) -> MaskedBlock:
        """Some of the rows."""
        return MaskedBlock(
            self.v[rows],
            None if self.weights is None else self.weights[rows],
            self.rows[rows],
            self.mask,
            None if self.row_weights is None else self.row_weights[rows],
            self.first_column,
            self.scale,
        )


class EntryTotals(NamedTuple):
    """The means of the rows of a block, and of its columns what means are made from."""

    rows: Array  # (r,), NaN where no entry counts
    columns: Array  # (2, n): Σ v of what counts, and how much that is


class RowBatch(NamedTuple):
    """Some rows of a block."""

    rows: slice
    cells: Cells  # that count
    held_out: Cells  # that are held out


def iter_row_batches(block: MaskedBlock, even: bool = False) -> Iterator[RowBatch]:
    """A block, some rows at a time.

    With ``even``, how many they are depends on the shape of the block alone.
    """
    rows, columns = block.shape
    listed = block.mask.implicit_zeros or block.mask.missing == "unstored"
    by_entry = scipy.sparse.issparse(block.v) and listed and block.weights is None
    each = max(block.v.nnz / max(rows, 1), 1) if by_entry and not even else columns
    step = int(max(1, STRIP_CELLS / each))
    for first in range(0, rows, step):
        chosen = slice(first, min(first + step, rows))
        yield _strip(block[chosen], chosen, by_entry)


def _strip(part: MaskedBlock, rows: slice, by_entry: bool) -> RowBatch:
    found = _stored(part) if by_entry else _filled(part)
    found = found._replace(values=scaling.multiply(found.values, part.scale))
    if part.row_weights is not None:
        emphasis = np.repeat(part.row_weights, np.diff(found.indptr))
        weights = found.weights * emphasis if len(found.weights) else emphasis
        by_row = part.row_weights * found.by_row if found.separable else found.by_row
        found = found._replace(weights=weights.astype(found.values.dtype), by_row=by_row)
    if part.mask.held_out == 0:
        none = found._replace(
            values=found.values[:0],
            weights=found.weights[:0],
            indices=found.indices[:0],
            indptr=np.zeros_like(found.indptr),
            implicit_zeros=False,
            by_row=EMPTY,
            by_column=EMPTY,
        )
        return RowBatch(rows, found, none)
    held = _held_out(part, found)
    return RowBatch(rows, found.select(~held), found.select(held))


def _stored(part: MaskedBlock) -> Cells:
    """The stored entries of a CSR block."""
    v = part.v
    if not v.has_canonical_format:
        v = v.copy()
        v.sum_duplicates()
    return Cells(v.data, v.data[:0], v.indices, v.indptr, v.shape[1], part.mask.implicit_zeros)


def _filled(part: MaskedBlock) -> Cells:
    """The entries of a block that count, found by looking at all of them."""
    counts = _counting(part.v, part.mask.missing)
    v = part.v.toarray() if scipy.sparse.issparse(part.v) else part.v
    weights = part.weights
    if weights is not None and scipy.sparse.issparse(weights):
        weights = weights.toarray()
    if weights is not None:
        _check_weights(weights, part)
        counts &= weights > 0
    if part.mask.implicit_zeros:
        counts &= v != 0
    if counts.all():
        return _full(v, weights, part.mask)
    indptr = np.concatenate([[0], np.cumsum(counts.sum(axis=1))])
    indices = np.nonzero(counts)[1].astype(np.int32)
    weights = v[:0, 0] if weights is None else weights[counts]
    return Cells(v[counts], weights, indices, indptr, v.shape[1], part.mask.implicit_zeros)


def _full(v: Array, weights: Array | None, rule: EntryMask) -> Cells:
    """All entries of a block; for the squared error with what is known of their weights."""
    beside = v[:0, 0] if weights is None else weights.reshape(-1)
    found = all_cells(v.reshape(-1), beside, v.shape)._replace(implicit_zeros=rule.implicit_zeros)
    parts = None
    if rule.beta == 2:
        parts = (np.ones(len(v)), np.ones(v.shape[1])) if weights is None else _separated(weights)
    return found if parts is None else found._replace(by_row=parts[0], by_column=parts[1])


def _separated(weights: Array) -> tuple[Array, Array] | None:
    """Return numbers of each row and each column whose products are the weights; None if there are none."""
    by_row = weights[:, 0].astype(np.float64)
    by_column = weights[0] / by_row[0]
    rounding = 4 * float(np.finfo(weights.dtype).eps)
    for some in slice(-1, None), slice(None):
        product = by_row[some, None] * by_column
        if np.any(np.abs(weights[some] - product) > rounding * product):
            return None
    return by_row, by_column


def _counting(v: Block, missing: str | None) -> NDArray[np.bool_]:
    """Where the entries are that are not missing, (r, n)."""
    if missing == "unstored":
        if not scipy.sparse.issparse(v):
            raise DataError("missing is 'unstored' and V is dense; give a sparse V, or missing='nan'")
        pattern = scipy.sparse.csr_array((np.ones_like(v.data, bool), v.indices, v.indptr), shape=v.shape)
        return np.asarray(pattern.toarray())
    if missing == "nan":
        return np.asarray(~np.isnan(v.toarray() if scipy.sparse.issparse(v) else v))
    return np.ones(v.shape, bool)


def _check_weights(weights: Array, part: MaskedBlock) -> None:
    sound = (weights >= 0) & (weights < np.inf)
    if not sound.all():
        row, column = (int(places[0]) for places in np.nonzero(~sound))
        value, row = float(weights[row, column]), int(part.rows[row])
        if part.mask.transposed:
            row, column = column, row
        raise DataError(
            f"weights has {value} at row {row}, column {column}; weights must be finite and ≥ 0, "
            "0 for what should not count"
        )


def _held_out(part: MaskedBlock, found: Cells) -> NDArray[np.bool_]:
    rows = np.repeat(part.rows, np.diff(found.indptr))
    columns = part.first_column + found.indices.astype(np.int64)
    if part.mask.transposed:
        rows, columns = columns, rows
    return np.asarray(rng.uniform_at(part.mask.seed, rng.HELD_OUT, rows, columns) < part.mask.held_out)


def summarize_block(block: Block, keys: Hashes = NO_KEYS) -> BlockSummary:
    """`block_summary.summarize_block`, of the cells that count where not all do."""
    if not isinstance(block, MaskedBlock):
        return block_summary.summarize_block(block, keys)
    beta = block.mask.beta
    total, power, stored, unobserved, bad = 0.0, NO_TERMS, 0, 0, None
    mass, norms = np.zeros(block.shape[1]), np.zeros(block.shape[0])
    for rows, cells, held in iter_row_batches(block):
        bad = bad or _first_bad(rows.start, beta > 0, cells, held)
        values = cells.values.astype(np.float64)
        weighed = values * cells.weights if len(cells.weights) else values
        total += float(np.sum(weighed))
        norms[rows] = cells.row_sums(weighed * values if beta == 2 else weighed)
        power += NO_TERMS if bad or beta == 2 else block_summary.divergence_terms(cells, beta)
        mass += cells.column_weight
        stored += len(values)
        unobserved += int((cells.row_weight == 0).sum())
    return BlockSummary(total, norms, stored, bad, mass, unobserved, power, _hashes(block, keys))


def _hashes(block: MaskedBlock, keys: Hashes) -> tuple[Hashes, ...]:
    """The hashes of the rows of V, whatever counts in it, and of its weights where it has some."""
    if not len(keys):
        return ()
    of_v = row_hashes(block.v, keys, block.mask.missing == "unstored")
    return (of_v,) if block.weights is None else (of_v, row_hashes(block.weights, keys))


def entry_totals(block: MaskedBlock) -> EntryTotals:
    """Add up the cells that count, each with its weight; float64."""
    rows, columns = np.full(block.shape[0], np.nan), np.zeros((2, block.shape[1]))
    for chosen, cells, _ in iter_row_batches(block):
        values = cells.values.astype(np.float64)
        if len(cells.weights):
            values *= cells.weights
        rows[chosen] = means.safe_divide(cells.row_sums(values), cells.row_weight)
        columns[0] += np.bincount(cells.indices, values, block.shape[1])
        columns[1] += cells.column_weight
    return EntryTotals(rows, columns)


def _first_bad(first_row: int, with_zeros: bool, *parts: Cells) -> InvalidEntryError | None:
    """The first entry that no NMF can take, by row and column, of cells of the same rows."""
    found = []
    for cells in parts:
        sound = (cells.values >= 0 if with_zeros else cells.values > 0) & (cells.values < np.inf)
        at = np.flatnonzero(~sound)[:1]
        found += [
            (row_at(cells.indptr, p), int(cells.indices[p]), float(cells.values[p])) for p in at.tolist()
        ]
    return InvalidEntryError(*min(found)).at(first_row) if found else None


def vstack(blocks: Sequence[Block]) -> Block:
    """Blocks below each other."""
    first = blocks[0]
    if isinstance(first, MaskedBlock):
        return MaskedBlock(
            vstack([block.v for block in blocks]),
            None if first.weights is None else vstack([block.weights for block in blocks]),
            np.concatenate([block.rows for block in blocks]),
            first.mask,
            _stacked_emphasis(blocks),
            scale=first.scale,
        )
    if all(scipy.sparse.issparse(block) for block in blocks):
        return scipy.sparse.csr_array(scipy.sparse.vstack(blocks))
    return np.concatenate(blocks)


def _stacked_emphasis(blocks: Sequence[MaskedBlock]) -> Array | None:
    if all(block.row_weights is None for block in blocks):
        return None
    ones = (np.ones(block.shape[0]) for block in blocks)
    return np.concatenate(
        [
            one if block.row_weights is None else block.row_weights
            for block, one in zip(blocks, ones, strict=True)
        ]
    )


def scale_rows(block: Block, weight: NDArray[np.float64]) -> Block:
    """A block whose rows count ``weight``, (r,), times."""
    if np.all(weight == 1):
        return block
    if isinstance(block, MaskedBlock) and block.mask.implicit_zeros:  # D(c v | c y) = c D(v | y)
        return replace(block, v=_times(weight.astype(block.dtype), block.v))
    if isinstance(block, MaskedBlock):
        return replace(block, row_weights=weight if block.row_weights is None else weight * block.row_weights)
    return _times(np.sqrt(weight).astype(block.dtype), block)


def with_scale(block: Block, scale: float) -> Block:
    """A block that counts as if it was multiplied by a power of two: nothing of it is copied."""
    return replace(block, scale=scale) if isinstance(block, MaskedBlock) else scaling.with_scale(block, scale)


def scaled_copy(block: Block, scale: float) -> Block:
    """A block whose entries are multiplied by a power of two."""
    if isinstance(block, MaskedBlock):
        return replace(block, v=scaling.scaled_copy(block.v, scale))
    return scaling.scaled_copy(block, scale)


def _times(scale: Array, block: Block) -> Block:
    if scipy.sparse.issparse(block):
        return scipy.sparse.csr_array(scipy.sparse.diags_array(scale) @ block)
    return block * scale[:, None]


def unwrap(block: Block) -> Block:
    """A block as it is, whatever counts in it."""
    return block.v if isinstance(block, MaskedBlock) else block


def n_stored(block: Block) -> int:
    """Entries that a block holds."""
    if isinstance(block, MaskedBlock):
        return n_stored(block.v)
    return int(block.nnz if scipy.sparse.issparse(block) else block.size)
