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
from dataclasses import dataclass
from itertools import pairwise
from operator import add
from typing import Any, NamedTuple

import numpy as np
from dask import delayed
from dask.delayed import Delayed

from dask_nmf.cluster import client
from dask_nmf.execution.graphs.grid_blocks import Blocks, GridBlock, Span
from dask_nmf.execution.graphs.passes import add_up_each
from dask_nmf.execution.tasks.blas import one_blas_thread
from dask_nmf.execution.tasks.factor_store import FactorStore
from dask_nmf.kernels import double_precision, least_squares, row_sums
from dask_nmf.kernels.blocks import scaling
from dask_nmf.kernels.linalg import gram_matrices
from dask_nmf.kernels.row_sums import NOTHING, Sums
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
    """A pass for several models."""

    models: tuple[GridPassSpec, ...]
    scale: float  # a power of two that V is multiplied by


@dataclass(frozen=True)
class InUnits:
    """A stored factor in the user's units, read and written in the units of the fit."""

    place: FactorStore
    unit: float

    def read(self, first: int, last: int) -> Array:
        return scaling.multiply(self.place.read(first, last), 1 / self.unit)

    def write(self, first: int, w: Array) -> None:
        self.place.write(first, scaling.multiply(w, self.unit))


class ColumnResult(NamedTuple):
    """The loss and the norms that a column of blocks adds in a pass of a model."""

    loss: float  # its share of ‖V − W H‖²; without ‖V‖² unless it was taken entry by entry
    norms: Array  # Σ h_jt² and Σ h_jt, each times the weight of its column, (2, k)
    same: bool  # whether H at the start was the last one, not extrapolated


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

    There is one for each column of blocks. They are the second half of a pass that reads V twice.
    """
    shared = delayed(grid_pass, traverse=False)
    results = []
    for j, columns in enumerate(blocks.columns):
        sums = None
        for i in range(len(blocks.rows)):
            sums = delayed(_accumulate, pure=False)(sums, blocks.lazy_block(i, j), shared, None)
        results.append(delayed(_update_h, pure=False)(sums, columns, shared))
    return results


def single_read_pass(blocks: Blocks, grid_pass: GridPass) -> list[Delayed]:
    """Return the tasks of a pass that reads V once: those of `w_half_pass`, then those of `h_half_pass`."""
    shared = delayed(grid_pass, traverse=False)
    grams = _grams_of(blocks, shared)
    across = range(len(blocks.columns))
    rows: list[Delayed] = []
    sums: list[Any] = [None for _ in across]
    for i in range(len(blocks.rows)):
        row = [blocks.shared_block(i, j, rows[-1] if rows else None) for j in across]
        rows.append(_row(shared, grams, row))
        sums = [delayed(_accumulate, pure=False)(sums[j], row[j], shared, rows[-1]) for j in across]
    results = [
        delayed(_update_h, pure=False)(total, columns, shared)
        for total, columns in zip(sums, blocks.columns, strict=True)
    ]
    return rows + results


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
    sums = tuple(_sums_of(v, block, spec) for spec in grid_pass.models)
    client.announce_panel()
    return sums if above is None else tuple(map(add, above, sums))


def _sums_of(v: Block, block: GridBlock, spec: GridPassSpec) -> Sums:
    w, h = np.ascontiguousarray(spec.w_out.read(*block.rows)), spec.h_input.piece(block.columns)
    if spec.update_h is None:
        return Sums(NOTHING, NOTHING, spec.solver.loss(v, w, h))
    return spec.solver.accumulate(v, w, h, spec.exact)


def _update_h(sums: tuple[Sums, ...], columns: Span, grid_pass: GridPass) -> tuple[ColumnResult, ...]:
    """Solve for some columns of H and write them, for each model."""
    return tuple(_new_h(*each, columns) for each in zip(grid_pass.models, sums, strict=True))


def _new_h(spec: GridPassSpec, sums: Sums, columns: Span) -> ColumnResult:
    """Write some columns of the new H of a model, and return their share of its loss and norms."""
    h_input = spec.h_input.piece(columns)
    if spec.update_h is None:
        spec.h_out.write(columns[0], h_input.T)
        return ColumnResult(sums.residual, np.zeros((2, len(h_input))), True)
    h = spec.update_h(h_input, sums)
    spec.h_out.write(columns[0], h.T)
    loss = loss_of_h(0.0, sums, h_input, h)
    same = np.array_equal(h_input, spec.h_input._replace(before=None).piece(columns))
    return ColumnResult(loss, np.stack(row_sums.component_norms(h.T, sums.column_weight)), same)
