"""A pass over V in panels: what its tasks compute.

A pass is one task a panel (load it, solve for W, return the sums that H needs) and a tree that adds them up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial, reduce
from operator import add
from typing import Any, NamedTuple, Protocol, cast

import numpy as np
from dask.delayed import Delayed
from dask.sizeof import sizeof

from dask_nmf.errors import DataError
from dask_nmf.execution.engine import Model
from dask_nmf.execution.graphs.reduction import (
    NOTHING,
    PanelTasks,
    PassInputs,
    Reduction,
    combine_tree,
)
from dask_nmf.execution.tasks.factor_store import FactorStore
from dask_nmf.kernels import row_sums
from dask_nmf.kernels.blocks import holed, masking, row_batches, scaling
from dask_nmf.kernels.blocks.holed import HoledBlock
from dask_nmf.kernels.blocks.masked import Cells
from dask_nmf.kernels.blocks.masking import EntryMask, MaskedBlock
from dask_nmf.kernels.row_sums import Sums
from dask_nmf.kernels.summary import masked_summary, row_sample
from dask_nmf.kernels.summary.row_sample import SampleSpec, Summary
from dask_nmf.solvers.solver import PanelSolver
from dask_nmf.types import Array, Block


class Weigher(Protocol):
    """A function that returns the W of a panel, (rows, k), from v, h and the W before."""

    def __call__(self, v: Block, h: Array, w: Array | None) -> Array: ...


class Loss(Protocol):
    """The loss of a block, and the sums from which H is updated to lower it; every `Solver` is one."""

    def accumulate(self, v: Block, w: Array, h: Array, exact: bool) -> Sums:
        """Return the sums of a block, with its loss entry by entry if ``exact``."""
        ...

    def loss(self, v: Block, w: Array, h: Array, final: bool = False) -> float:
        """Return the loss of a block, without penalties; ``final`` is for the result: see `Solver.loss`."""
        ...


class PassSpec(NamedTuple):
    """The instructions of a pass for each panel."""

    solve_w: Weigher
    loss: Loss
    before: FactorStore | None = None  # store of the W that the pass begins with
    after: FactorStore | None = None  # store of the new W
    keep: bool = False  # whether W is returned beside the sums
    residual: bool = False  # whether the loss is taken entry by entry
    check: bool = False  # whether the first entry that is negative or not finite raises an error
    bare: bool = False  # whether the sums have only the residual and the norms of W
    averages: bool = False  # whether means of rows and `Sums.column_totals` are taken
    means: FactorStore | None = None  # store of the means of the rows
    unit: float = 1.0  # multiplies the W that is returned or stored
    mask: EntryMask | None = None  # decides which entries count; None: as the panels say
    anew: Callable[[PassSpec, float], PassSpec] | None = None  # makes the spec for V at a panel's scale


def spec_of(model: Model) -> PassSpec:
    """Return the instructions of a pass for a model; they name a new store for its next factor."""
    solver, state, slots = model.own_solver, model.state, model.slots
    spec = PassSpec(cast(PanelSolver, solver).solve_w, solver, residual=model.exact, mask=model.mask)
    if slots is None or not solver.carries_w:
        return spec
    before = slots.factor(state.w_slot) if state.w_slot >= 0 else None
    return spec._replace(before=before, after=slots.new_factor(state.next_slot))


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
    return Reduction(partial(process_panel_for_models, specs=tuple(specs)), add_each)


def sweep_keeping_w(tasks: PanelTasks, inputs: Delayed, spec: PassSpec) -> list[Delayed]:
    """Return a delayed (W, `Sums`, means of rows) for each panel; means that are not taken are empty."""
    return tasks.map(partial(_process_panel, spec=spec._replace(keep=True)), inputs)


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
    of_models = (inputs._replace(h=h) for h in (inputs.h, *inputs.more_h))
    return tuple(
        _process_panel(v, panel=panel, inputs=own, spec=spec)
        for own, spec in zip(of_models, specs, strict=True)
    )


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
    before = w_block if inputs.w is None else inputs.w[first:last]
    if spec.before is not None:
        before = spec.before.read(first, last)
    w, sums = process_block(masking.with_scale(v, scale), inputs.h, spec, before)
    w = scaling.multiply(w, spec.unit)
    if at_own_scale:
        check_factor(w)
        sums = sums._replace(num=scaling.multiply(sums.num, 1 / scale))
    if spec.after is not None:
        spec.after.write(first, w)
    means = NOTHING
    if spec.averages:
        totals = masked_summary.entry_totals(v)
        means, sums = totals.rows.astype(w.dtype), sums._replace(column_totals=totals.columns)
        if spec.means is not None:
            spec.means.write(first, means)
    return (w, sums, means) if spec.keep else sums


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


def process_block(v: Block, h: Array, spec: PassSpec, before: Array | None = None) -> tuple[Array, Sums]:
    """Return the W, (rows, k), and the sums of a pass over one block in memory."""
    if not isinstance(v, MaskedBlock):
        w = spec.solve_w(v, h, before)
        return w, _sums(v, w, h, spec)
    factor, total = None, None
    by_groups = v.mask.by_groups
    for rows, kept, held in holed.iter_batches(v, h) if by_groups else row_batches.iter_row_batches(v):
        w = _solve_batch(kept, h, spec, None if before is None else before[rows])
        sums = _sums(kept, w, h, spec)._replace(
            held_out_loss=spec.loss.loss(held, w, h), held_out_weight=float(held.row_weight.sum())
        )
        total = sums if total is None else total + sums
        factor = np.empty((v.shape[0], w.shape[1]), w.dtype) if factor is None else factor
        factor[rows] = w
    assert factor is not None
    assert total is not None
    return factor, total


def _solve_batch(v: Cells | HoledBlock, h: Array, spec: PassSpec, before: Array | None) -> Array:
    """Return the W of a batch of rows, (rows, k)."""
    if isinstance(v, HoledBlock):
        return spec.solve_w(v, h, before)
    pieces = v.split_rows(len(h))
    return np.concatenate(
        [spec.solve_w(piece, h, None if before is None else before[some]) for some, piece in pieces]
    )


def _sums(v: Block, w: Array, h: Array, spec: PassSpec) -> Sums:
    # cells have no other form of the residual, and it costs little
    exact = spec.residual or isinstance(v, Cells)
    listed = isinstance(v, Cells | HoledBlock)
    squares, ones = row_sums.component_norms(w, v.row_weight if listed else float(v.shape[1]))
    if spec.bare:
        rest = spec.loss.loss(v, w, h, final=True) if exact else np.nan
        return Sums(NOTHING, NOTHING, rest, w_sq_norm=squares, w_l1_norm=ones)
    return spec.loss.accumulate(v, w, h, exact)._replace(w_sq_norm=squares, w_l1_norm=ones)


def keep_w(v: Block, h: Array, w: Array | None) -> Array:
    """Return the W before: the `Weigher` that keeps W as it is."""
    assert w is not None
    return w
