"""The sample of rows that a stream keeps: its size, its layout, and how it shrinks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from dask_nmf.kernels.blocks import masking
from dask_nmf.kernels.blocks.masking import EntryMask, MaskedBlock
from dask_nmf.kernels.summary import row_sample
from dask_nmf.kernels.summary.row_sample import SampleSpec
from dask_nmf.types import Block

ROWS, ROWS_EACH = 1000, 50  # rows of the sample: in all, or per component if that is more
ENTRIES = 2**21  # the most entries of the sample,
FEWEST = 2  # unless it would have fewer rows per component


def shrink(sample: Block, rank: int, seed: int) -> Block:
    """Return a sample of the sample if it has become too large, else the sample."""
    rows = sample.shape[0]
    size = sample_size(masking.n_stored(sample), rows, rank)
    if rows <= size:
        return sample
    draw = SampleSpec(rows, size, seed)
    return row_sample.draw_sample(row_sample.summarize_panel(sample, 0, draw).candidates, draw)


def sample_size(stored: int, rows: int, rank: int) -> int:
    """Return the number of rows of a sample; ``rows`` rows hold ``stored`` entries."""
    fitting = ENTRIES * rows // max(stored, 1)
    return max(FEWEST * rank, min(max(ROWS, ROWS_EACH * rank), fitting))


def nonzero_columns(block: Block) -> NDArray[np.bool_]:
    """Return whether each column has an entry > 0, (n,)."""
    return np.asarray((masking.unwrap(block) > 0).sum(axis=0)).ravel() > 0


def in_one_layout(past: Block, batch: Block) -> tuple[Block, Block]:
    """Return both in one layout: dense or CSR and of the batch's dtype, masked and weighted if either is."""
    if not isinstance(past, MaskedBlock) and not isinstance(batch, MaskedBlock):
        return _converted_to(past, batch), batch
    rule = batch.mask if isinstance(batch, MaskedBlock) else past.mask
    past, batch = (
        block if isinstance(block, MaskedBlock) else _masked(block, rule) for block in (past, batch)
    )
    weighted = past.weights is not None or batch.weights is not None
    past, batch = (_weighted(block) if weighted else block for block in (past, batch))
    weights = None if past.weights is None else _converted_to(past.weights, batch.weights)
    return replace(past, v=_converted_to(past.v, batch.v), weights=weights, mask=rule), batch


def _converted_to(block: Block, other: Block) -> Block:
    """Return a block as dense or CSR, and of the dtype, as the other one."""
    if scipy.sparse.issparse(other):
        return scipy.sparse.csr_array(block).astype(other.dtype)
    return (block.toarray() if scipy.sparse.issparse(block) else block).astype(other.dtype)


def _masked(block: Block, rule: EntryMask) -> MaskedBlock:
    """Return a plain block as a masked one."""
    return MaskedBlock(block, None, np.arange(block.shape[0]), rule)


def _weighted(block: MaskedBlock) -> MaskedBlock:
    """Return the block with weights of 1, if it has none."""
    if block.weights is not None:
        return block
    if scipy.sparse.issparse(block.v) and block.mask.missing == "unstored":
        ones = scipy.sparse.csr_array(
            (np.ones_like(block.v.data), block.v.indices, block.v.indptr), block.shape
        )
        return replace(block, weights=ones)
    return replace(block, weights=np.ones(block.shape, block.dtype))
