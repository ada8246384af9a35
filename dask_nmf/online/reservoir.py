"""The sample of rows that a stream keeps: its size, its rows held in one way, and fewer of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from dask_nmf.kernels.blocks import masking
from dask_nmf.kernels.blocks.masking import Observed, Rule
from dask_nmf.kernels.summary import row_sample
from dask_nmf.kernels.summary.row_sample import Draw
from dask_nmf.types import Block

ROWS, ROWS_EACH = 1000, 50  # of the sample: in all, or for a component if that is more
ENTRIES, FEWEST = 2**21, 2  # but it holds no more entries, unless it had fewer rows for a component


def thinned(sample: Block, rank: int, seed: int) -> Block:
    """Return a sample of the sample, if it has become too large."""
    rows = sample.shape[0]
    size = size_of(masking.stored(sample), rows, rank)
    if rows <= size:
        return sample
    draw = Draw(rows, size, seed)
    return row_sample.draw_sample(row_sample.summarise(sample, 0, draw).candidates, draw)


def size_of(stored: int, rows: int, rank: int) -> int:
    """Return how many rows a sample has, of which so many would hold so many entries."""
    fitting = ENTRIES * rows // max(stored, 1)
    return max(FEWEST * rank, min(max(ROWS, ROWS_EACH * rank), fitting))


def occurring(block: Block) -> NDArray[np.bool_]:
    """Return which columns have an entry > 0, (n,)."""
    return np.asarray((masking.plain(block) > 0).sum(axis=0)).ravel() > 0


def alike(past: Block, batch: Block) -> tuple[Block, Block]:
    """Return both held in one way: dense or CSR, of the dtype of the batch, cell by cell or whole.

    If either has weights, both have them.
    """
    if not isinstance(past, Observed) and not isinstance(batch, Observed):
        return _held_as(past, batch), batch
    rule = batch.mask if isinstance(batch, Observed) else past.mask
    past, batch = (
        block if isinstance(block, Observed) else _observed(block, rule) for block in (past, batch)
    )
    weighted = past.weights is not None or batch.weights is not None
    past, batch = (_weighted(block) if weighted else block for block in (past, batch))
    weights = None if past.weights is None else _held_as(past.weights, batch.weights)
    return replace(past, v=_held_as(past.v, batch.v), weights=weights, mask=rule), batch


def _held_as(block: Block, other: Block) -> Block:
    if scipy.sparse.issparse(other):
        return scipy.sparse.csr_array(block).astype(other.dtype)
    return (block.toarray() if scipy.sparse.issparse(block) else block).astype(other.dtype)


def _observed(block: Block, rule: Rule) -> Observed:
    return Observed(block, None, np.arange(block.shape[0]), rule)


def _weighted(block: Observed) -> Observed:
    """Return the block with weights of 1, if it has none."""
    if block.weights is not None:
        return block
    if scipy.sparse.issparse(block.v) and block.mask.missing == "unstored":
        ones = scipy.sparse.csr_array(
            (np.ones_like(block.v.data), block.v.indices, block.v.indptr), block.shape
        )
        return replace(block, weights=ones)
    return replace(block, weights=np.ones(block.shape, block.dtype))
