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
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from dask import delayed
from dask.delayed import Delayed

from dask_nmf.cluster import client
from dask_nmf.execution.graphs.passes import add_up
from dask_nmf.execution.graphs.reduction import NOTHING, aligned, heights
from dask_nmf.execution.tasks.blas import one_blas_thread
from dask_nmf.execution.tasks.factor_store import FactorStore
from dask_nmf.kernels import double_precision, least_squares, row_sums
from dask_nmf.kernels.blocks import scaling
from dask_nmf.kernels.linalg import gram_matrices
from dask_nmf.kernels.row_sums import Sums
from dask_nmf.planning.grid import GridPlan
from dask_nmf.solvers.hals import HALS
from dask_nmf.solvers.parts.penalties import divide_components
from dask_nmf.solvers.parts.squared_error import loss_of_h
from dask_nmf.solvers.parts.state import extrapolate
from dask_nmf.sources.matrix import Matrix
from dask_nmf.sources.reader import Reader
from dask_nmf.types import Array, Block

Span = tuple[int, int]  # first, and one after the last


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
    """The instructions of a pass: the solver, the factors that it begins with, and the stores of new ones."""

    solver: HALS
    given: ExtrapolatedH
    left: FactorStore  # store of the new W, by rows
    right: FactorStore  # store of the new Hᵀ, by columns of V
    update_h: Callable[[Array, Sums], Array] | None  # returns the new H; None: H stays as it is
    exact: bool = True  # whether the loss is taken entry by entry
    last: bool = False  # whether W is solved exactly, for the result
    scale: float = 1.0  # a power of two that V is multiplied by


@dataclass(frozen=True)
class InUnits:
    """A stored factor in the user's units, read and written in the units of the fit."""

    place: FactorStore
    unit: float

    def read(self, first: int, last: int) -> Array:
        return scaling.multiply(self.place.read(first, last), 1 / self.unit)

    def write(self, first: int, w: Array) -> None:
        self.place.write(first, scaling.multiply(w, self.unit))


class Piece(NamedTuple):
    """The loss and the norms that a column of blocks adds in a pass."""

    loss: float  # its share of ‖V − W H‖²; without ‖V‖² unless it was taken entry by entry
    norms: Array  # Σ h_jt² and Σ h_jt, each times the weight of its column, (2, k)
    same: bool  # whether H at the start was the last one, not extrapolated


@dataclass(frozen=True)
class Blocks:
    """V in the blocks of a grid, as nodes of one graph."""

    tiling: GridPlan
    reader: Delayed | None  # a delayed `Reader`, if tasks read V themselves
    array: list[list[Delayed]] | None  # the blocks, if V is a Dask array

    @classmethod
    def of(cls, matrix: Matrix, tiling: GridPlan) -> Blocks:
        """Return the blocks of a matrix, cut by a plan."""
        if matrix.reader.dask_chunks is None:
            return cls(tiling, delayed(matrix.reader, traverse=False), None)
        cut = matrix.reader.lazy(heights(tiling.rows), heights(tiling.columns))
        return cls(tiling, None, cut.to_delayed(optimize_graph=True).tolist())

    @property
    def rows(self) -> list[Span]:
        """The span of V of each row of blocks."""
        return list(pairwise(self.tiling.rows))

    @property
    def columns(self) -> list[Span]:
        """The span of V of each column of blocks."""
        return list(pairwise(self.tiling.columns))

    def loose(self, i: int, j: int) -> tuple[Any, ...]:
        """Return a block as arguments of the only task that needs it, which may read it: see `_loaded`."""
        block = None if self.array is None else self.array[i][j]
        return block, self.reader, self.rows[i], self.columns[j]

    def held(self, i: int, j: int, after: Delayed | None) -> tuple[Any, ...]:
        """Return a block as arguments of several tasks; it is read once, when ``after`` is done."""
        place = self.rows[i], self.columns[j]
        block = delayed(_read, pure=False)(self.loose(i, j), after)
        return block, None, *place


def _read(block: tuple[Any, ...], after: Any) -> Block:
    return load_block(*block)


def load_block(block: Block | None, reader: Reader | None, rows: Span, columns: Span) -> Block:
    return aligned(block if reader is None else reader[slice(*rows), slice(*columns)])


def write_h(place: FactorStore, columns: Sequence[int], make: Callable[[int, int], Array]) -> list[Delayed]:
    """Return tasks that write the pieces of an initial Hᵀ: ``make(first, last)`` returns (columns, k)."""
    shared = delayed(place, traverse=False)
    return [delayed(_write_h, pure=False)(shared, make, *span) for span in pairwise(columns)]


def _write_h(place: FactorStore, make: Callable[[int, int], Array], first: int, last: int) -> None:
    place.write(first, make(first, last))


def w_half_pass(blocks: Blocks, what: GridPassSpec) -> list[Delayed]:
    """Return tasks that write the new W and return its norms in each row of blocks, (2, k).

    They are the first half of a pass that reads V twice.
    """
    shared = delayed(what, traverse=False)
    gram = _gram_of(blocks, shared)
    across = range(len(blocks.columns))
    return [_row(shared, gram, [blocks.loose(i, j) for j in across]) for i in range(len(blocks.rows))]


def h_half_pass(blocks: Blocks, what: GridPassSpec) -> list[Delayed]:
    """Return tasks that write the new H and return a `Piece` of each column of blocks.

    They are the second half of a pass that reads V twice.
    """
    shared = delayed(what, traverse=False)
    found = []
    for j, columns in enumerate(blocks.columns):
        sums = None
        for i in range(len(blocks.rows)):
            sums = delayed(_learn, pure=False)(sums, *blocks.loose(i, j), shared, None)
        found.append(delayed(_update_h, pure=False)(sums, columns, shared))
    return found


def single_read_pass(blocks: Blocks, what: GridPassSpec) -> list[Delayed]:
    """Return the tasks of a pass that reads V once: those of `w_half_pass`, then those of `h_half_pass`."""
    shared = delayed(what, traverse=False)
    gram = _gram_of(blocks, shared)
    across = range(len(blocks.columns))
    rows: list[Delayed] = []
    sums: list[Any] = [None for _ in across]
    for i in range(len(blocks.rows)):
        held = [blocks.held(i, j, rows[-1] if rows else None) for j in across]
        rows.append(_row(shared, gram, held))
        sums = [delayed(_learn, pure=False)(sums[j], *held[j], shared, rows[-1]) for j in across]
    pieces = [
        delayed(_update_h, pure=False)(total, columns, shared)
        for total, columns in zip(sums, blocks.columns, strict=True)
    ]
    return rows + pieces


def _gram_of(blocks: Blocks, shared: Delayed) -> Delayed:
    return add_up([delayed(_gram, pure=False)(shared, columns) for columns in blocks.columns])


@one_blas_thread()
def _gram(what: GridPassSpec, columns: Span) -> Array:
    """Return h hᵀ of some columns, (k, k), float64."""
    h = what.given.piece(columns).astype(np.float64)
    return np.asarray(h @ h.T)


def _row(shared: Delayed, gram: Delayed, blocks: list[tuple[Any, ...]]) -> Delayed:
    parts = [delayed(_project, pure=False)(*block, shared) for block in blocks]
    rows, width = blocks[0][2], blocks[-1][3][1]
    return delayed(_weigh, pure=False)(add_up(parts), gram, rows, width, shared)


@one_blas_thread()
def _project(
    block: Block | None, reader: Reader | None, rows: Span, columns: Span, what: GridPassSpec
) -> Array:
    """Return v hᵀ of a block, (rows, k), float64."""
    v = scaling.with_scale(load_block(block, reader, rows, columns), what.scale)
    h = what.given.piece(columns)
    return (
        double_precision.product(v, h)
        if what.solver.in_float64
        else scaling.matmul(v, h.T).astype(np.float64)
    )


@one_blas_thread()
def _weigh(num: Array, gram: Array, rows: Span, width: int, what: GridPassSpec) -> Array:
    """Solve for W of some rows and write it; return its norms, as those of a `Piece`."""
    penalty, k = what.solver.penalty, len(gram)
    stored = what.given.h.read(0, 1).dtype
    dtype = np.float64 if what.last or what.solver.in_float64 else stored
    num = (num - penalty.left_l1 * width).astype(dtype)
    gram = gram_matrices.add_ridge(gram.astype(dtype), k, penalty.left * width)
    w = (
        least_squares.solve_exactly(num, gram)
        if what.last
        else least_squares.solve(num, gram, what.solver.tol)
    )
    w = w.astype(stored)
    what.left.write(rows[0], w)
    return np.stack(row_sums.component_norms(w, float(width)))


@one_blas_thread()
def _learn(
    above: Sums | None,
    block: Block | None,
    reader: Reader | None,
    rows: Span,
    columns: Span,
    what: GridPassSpec,
    written: Array | None,
) -> Sums:
    """Return the sums for some columns of H from a block, added to those of the blocks above it."""
    v = scaling.with_scale(load_block(block, reader, rows, columns), what.scale)
    w, h = np.ascontiguousarray(what.left.read(*rows)), what.given.piece(columns)
    if what.update_h is None:
        sums = Sums(NOTHING, NOTHING, what.solver.loss(v, w, h))
    else:
        sums = what.solver.accumulate(v, w, h, what.exact)
    client.announce_panel()
    return sums if above is None else above + sums


def _update_h(sums: Sums, columns: Span, what: GridPassSpec) -> Piece:
    """Solve for some columns of H and write them; return their `Piece`."""
    given = what.given.piece(columns)
    if what.update_h is None:
        what.right.write(columns[0], given.T)
        return Piece(sums.residual, np.zeros((2, len(given))), True)
    h = what.update_h(given, sums)
    what.right.write(columns[0], h.T)
    loss = loss_of_h(0.0, sums, given, h)
    same = np.array_equal(given, what.given._replace(before=None).piece(columns))
    return Piece(loss, np.stack(row_sums.component_norms(h.T, sums.column_weight)), same)
