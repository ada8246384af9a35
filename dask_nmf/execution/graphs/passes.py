"""The graphs of a pass over V. Nothing here computes: each function returns delayed sums or blocks.

A pass is one task a panel (load, look, return what H needs) and a tree that adds up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial, reduce
from operator import add
from typing import Any, NamedTuple, Protocol

import dask.array as da
import numpy as np
from dask.delayed import Delayed
from dask.sizeof import sizeof

from dask_nmf.errors import DataError
from dask_nmf.execution.graphs.reduction import NOTHING, PassInputs, aligned, map_panels, reduce_tree
from dask_nmf.execution.tasks.factor_store import FactorStore
from dask_nmf.kernels import least_squares
from dask_nmf.kernels.blocks import masking, scaling
from dask_nmf.kernels.blocks.masked import Cells
from dask_nmf.kernels.blocks.masking import Observed, Rule
from dask_nmf.kernels.least_squares import Sums
from dask_nmf.kernels.summary import row_sample
from dask_nmf.kernels.summary.row_sample import Draw, Summary
from dask_nmf.types import Array, Block


class Weigher(Protocol):
    """How the W of a panel comes from (v, h, w before)."""

    def __call__(self, v: Block, h: Array, w: Array | None) -> Array: ...


class Loss(Protocol):
    """What is to be small, and what H learns from a panel to make it so: a `Solver` has it."""

    def learn(self, v: Block, w: Array, h: Array, exact: bool) -> Sums: ...

    def error(self, v: Block, w: Array, h: Array, final: bool = False) -> float: ...


class PassSpec(NamedTuple):
    """What a pass does with each panel."""

    weigh: Weigher
    loss: Loss
    before: FactorStore | None = None  # the W that is carried in
    after: FactorStore | None = None  # where W goes
    keep: bool = False  # W is returned beside the sums
    residual: bool = False  # the loss is taken entry by entry
    check: bool = False  # raise on the first entry that is negative or not finite
    bare: bool = False  # of the sums, no more than the residual
    averages: bool = False  # the means of the rows are taken, and `Sums.columns`
    means: FactorStore | None = None  # where those of the rows go
    unit: float = 1.0  # by which the W that is kept or goes away is multiplied
    anew: Callable[[PassSpec, float], PassSpec] | None = None  # the same, for V at the scale of a panel


def summarize(panels: da.Array, given: Delayed, draw: Draw) -> Delayed:
    """The first read of V: a delayed `Summary`."""
    parts = map_panels(panels, _summarize_panel, given=given, draw=draw)
    return reduce_tree(parts, partial(row_sample.merge, draw=draw))


def sweep(panels: da.Array, given: Delayed, weighing: PassSpec, held: da.Array | None = None) -> Delayed:
    """One pass: a delayed `Sums`. ``given`` is a delayed `Given`.

    ``held`` has the factor that panels hold, (rows, k), with one block a panel, where it is in such blocks.
    """
    sums = map_panels(panels, _process_panel, given, *(() if held is None else (held,)), weighing=weighing)
    return reduce_tree(sums, _add)


def sweep_keeping_w(panels: da.Array, given: Delayed, weighing: PassSpec) -> list[Delayed]:
    """One pass that keeps W: a delayed (W, `Sums`, means of rows, if taken) for each panel."""
    return map_panels(panels, _process_panel, given=given, weighing=weighing._replace(keep=True))


def mask_panels(panels: da.Array, weights: da.Array | None, edges: Sequence[int], rule: Rule) -> da.Array:
    """Panels of `Observed` blocks."""
    parts = [panels] if weights is None else [panels, weights]
    return da.map_blocks(
        _masked,
        *parts,
        edges=tuple(edges),
        rule=rule,
        dtype=panels.dtype,
        meta=np.empty((0, 0), panels.dtype),
    )


@sizeof.register(Observed)
def _bytes(block: Observed) -> int:
    """Return the bytes of a block, which Dask would count as an object without contents."""
    return int(sizeof(block.v) + sizeof(block.weights) + sizeof(block.rows))


def _masked(
    v: Block,
    *weights: Block,
    edges: Sequence[int],
    rule: Rule,
    block_id: tuple[int, ...],
) -> Observed:
    first = edges[block_id[0]]
    rows = np.arange(first, first + v.shape[0])
    return Observed(aligned(v), aligned(weights[0]) if weights else None, rows, rule)


def block_of(panel: Block, first: int, last: int) -> Block:
    """Some columns of a panel."""
    if not isinstance(panel, Observed):
        return panel[:, first:last]
    assert panel.weights is None
    return replace(panel, v=panel.v[:, first:last], first_column=first)


def add_up(parts: Sequence[Delayed]) -> Delayed:
    """Sums of sums, by the same tree in every pass: the order of additions is part of the result."""
    return reduce_tree(parts, _add)


def _add(parts: list[Any]) -> Any:
    return reduce(add, parts)


def _summarize_panel(v: Block, panel: int, given: PassInputs, draw: Draw) -> Summary:
    return row_sample.summarise(v, given.edges[panel], draw)


def _process_panel(
    v: Block, held: Array | None = None, *, panel: int, given: PassInputs, weighing: PassSpec
) -> Sums | tuple[Array, Sums, Array]:
    first, last = given.edges[panel], given.edges[panel + 1]
    scale, alone = given.scale, weighing.anew is not None
    own = _check(v, first) if weighing.check else scale
    if weighing.anew is not None:
        scale, weighing = own, weighing.anew(weighing, own)
    before = held if given.left is None else given.left[first:last]
    if weighing.before is not None:
        before = weighing.before.read(first, last)
    w, sums = process_block(masking.at_scale(v, scale), given.h, weighing, before)
    w = scaling.times(w, weighing.unit)
    if alone:
        check_factor(w)
        sums = sums._replace(num=scaling.times(sums.num, 1 / scale))
    if weighing.after is not None:
        weighing.after.write(first, w)
    means = NOTHING
    if weighing.averages:
        found = masking.total(v)
        means, sums = found.rows.astype(w.dtype), sums._replace(column_totals=found.columns)
        if weighing.means is not None:
            weighing.means.write(first, means)
    return (w, sums, means) if weighing.keep else sums


def _check(v: Block, first: int) -> float:
    """Refuse a panel with an entry that no NMF takes, or return its own scale."""
    found = masking.measure(v)
    if found.invalid is not None:
        raise found.invalid.at(first)
    mass = float(np.sum(np.broadcast_to(found.column_weight, v.shape[1])))
    return scaling.scale_of(found.total / mass if mass else 0.0, v.dtype)


def as_it_was(weighing: PassSpec, scale: float) -> PassSpec:
    """The same at the scale of any panel: the sums are told as those of V all the same."""
    return weighing


def check_factor(w: Array) -> None:
    """Refuse a W, (rows, k), that its dtype does not hold."""
    if not np.isfinite(w).all():
        raise DataError(
            f"W for this V and H is beyond {w.dtype}; multiply V by a number that brings it near the V "
            "that H is of"
        )


def process_block(v: Block, h: Array, weighing: PassSpec, before: Array | None = None) -> tuple[Array, Sums]:
    """A pass over one block in memory: its W and its sums."""
    if not isinstance(v, Observed):
        w = weighing.weigh(v, h, before)
        return w, _sums(v, w, h, weighing)
    parts, total = [], None
    for rows, cells, held in masking.strips(v):
        first = None if before is None else before[rows]
        found = [
            weighing.weigh(piece, h, None if first is None else first[some])
            for some, piece in cells.split_rows(len(h))
        ]
        w = np.concatenate(found)
        sums = _sums(cells, w, h, weighing)._replace(
            held_out_loss=weighing.loss.error(held, w, h), held_out_weight=float(held.row_weight.sum())
        )
        total = sums if total is None else total + sums
        parts.append(w)
    assert total is not None
    return np.concatenate(parts), total


def _sums(v: Block, w: Array, h: Array, weighing: PassSpec) -> Sums:
    exact = weighing.residual or isinstance(
        v, Cells
    )  # their residual costs little, and no other form is at hand
    squares, ones = least_squares.component_norms(
        w, v.row_weight if isinstance(v, Cells) else float(v.shape[1])
    )
    if weighing.bare:
        rest = weighing.loss.error(v, w, h, final=True) if exact else np.nan
        return Sums(NOTHING, NOTHING, rest, w_sq_norm=squares, w_l1_norm=ones)
    return weighing.loss.learn(v, w, h, exact)._replace(w_sq_norm=squares, w_l1_norm=ones)


def keep_w(v: Block, h: Array, w: Array | None) -> Array:
    """The `Weigher` that keeps the W it is given."""
    assert w is not None
    return w
