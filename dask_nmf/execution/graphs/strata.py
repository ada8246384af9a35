"""The graph of one sweep of `SGD` over V. Nothing here computes.

V is cut into a grid of blocks. Blocks that share no rows and no columns are a *stratum*, and may be worked
on at the same time; a sweep is all strata, in a random order::

    columns   0   1   2
    rows 0  | a | c | b |      a stratum: the blocks a
         1  | b | a | c |
         2  | c | b | a |

A task takes a block with the rows of W and the columns of H that belong to it, and hands these on, changed,
to the next task in its row and in its column. There is no barrier between strata. The graph alone
ensures that the result is that of the blocks one after the other, whatever the number of workers.

Models that take the blocks in the same order share a sweep: a task uses its block for one after the other.

Source: Gemulla, Nijkamp, Haas & Sismanis, Large-scale matrix factorization with distributed stochastic
gradient descent, 2011.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from dask import delayed
from dask.delayed import Delayed

from dask_nmf import rng
from dask_nmf.cluster import client
from dask_nmf.execution.graphs.passes import block_of
from dask_nmf.execution.graphs.reduction import PassInputs, item
from dask_nmf.execution.tasks.blas import one_blas_thread
from dask_nmf.execution.tasks.factor_store import FactorStore
from dask_nmf.execution.tasks.panel_reader import aligned
from dask_nmf.kernels import gradient, least_squares, row_sums
from dask_nmf.kernels.blocks import masking, row_batches
from dask_nmf.kernels.blocks.masked import Cells
from dask_nmf.kernels.blocks.masking import EntryMask, MaskedBlock
from dask_nmf.kernels.gradient import SGDOptions
from dask_nmf.solvers.sgd import SweepSums
from dask_nmf.sources.reader import Reader
from dask_nmf.types import Array, Block

if TYPE_CHECKING:  # workers need it only for a V that is a Dask array
    import dask.array as da


class BlockGrid(NamedTuple):
    """The edges of blocks of V, which is cut along rows and columns."""

    rows: Sequence[int]  # edges of the rows of blocks
    columns: Sequence[int]
    tiled: bool  # whether V is stored so that a block can be read by itself

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.rows) - 1, len(self.columns) - 1


@dataclass(frozen=True)
class BlockSource:
    """The source from which a task has its block of V."""

    reader: Reader | None  # None: Dask has the rows of blocks
    mask: EntryMask

    def read(self, rows: slice, columns: slice) -> Block:
        """Read a block, and return it as `with_mask` does."""
        assert self.reader is not None
        return self.with_mask(self.reader[rows, columns], rows, columns)

    def with_mask(self, block: Block, rows: slice, columns: slice) -> Block:
        """Return a block as `MaskedBlock`, unless all entries count alike."""
        block = aligned(block)
        if self.mask.is_uniform:
            return block
        numbers = np.arange(rows.start, rows.stop)
        return MaskedBlock(block, None, numbers, self.mask, first_column=columns.start)


class ModelSteps(NamedTuple):
    """The steps of one model in a sweep, and the stores of its W."""

    options: SGDOptions
    w_in: FactorStore  # store of the W that the sweep begins with
    w_out: FactorStore  # store of the new W


class SweepSpec(NamedTuple):
    """The instructions of a sweep: the steps of its models, and the random order that they share."""

    models: tuple[ModelSteps, ...]
    seed: int
    epoch: int


class _Sweep(NamedTuple):
    """The arguments that all tasks of a sweep share."""

    source: BlockSource
    grid: BlockGrid
    spec: SweepSpec


class Visit(NamedTuple):
    """A block of the grid in the order of a sweep."""

    row: int
    column: int
    first_in_row: bool  # whether it is the first of its row of blocks: W is read
    last_in_row: bool  # whether it is the last of its row: W is written


def schedule(grid: BlockGrid, seed: int, epoch: int) -> list[Visit]:
    """Return the visits of all blocks in order.

    Rows of blocks come in groups of as many as there are columns of blocks, so that few are in memory at
    once. The order of groups, and of strata in a group, is random.
    """
    height, width = grid.shape
    groups = np.arange(-(-height // width))
    visits = []
    for group in groups[np.argsort(_numbers(seed, epoch, groups))]:
        strata = group * width + np.arange(width)
        order = strata[np.argsort(_numbers(seed, epoch, len(groups) + strata))]
        for place, stratum in enumerate(order.tolist()):  # each row of the group has one block in each
            for column in range(width):
                row = int(group) * width + (column + stratum) % width
                if row < height:
                    visits.append(Visit(row, column, place == 0, place == width - 1))
    return visits


def _numbers(seed: int, epoch: int, rows: Array) -> Array:
    return rng.uniform_at(seed, rng.Stream.STRATA, rows, np.array([epoch]))


def sweep(
    array: da.Array | None, source: BlockSource, grid: BlockGrid, inputs: Delayed, spec: SweepSpec
) -> Delayed:
    """Return a delayed list of the `SweepSums` of each model of a sweep, which visits each block once.

    Parameters
    ----------
    array : V as Dask has it, with one block for each row of blocks; None if tasks read it from the source.
    source : where tasks read V. If it cannot read single blocks, rows of blocks are read and divided, at most
        two groups of them at a time.
    inputs : a delayed `PassInputs`, with the H that the sweep begins with, (k + 1, n), for each model.
    """
    height, width = grid.shape
    shared = delayed(_Sweep(source, grid, spec), traverse=False)
    rows = [None] * height if array is None else list(array.to_delayed(optimize_graph=True).ravel())
    left: list[Any] = [None] * height
    right: list[Any] = [None] * width
    parts: dict[int, Delayed] = {}
    closed: list[Any] = []  # a task for each row of blocks that is done, in order
    for visit in schedule(grid, spec.seed, spec.epoch):
        i, j = visit.row, visit.column
        if not grid.tiled and visit.first_in_row:
            earlier = closed[-2 * width] if len(closed) >= 2 * width else None
            parts[i] = delayed(_divided, pure=False)(rows[i], shared, i, earlier)
        block = None if grid.tiled else item(parts[i], j)
        done = delayed(_visit, pure=False)(block, left[i], right[j], inputs, visit, shared)
        left[i], right[j] = item(done, 0), item(done, 1)
        if visit.last_in_row:
            closed.append(left[i])
    return delayed(_collected, pure=False)(right, closed)


def _divided(panel: Block | None, shared: _Sweep, row: int, earlier: Any) -> list[Block]:
    """Return the blocks of a row; ``earlier`` is a task that must end before there is memory for it."""
    grid, source = shared.grid, shared.source
    box = slice(*grid.rows[row : row + 2]), slice(0, grid.columns[-1])
    panel = source.read(*box) if panel is None else source.with_mask(panel, *box)
    return [block_of(panel, first, last) for first, last in pairwise(grid.columns)]


class _Right(NamedTuple):
    """Columns of H of a model between two tasks, with the totals of the blocks visited so far."""

    factor: Array  # (columns, k + 1)
    totals: Array  # residual, penalty, held_out_loss, held_out_weight


@one_blas_thread()
def _visit(
    block: Block | None,
    left: list[Array] | None,
    right: list[_Right] | None,
    inputs: PassInputs,
    visit: Visit,
    shared: _Sweep,
) -> tuple[list[Array] | None, list[_Right]]:
    """Take the steps of all models in one block.

    Return the changed rows of W, None if they are written, and columns of H, each for all models.
    """
    (source, grid, spec) = shared
    first, last = grid.rows[visit.row], grid.rows[visit.row + 1]
    across = slice(grid.columns[visit.column], grid.columns[visit.column + 1])
    if block is None:
        block = source.read(slice(first, last), across)
    block = masking.with_scale(block, inputs.scale)
    order = np.argsort(
        rng.uniform_at(spec.seed, rng.Stream.ROW_ORDER, np.arange(first, last), np.array([spec.epoch]))
    )
    if right is None:
        right = [_Right(h[:, across].T, np.zeros(4)) for h in (inputs.h, *inputs.more_h)]
    if left is None:
        left = [model.w_in.read(first, last) for model in spec.models]
    left = [np.array(w, order="C") for w in left]  # the result of a task may be read-only
    right = [
        _after_steps(block, w, before, order, model.options)
        for model, w, before in zip(spec.models, left, right, strict=True)
    ]
    if not visit.last_in_row:
        return left, right
    for model, w in zip(spec.models, left, strict=True):
        model.w_out.write(first, w)
    client.announce_panel()
    return None, right


def _after_steps(block: Block, w: Array, right: _Right, order: Array, options: SGDOptions) -> _Right:
    """Take the steps of a model in a block, changing w in place, and return its columns of H."""
    h = np.array(right.factor, order="C")
    totals = right.totals + _steps(block, w, h, order, options)
    return _Right(h, totals)


def _steps(block: Block, w: Array, h: Array, order: Array, options: SGDOptions) -> Array:
    """Take the steps of all minibatches of a block, changing w and h in place.

    Return residual, penalty, held_out_loss and held_out_weight.
    """
    on_w, on_h = _cost(w, options.w_l2, options.w_l1), _cost(h, options.h_l2, options.h_l1)
    if not isinstance(block, MaskedBlock):
        penalty = len(h) * on_w.sum() + len(w) * on_h.sum()
        return np.array([gradient.descend_rows(block, w, h, order, options), penalty, 0.0, 0.0])
    totals = np.zeros(4)
    for cells, held, rows in _strips(block, order):
        penalty = cells.row_weight @ on_w[rows] + cells.column_weight @ on_h
        missed = row_sums.residual(held, w[rows, :-1], h[:, :-1].T), float(held.row_weight.sum())
        within = np.arange(len(rows))
        part = w[rows]
        totals += gradient.descend_cells(cells, part, h, within, options), penalty, *missed
        w[rows] = part
    return totals


def _cost(factor: Array, ridge: float, lasso: float) -> Array:
    """Return the penalty of each row of a factor (with its extra column) for one entry of V, (rows,)."""
    squares, ones = least_squares.row_norms(factor[:, :-1])
    return np.asarray(ridge * squares + 2 * lasso * ones)


def _strips(block: MaskedBlock, order: Array) -> Iterator[tuple[Cells, Cells, Array]]:
    """Yield cells, held-out cells and row numbers of batches of a block, its rows in the given order."""
    shuffled = block[order]
    for rows, cells, held in row_batches.iter_row_batches(shuffled, even=True):
        yield cells, held, order[rows]


def _collected(right: list[list[_Right]], closed: list[Any]) -> list[SweepSums]:
    """Return H and the sums of each model once all of its W is written."""
    return [_swept(columns) for columns in zip(*right, strict=True)]


def _swept(columns: Sequence[_Right]) -> SweepSums:
    factor = np.concatenate([part.factor for part in columns])
    totals = np.sum([part.totals for part in columns], axis=0)
    return SweepSums(np.ascontiguousarray(factor.T), *totals.tolist())
