"""A pass over V in panels: what its tasks compute.

A pass is one task a panel (load it, solve for W, return the sums that H needs) and a tree that adds them up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial, reduce
from operator import add
from typing import Any, cast

import numpy as np
from dask.delayed import Delayed
from dask.sizeof import sizeof

from dask_nmf.errors import DataError
from dask_nmf.execution.engine import Model
from dask_nmf.execution.graphs.reduction import FEW, PanelTasks, PassInputs, Reduction, combine_tree
from dask_nmf.execution.tasks.block_pass import ModelPart, PassSpec, process_block, process_models, stacks
from dask_nmf.kernels.blocks import masking, scaling
from dask_nmf.kernels.blocks.masking import MaskedBlock
from dask_nmf.kernels.row_sums import NOTHING, Sums
from dask_nmf.kernels.summary import masked_summary, row_sample
from dask_nmf.kernels.summary.row_sample import SampleSpec, Summary
from dask_nmf.solvers.solver import PanelSolver
from dask_nmf.types import Array, Block


def spec_of(model: Model) -> PassSpec:
    """Return the instructions of a pass for a model; they name a new store for its next factor."""
    solver, state, slots = model.own_solver, model.state, model.slots
    solve_w, sharing = cast(PanelSolver, solver).solve_w, solver.shares_products
    spec = PassSpec(solve_w, solver, residual=model.exact, mask=model.mask, shares_products=sharing)
    if slots is None or not solver.carries_w:
        return spec
    before = slots.factor(state.w_slot) if state.w_slot >= 0 else None
    return spec._replace(w_in=before, w_out=slots.new_factor(state.next_slot))


def summarize(draw: SampleSpec) -> Reduction:
    """Return the computation of the `Summary` of V, from its first read."""
    return Reduction(partial(_summarize_panel, draw=draw), partial(row_sample.merge_summaries, draw=draw))


def sweep(spec: PassSpec) -> Reduction:
    """Return the computation of the `Sums` of a pass.

    Beside V, tasks may have the factor that panels hold, (rows, k).
    """
    return Reduction(partial(_process_panel, spec=spec), _add)


def sweep_models(specs: Sequence[PassSpec]) -> Reduction:
    """Return the computation of the `Sums` of a pass for each of several models, which share each panel.

    The inputs have an H for each model. Its sums are those of a `sweep` for it alone, bit for bit.
    """
    return Reduction(partial(process_panel_for_models, specs=tuple(specs)), add_each, FEW)


def sweep_keeping_w(tasks: PanelTasks, inputs: Delayed, spec: PassSpec) -> list[Delayed]:
    """Return a delayed (W, `Sums`, means of rows) for each panel; means that are not taken are empty."""
    return tasks.map(partial(_process_panel, spec=spec._replace(return_w=True)), inputs)


@sizeof.register(MaskedBlock)
def _bytes(block: MaskedBlock) -> int:
    """Return the bytes of a masked block, because Dask would not count its arrays."""
    return int(sizeof(block.v) + sizeof(block.weights) + sizeof(block.rows))


def block_of(panel: Block, first: int, last: int) -> Block:
    """Return some columns of a panel."""
    if not isinstance(panel, MaskedBlock):
        return panel[:, first:last]
    assert panel.weights is None
    return replace(panel, v=panel.v[:, first:last], first_column=first)


def add_up(parts: Sequence[Delayed]) -> Delayed:
    """Add delayed parts by the tree of every pass, because the order of additions decides the last bits."""
    return combine_tree(parts, _add)


def add_up_each(parts: Sequence[Delayed]) -> Delayed:
    """Add delayed tuples item by item: each sum is that of `add_up` for these items alone."""
    return combine_tree(parts, add_each)


def _add(parts: list[Any]) -> Any:
    return reduce(add, parts)


def add_each(parts: list[tuple[Any, ...]]) -> tuple[Any, ...]:
    return tuple(reduce(add, each) for each in zip(*parts, strict=True))


def _summarize_panel(v: Block, *, panel: int, inputs: PassInputs, draw: SampleSpec) -> Summary:
    return row_sample.summarize_panel(v, inputs.edges[panel], draw)


def process_panel_for_models(
    v: Block, *, panel: int, inputs: PassInputs, specs: Sequence[PassSpec]
) -> tuple[Any, ...]:
    """Return the sums of a panel for each model, which has its own H among the inputs."""
    first, last, factors = inputs.edges[panel], inputs.edges[panel + 1], (inputs.h, *inputs.more_h)
    found: list[Any] = [None] * len(specs)
    for some in stacks(specs, [len(h) for h in factors]):
        mask = specs[some[0]].mask
        block = v if mask is None else masking.with_mask(v, first, mask)
        parts = [
            ModelPart(factors[number], specs[number], _w_before(specs[number], inputs, first, last))
            for number in some
        ]
        results = process_models(masking.with_scale(block, inputs.scale), parts)
        for number, (w, sums) in zip(some, results, strict=True):
            after = specs[number].w_out
            if after is not None:
                after.write(first, w)
            found[number] = sums
    return tuple(found)


def _w_before(spec: PassSpec, inputs: PassInputs, first: int, last: int) -> Array | None:
    """Return the W, (rows, k), with which the pass over some rows begins."""
    if spec.w_in is not None:
        return spec.w_in.read(first, last)
    return None if inputs.w is None else inputs.w[first:last]


def _process_panel(
    v: Block, w_block: Array | None = None, *, panel: int, inputs: PassInputs, spec: PassSpec
) -> Sums | tuple[Array, Sums, Array]:
    first, last = inputs.edges[panel], inputs.edges[panel + 1]
    if spec.mask is not None:
        v = masking.with_mask(v, first, spec.mask)
    scale, at_own_scale = inputs.scale, spec.anew is not None
    own = _check(v, first) if spec.check else scale
    if spec.anew is not None:
        scale, spec = own, spec.anew(spec, own)
    before = _w_before(spec, inputs, first, last)
    before = w_block if before is None else before
    w, sums = process_block(masking.with_scale(v, scale), inputs.h, spec, before, first)
    w = scaling.multiply(w, spec.unit)
    if at_own_scale:
        check_factor(w)
        sums = sums._replace(num=scaling.multiply(sums.num, 1 / scale))
    if spec.w_out is not None:
        spec.w_out.write(first, w)
    means = NOTHING
    if spec.averages:
        totals = masked_summary.entry_totals(v)
        means, sums = totals.rows.astype(w.dtype), sums._replace(column_totals=totals.columns)
        if spec.means is not None:
            spec.means.write(first, means)
        if spec.weights is not None:
            spec.weights.write(first, totals.row_weights)
    return (w, sums, means) if spec.return_w else sums


def _check(v: Block, first: int) -> float:
    """Return the scale of a panel; raise if it has an entry that is negative or not finite."""
    found = masked_summary.summarize_block(v)
    if found.invalid is not None:
        raise found.invalid.at(first)
    mass = float(np.sum(np.broadcast_to(found.column_weight, v.shape[1])))
    return scaling.scale_of(found.total / mass if mass else 0.0, v.dtype)


def as_it_was(spec: PassSpec, scale: float) -> PassSpec:
    """Return the spec unchanged for the scale of any panel; it can be the ``anew`` of a `PassSpec`."""
    return spec


def check_factor(w: Array) -> None:
    """Raise `DataError` if entries of W, (rows, k), are beyond the range of its dtype."""
    if not np.isfinite(w).all():
        raise DataError(
            f"W for this V and H is beyond {w.dtype}; multiply V by a number that brings it near the V "
            "that H is of"
        )
