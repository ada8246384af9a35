"""The graphs of a pass over V in a grid of blocks. Nothing here computes.

For blocks V_ij, pieces of columns h_j of H and pieces of rows w_i of W, a pass of `HALS` is::

    A_i = Σ_j V_ij h_jᵀ, G = Σ_j h_j h_jᵀ        w_i from A_i and G
    N_j = Σ_i w_iᵀ V_ij, C = Σ_i w_iᵀ w_i        h_j from N_j and C

The second line needs all of w_i, so V_ij is used twice. If a row of blocks fits in memory, it is read once:
each block stays in the memory of the worker that read it until its second use, and no block is read before
the W of the row above is solved. Otherwise V is read twice, first by rows and then by columns, and a task
holds no more than its block.

Pieces of W and H are in files that all workers reach (see `FactorStore`). Tasks pass on A_i, N_j and the
notice that a piece is written. N_j is summed down its column, row by row, so that few partial sums are in
memory and the order of additions does not depend on the workers.

A pass may be for several models. A task then uses its block for one model after the other, and returns a
tuple with a part for each; the parts of a model are those of a pass for it alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from operator import add
from typing import Any, NamedTuple

import numpy as np
from dask import delayed
from dask.delayed import Delayed

from dask_nmf.cluster import client
from dask_nmf.execution.graphs.grid_blocks import Blocks, GridBlock, Span
from dask_nmf.execution.graphs.passes import add_up_each
from dask_nmf.execution.graphs.reduction import item
from dask_nmf.execution.tasks.blas import one_blas_thread
from dask_nmf.execution.tasks.factor_store import FactorStore
from dask_nmf.kernels import double_precision, least_squares, row_sums
from dask_nmf.kernels.blocks import scaling
from dask_nmf.kernels.linalg import gram_matrices
from dask_nmf.kernels.row_sums import NOTHING, Sums
from dask_nmf.kernels.summary.residual_loops import largest
from dask_nmf.kernels.summary.residual_sums import Places, Residuals, sums_with_rows
from dask_nmf.solvers.hals import HALS
from dask_nmf.solvers.parts.penalties import divide_components
from dask_nmf.solvers.parts.squared_error import loss_of_h
from dask_nmf.solvers.parts.state import extrapolate
from dask_nmf.types import Array, Block


class ExtrapolatedH(NamedTuple):
    """The H that a pass begins with: the last one, extrapolated if there is one before it."""

    h: FactorStore  # Hᵀ, by columns of V
    before: FactorStore | None = None
    beta: float = 0.0
    scales: tuple[float, ...] = ()  # divisors of the components of H; (): all 1
    before_scales: tuple[float, ...] = ()  # divisors for ``before``

    def piece(self, columns: Span) -> Array:
        """Return some columns, (k, columns)."""
        h = _scaled(self.h.read(*columns).T, self.scales)
        if self.before is None:
            return h
        before = _scaled(self.before.read(*columns).T, self.before_scales)
        return np.ascontiguousarray(extrapolate(h, before, self.beta))


def _scaled(h: Array, scales: tuple[float, ...]) -> Array:
    return np.ascontiguousarray(divide_components(h, np.array(scales)) if scales else h)


class GridPassSpec(NamedTuple):
    """The instructions of a pass for a model: its solver, its first factors, and stores of new ones."""

    solver: HALS
    h_input: ExtrapolatedH
    w_out: FactorStore  # store of the new W, by rows
    h_out: FactorStore  # store of the new Hᵀ, by columns of V
    update_h: Callable[[Array, Sums], Array] | None  # returns the new H; None: H stays as it is
    exact: bool = True  # whether the loss is taken entry by entry
    last: bool = False  # whether W is solved exactly, for the result


class GridPass(NamedTuple):
    """A pass for several models, or for one and its residuals."""

    models: tuple[GridPassSpec, ...]
    scale: float  # a power of two that V is multiplied by
    places: Places | None = None  # the blocks by which losses are summed up; None: they are not


class ColumnResult(NamedTuple):
    """The loss and the norms that a column of blocks adds in a pass of a model."""

    loss: float  # its share of ‖V − W H‖²; without ‖V‖² unless it was taken entry by entry
    norms: Array  # Σ h_jt² and Σ h_jt, each times the weight of its column, (2, k)
    same: bool  # whether H at the start was the last one, not extrapolated
    residuals: Residuals | None = None  # in these columns, if losses are summed up


def write_h(place: FactorStore, columns: Sequence[int], make: Callable[[int, int], Array]) -> list[Delayed]:
    """Return tasks that write the pieces of an initial Hᵀ: ``make(first, last)`` returns (columns, k)."""
    shared = delayed(place, traverse=False)
    return [delayed(_write_h, pure=False)(shared, make, *span) for span in pairwise(columns)]


def _write_h(place: FactorStore, make: Callable[[int, int], Array], first: int, last: int) -> None:
    place.write(first, make(first, last))


def w_half_pass(blocks: Blocks, grid_pass: GridPass) -> list[Delayed]:
    """Return tasks that write the new W and return its norms, (2, k) for each model.

    There is a task for each row of blocks. They are the first half of a pass that reads V twice.
    """
    shared = delayed(grid_pass, traverse=False)
    grams = _grams_of(blocks, shared)
    across = range(len(blocks.columns))
    return [_row(shared, grams, [blocks.lazy_block(i, j) for j in across]) for i in range(len(blocks.rows))]


def h_half_pass(blocks: Blocks, grid_pass: GridPass) -> list[Delayed]:
    """Return tasks that write the new H and return a `ColumnResult` for each model.

    There is one for each column of blocks, and, if losses are summed up, one more for each row of blocks that
    returns the worst rows, (3, rows). They are the second half of a pass that reads V twice.
    """
    shared, half = delayed(grid_pass, traverse=False), _HalfPass(blocks, grid_pass)
    for j in range(len(blocks.columns)):
        for i in range(len(blocks.rows)):
            half.add(i, j, blocks.lazy_block(i, j), shared, None)
    return half.results(shared)


def single_read_pass(blocks: Blocks, grid_pass: GridPass) -> list[Delayed]:
    """Return the tasks of a pass that reads V once: those of `w_half_pass`, then those of `h_half_pass`."""
    shared, half = delayed(grid_pass, traverse=False), _HalfPass(blocks, grid_pass)
    grams = _grams_of(blocks, shared)
    across = range(len(blocks.columns))
    rows: list[Delayed] = []
    for i in range(len(blocks.rows)):
        row = [blocks.shared_block(i, j, rows[-1] if rows else None) for j in across]
        rows.append(_row(shared, grams, row))
        for j in across:
            half.add(i, j, row[j], shared, rows[-1])
    return rows + half.results(shared)


class _HalfPass:
    """The sums down the columns of blocks, and of losses along their rows, as nodes of a graph."""

    def __init__(self, blocks: Blocks, grid_pass: GridPass) -> None:
        self.blocks, self.sums_up = blocks, grid_pass.places is not None
        self.sums: list[Any] = [None] * len(blocks.columns)
        self.lost: list[Any] = [None] * len(blocks.rows)

    def add(self, i: int, j: int, block: GridBlock, shared: Delayed, written: Any) -> None:
        """Add the sums of a block; see `_accumulate`."""
        if not self.sums_up:
            self.sums[j] = delayed(_accumulate, pure=False)(self.sums[j], block, shared, written)
            return
        both = delayed(_accumulate_with_rows, pure=False)(self.sums[j], block, shared, written)
        self.sums[j] = item(both, 0)
        self.lost[i] = delayed(_added, pure=False)(self.lost[i], item(both, 1))

    def results(self, shared: Delayed) -> list[Delayed]:
        """Return the tasks that end the half pass: see `h_half_pass`."""
        update, worst = delayed(_update_h, pure=False), delayed(_worst, pure=False)
        parts = zip(self.sums, self.blocks.columns, strict=True)
        ends = [update(sums, columns, shared) for sums, columns in parts]
        if not self.sums_up:
            return ends
        return ends + [worst(lost, rows) for lost, rows in zip(self.lost, self.blocks.rows, strict=True)]


def _added(before: Array | None, found: Array) -> Array:
    """Return the losses and sizes of rows, (2, rows), with those of one more block."""
    return found if before is None else before + found


def _worst(lost: Array, rows: Span) -> Array:
    """Return the worst of some rows, (3, rows), from their losses and sizes, (2, rows)."""
    return largest((np.arange(*rows), *lost))


def _grams_of(blocks: Blocks, shared: Delayed) -> Delayed:
    return add_up_each([delayed(_grams, pure=False)(shared, columns) for columns in blocks.columns])


@one_blas_thread()
def _grams(grid_pass: GridPass, columns: Span) -> tuple[Array, ...]:
    """Return h hᵀ of some columns for each model, (k, k), float64."""
    pieces = (spec.h_input.piece(columns).astype(np.float64) for spec in grid_pass.models)
    return tuple(np.asarray(h @ h.T) for h in pieces)


def _row(shared: Delayed, grams: Delayed, blocks: list[GridBlock]) -> Delayed:
    products = add_up_each([delayed(_project, pure=False)(block, shared) for block in blocks])
    return delayed(_solve_w, pure=False)(products, grams, blocks[0].rows, blocks[-1].columns[1], shared)


@one_blas_thread()
def _project(block: GridBlock, grid_pass: GridPass) -> tuple[Array, ...]:
    """Return v hᵀ of a block for each model, (rows, k), float64."""
    v = scaling.with_scale(block.load(), grid_pass.scale)
    return tuple(_projection(v, spec.h_input.piece(block.columns), spec.solver) for spec in grid_pass.models)


def _projection(v: Block, h: Array, solver: HALS) -> Array:
    if solver.in_float64:
        return double_precision.product(v, h)
    return np.asarray(scaling.matmul(v, h.T).astype(np.float64))


@one_blas_thread()
def _solve_w(
    products: tuple[Array, ...], grams: tuple[Array, ...], rows: Span, width: int, grid_pass: GridPass
) -> tuple[Array, ...]:
    """Solve for W of some rows and write it, for each model; return its norms, as in `ColumnResult`."""
    norms = []
    for spec, product, gram in zip(grid_pass.models, products, grams, strict=True):
        w = _w_of(product, gram, width, spec)
        spec.w_out.write(rows[0], w)
        norms.append(np.stack(row_sums.component_norms(w, float(width))))
    return tuple(norms)


def _w_of(product: Array, gram: Array, width: int, spec: GridPassSpec) -> Array:
    """Return W of some rows, (rows, k), from V Hᵀ of these rows and H Hᵀ."""
    penalty, k = spec.solver.penalty, len(gram)
    stored = spec.h_input.h.read(0, 1).dtype
    dtype = np.float64 if spec.last or spec.solver.in_float64 else stored
    num = (product - penalty.left_l1 * width).astype(dtype)
    gram = gram_matrices.add_ridge(gram.astype(dtype), k, penalty.left * width)
    w = (
        least_squares.solve_exactly(num, gram)
        if spec.last
        else least_squares.solve(num, gram, spec.solver.tol)
    )
    return np.asarray(w.astype(stored))


@one_blas_thread()
def _accumulate(
    above: tuple[Sums, ...] | None, block: GridBlock, grid_pass: GridPass, written: Any
) -> tuple[Sums, ...]:
    """Return the sums for some columns of H from a block, for each model, added to those above it.

    ``written`` is the task that wrote the W of the rows of the block, if it is in the same graph.
    """
    v = scaling.with_scale(block.load(), grid_pass.scale)
    models = grid_pass.models
    sums = tuple(spec.solver.accumulate(v, *_factors_of(block, spec), spec.exact) for spec in models)
    client.announce_panel()
    return sums if above is None else tuple(map(add, above, sums))


@one_blas_thread()
def _accumulate_with_rows(
    above: tuple[Sums, ...] | None, block: GridBlock, grid_pass: GridPass, written: Any
) -> tuple[tuple[Sums, ...], Array]:
    """Return what `_accumulate` does, with residuals, and the losses and sizes of the rows, (2, rows)."""
    assert grid_pass.places is not None
    (spec,), v = grid_pass.models, scaling.with_scale(block.load(), grid_pass.scale)
    (w, h), across = _factors_of(block, spec), grid_pass.places.of_columns(*block.columns)
    found, lost = sums_with_rows(v, w, h, across, np.arange(*block.rows))
    if spec.update_h is None:
        sums = Sums(NOTHING, NOTHING, found.loss, residuals=found)
    else:
        sums = spec.solver.accumulate(v, w, h, False)._replace(residual=found.loss, residuals=found)
    client.announce_panel()
    return (sums if above is None else above[0] + sums,), lost


def _factors_of(block: GridBlock, spec: GridPassSpec) -> tuple[Array, Array]:
    """Return the new W of the rows of a block, (rows, k), and the last H of its columns, (k, columns)."""
    return np.ascontiguousarray(spec.w_out.read(*block.rows)), spec.h_input.piece(block.columns)


def _update_h(sums: tuple[Sums, ...], columns: Span, grid_pass: GridPass) -> tuple[ColumnResult, ...]:
    """Solve for some columns of H and write them, for each model."""
    parts = zip(grid_pass.models, sums, strict=True)
    return tuple(_new_h(spec, own, columns, grid_pass.places) for spec, own in parts)


def _new_h(spec: GridPassSpec, sums: Sums, columns: Span, places: Places | None) -> ColumnResult:
    """Write some columns of the new H of a model, and return their share of its loss and norms."""
    h_input, found = spec.h_input.piece(columns), None
    if places is not None:
        found = sums.residuals.finish(places.of_columns(*columns), h_input)
    if spec.update_h is None:
        spec.h_out.write(columns[0], h_input.T)
        return ColumnResult(sums.residual, np.zeros((2, len(h_input))), True, found)
    h = spec.update_h(h_input, sums)
    spec.h_out.write(columns[0], h.T)
    loss = loss_of_h(0.0, sums, h_input, h)
    same = np.array_equal(h_input, spec.h_input._replace(before=None).piece(columns))
    return ColumnResult(loss, np.stack(row_sums.component_norms(h.T, sums.column_weight)), same, found)
