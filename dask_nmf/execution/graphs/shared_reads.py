"""Reads of V that the models of several folds share: what their tasks compute."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from dask_nmf.execution.graphs.passes import PassSpec, process_block
from dask_nmf.execution.graphs.reduction import PassInputs, Reduction
from dask_nmf.kernels.blocks import masking
from dask_nmf.kernels.blocks.masking import EntryMask
from dask_nmf.kernels.summary import row_sample
from dask_nmf.kernels.summary.row_sample import SampleSpec, Summary
from dask_nmf.types import Array, Block


def summarize_for(draw: SampleSpec, masks: Sequence[EntryMask]) -> Reduction:
    """Return the computation of the summaries of V for several masks, in their order, which share a read."""
    chunk = partial(_summarize_panel_for, draw=draw, masks=tuple(masks))
    return Reduction(chunk, partial(_merge_each, draw=draw))


def w_of_rows(specs: Sequence[PassSpec], rows: Array) -> Reduction:
    """Return the computation of W of some rows for each model, (rows, k); ``rows`` rise."""
    return Reduction(partial(_w_of_rows, specs=tuple(specs), rows=rows), _stack_each)


def _w_of_rows(
    v: Block, *, panel: int, inputs: PassInputs, specs: Sequence[PassSpec], rows: Array
) -> list[Array]:
    first, last = inputs.edges[panel], inputs.edges[panel + 1]
    chosen = rows[(rows >= first) & (rows < last)] - first
    found = []
    for h, spec in zip((inputs.h, *inputs.more_h), specs, strict=True):
        block = v if spec.mask is None else masking.with_mask(v, first, spec.mask)
        block = masking.with_scale(block[chosen], inputs.scale)
        found.append(process_block(block, h, spec)[0] if len(chosen) else np.empty((0, len(h)), h.dtype))
    return found


def _stack_each(parts: list[list[Array]]) -> list[Array]:
    return [np.concatenate(each) for each in zip(*parts, strict=True)]


def _summarize_panel_for(
    v: Block, *, panel: int, inputs: PassInputs, draw: SampleSpec, masks: Sequence[EntryMask]
) -> list[Summary]:
    first = inputs.edges[panel]
    blocks = (masking.with_mask(v, first, mask) for mask in masks)
    return [row_sample.summarize_panel(block, first, draw) for block in blocks]


def _merge_each(parts: list[list[Summary]], draw: SampleSpec) -> list[Summary]:
    return [row_sample.merge_summaries(list(each), draw) for each in zip(*parts, strict=True)]
