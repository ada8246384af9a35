"""Summaries of blocks in which not every entry counts alike."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from dask_nmf.errors import InvalidEntryError
from dask_nmf.kernels.blocks.holed import iter_batches
from dask_nmf.kernels.blocks.masked import Cells
from dask_nmf.kernels.blocks.masking import MaskedBlock
from dask_nmf.kernels.blocks.row_batches import iter_row_batches
from dask_nmf.kernels.summary import block_summary, means
from dask_nmf.kernels.summary.block_summary import NO_TERMS, BlockSummary, row_at
from dask_nmf.kernels.summary.digests import NO_KEYS, Hashes, row_hashes
from dask_nmf.types import Array, Block


class EntryTotals(NamedTuple):
    """The means of the rows of a block, and the sums from which means of columns are made."""

    rows: Array  # (r,), NaN where no entry counts
    row_weights: Array  # (r,): Σ ω over the entries that count
    columns: Array  # (2, n): Σ ω v and Σ ω over the entries that count


def summarize_block(block: Block, keys: Hashes = NO_KEYS) -> BlockSummary:
    """Return the summary of a block, over the cells that count if it is masked."""
    if not isinstance(block, MaskedBlock):
        return block_summary.summarize_block(block, keys)
    if block.mask.by_groups:
        return _summarize_by_groups(block, keys)
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


def _summarize_by_groups(block: MaskedBlock, keys: Hashes) -> BlockSummary:
    """Return the summary of a block over the entries that are not held out; held-out ones are checked too."""
    whole = block_summary.summarize_block(block.v, keys)
    groups, norms, total, stored = block.groups, np.zeros(block.shape[0]), 0.0, whole.stored
    for batch in iter_batches(block):
        for rows, part in batch.kept.strips():
            kept = block_summary.summarize_block(part)
            norms[batch.rows][rows] = kept.row_norms
            total += kept.total
        stored -= len(batch.held_out.values)
    return whole._replace(
        total=total,
        row_norms=norms,
        stored=stored,
        column_weight=groups.column_weight,
        unobserved_rows=int((groups.row_weight == 0).sum()),
    )


def _hashes(block: MaskedBlock, keys: Hashes) -> tuple[Hashes, ...]:
    """Return the row hashes of V, whichever entries count, and of its weights if it has some."""
    if not len(keys):
        return ()
    of_v = row_hashes(block.v, keys, block.mask.missing == "unstored")
    return (of_v,) if block.weights is None else (of_v, row_hashes(block.weights, keys))


def entry_totals(block: MaskedBlock) -> EntryTotals:
    """Return row means and column sums of the cells that count, each with its weight; float64."""
    rows, columns = np.full(block.shape[0], np.nan), np.zeros((2, block.shape[1]))
    row_weights = np.zeros(block.shape[0])
    for chosen, cells, _ in iter_row_batches(block):
        values = cells.values.astype(np.float64)
        if len(cells.weights):
            values *= cells.weights
        row_weights[chosen] = cells.row_weight
        rows[chosen] = means.safe_divide(cells.row_sums(values), row_weights[chosen])
        columns[0] += np.bincount(cells.indices, values, block.shape[1])
        columns[1] += cells.column_weight
    return EntryTotals(rows, row_weights, columns)


def _first_bad(first_row: int, with_zeros: bool, *parts: Cells) -> InvalidEntryError | None:
    """Return the first invalid entry, by row and column, among cells of the same rows, or None."""
    found = []
    for cells in parts:
        sound = (cells.values >= 0 if with_zeros else cells.values > 0) & (cells.values < np.inf)
        at = np.flatnonzero(~sound)[:1]
        found += [
            (row_at(cells.indptr, p), int(cells.indices[p]), float(cells.values[p])) for p in at.tolist()
        ]
    return InvalidEntryError(*min(found)).at(first_row) if found else None
