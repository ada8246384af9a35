"""Reads of V that models of several starts, folds or bootstrap samples share: what their tasks compute."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from dask_nmf.execution.graphs.passes import add_each
from dask_nmf.execution.graphs.reduction import FEW, PassInputs, Reduction
from dask_nmf.execution.tasks.block_pass import PassSpec, process_block
from dask_nmf.kernels.blocks import masking, resampling
from dask_nmf.kernels.blocks.masking import EntryMask
from dask_nmf.kernels.blocks.resampling import Resample, Spread
from dask_nmf.kernels.row_sums import Sums
from dask_nmf.kernels.summary import masked_summary, row_sample
from dask_nmf.kernels.summary.row_sample import Candidates, SampleSpec, Summary
from dask_nmf.types import Array, Block


class Replicate(NamedTuple):
    """A model of a bootstrap sample of the rows of V in a shared read."""

    spec: PassSpec
    sample: Resample


def summarize_for(draw: SampleSpec, masks: Sequence[EntryMask]) -> Reduction:
    """Return the computation of the summaries of V for several masks, in their order, which share a read."""
    chunk = partial(_summarize_panel_for, draw=draw, masks=tuple(masks))
    return Reduction(chunk, partial(_merge_each, draw=draw))


def candidates_for(draws: Sequence[SampleSpec]) -> Reduction:
    """Return the computation of the `Candidates` of several samples of rows, which share a read."""
    given = tuple(draws)
    return Reduction(partial(_candidates_of_panel, draws=given), partial(_merge_candidates, draws=given))


def w_of_rows(specs: Sequence[PassSpec], rows: Array) -> Reduction:
    """Return the computation of W of some rows for each model, (rows, k); ``rows`` rise."""
    return Reduction(partial(_w_of_rows, specs=tuple(specs), rows=rows), _stack_each)


def sweep_replicates(replicates: Sequence[Replicate]) -> Reduction:
    """Return the computation of the `Sums` of a pass for each replicate, which has an H of its own."""
    return Reduction(partial(_sums_of_replicates, replicates=tuple(replicates)), add_each, FEW)


def likeness_of_w(replicates: Sequence[Replicate]) -> Reduction:
    """Return the computation of Σ x, Σ x² and Σ x w over rows, where x is W of a replicate and w the known W.

    It has the shape (3, replicates, k), float64.
    """
    return Reduction(partial(_likeness_of_w, replicates=tuple(replicates)), sum)


def spread_of_w(replicates: Sequence[Replicate], scales: Array) -> Reduction:
    """Return the computation of the `Spread` of W over replicates, of (rows, k), float64.

    ``scales``, (replicates, k), multiply the components of each replicate first.
    """
    return Reduction(partial(_spread_of_w, replicates=tuple(replicates), scales=scales), _stack_spreads)


def _sums_of_replicates(
    v: Block, *, panel: int, inputs: PassInputs, replicates: Sequence[Replicate]
) -> tuple[Sums, ...]:
    factors = (inputs.h, *inputs.more_h)
    return tuple(
        _sums_of_replicate(v, replicate, h, panel, inputs)
        for h, replicate in zip(factors, replicates, strict=True)
    )


def _sums_of_replicate(v: Block, replicate: Replicate, h: Array, panel: int, inputs: PassInputs) -> Sums:
    """Return the sums of the sampled part of a panel; without one they are those of a row, times 0."""
    total = None
    for _, part in _sampled_batches(v, replicate, panel, inputs):
        sums = process_block(part, h, replicate.spec)[1]
        total = sums if total is None else total + sums
    if total is None:
        row = _masked(v, replicate, panel, inputs)[:1]
        return process_block(masking.with_scale(row, inputs.scale), h, replicate.spec)[1].scaled(0.0)
    return total


def _likeness_of_w(v: Block, *, panel: int, inputs: PassInputs, replicates: Sequence[Replicate]) -> Array:
    assert inputs.w is not None
    first, factors = inputs.edges[panel], (inputs.h, *inputs.more_h)
    found = np.zeros((3, len(replicates), len(inputs.h)))
    for number, (h, replicate) in enumerate(zip(factors, replicates, strict=True)):
        for rows, part in _sampled_batches(v, replicate, panel, inputs):
            x = process_block(part, h, replicate.spec)[0].astype(np.float64)
            known = inputs.w[first + rows.start : first + rows.stop]
            found[:, number] += x.sum(axis=0), (x * x).sum(axis=0), (x * known).sum(axis=0)
    return found


def _spread_of_w(
    v: Block, *, panel: int, inputs: PassInputs, replicates: Sequence[Replicate], scales: Array
) -> Spread:
    spread, factors = Spread(), (inputs.h, *inputs.more_h)
    for h, replicate, scale in zip(factors, replicates, scales, strict=True):
        batches = _sampled_batches(v, replicate, panel, inputs)
        parts = [process_block(part, h, replicate.spec)[0] for _, part in batches]
        spread = spread.with_sample(np.concatenate(parts) * scale)
    return spread


def _stack_spreads(parts: list[Spread]) -> Spread:
    mean, squares = (np.concatenate(each) for each in zip(*(part[1:] for part in parts), strict=True))
    return Spread(parts[0].samples, mean, squares)


def _masked(v: Block, replicate: Replicate, panel: int, inputs: PassInputs) -> Block:
    mask = replicate.spec.mask
    return v if mask is None else masking.with_mask(v, inputs.edges[panel], mask)


def _sampled_batches(
    v: Block, replicate: Replicate, panel: int, inputs: PassInputs
) -> Iterator[tuple[slice, Block]]:
    """Yield ranges of rows of a panel, and what a bootstrap sample has of them, if anything."""
    block, first = _masked(v, replicate, panel, inputs), inputs.edges[panel]
    for rows in resampling.iter_batches(block):
        part = replicate.sample.of_block(block[rows], first + rows.start)
        if part.shape[0]:
            yield rows, masking.with_scale(part, inputs.scale)


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


def _candidates_of_panel(
    v: Block, *, panel: int, inputs: PassInputs, draws: Sequence[SampleSpec]
) -> list[Candidates]:
    norms, first = masked_summary.summarize_block(v).row_norms, inputs.edges[panel]
    return [row_sample.sample_candidates(v, norms, first, draw) for draw in draws]


def _merge_candidates(parts: list[list[Candidates]], draws: Sequence[SampleSpec]) -> list[Candidates]:
    of_draws = zip(*parts, strict=True)
    return [row_sample.merge_candidates(list(each), draw) for each, draw in zip(of_draws, draws, strict=True)]


def _merge_each(parts: list[list[Summary]], draw: SampleSpec) -> list[Summary]:
    return [row_sample.merge_summaries(list(each), draw) for each in zip(*parts, strict=True)]
