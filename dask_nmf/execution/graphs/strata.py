"""One sweep of `SGD` over V as a graph. Nothing here computes.

V is cut into a grid of blocks. Blocks that share no rows and no columns are a *stratum*, and may be worked
on at the same time; a sweep is all strata, in a random order::

    columns   0   1   2
    rows 0  | a | c | b |      a stratum: the blocks a
         1  | b | a | c |
         2  | c | b | a |

A task takes a block with the rows of W and the columns of H that belong to it, and hands these on, changed,
to the next task in its row and in its column. There is no barrier between strata: the graph alone says that
the result is that of the blocks one after the other, whatever the number of workers.

Source: Gemulla, Nijkamp, Haas & Sismanis, Large-scale matrix factorization with distributed stochastic
gradient descent, 2011.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import dask.array as da
import numpy as np
from dask import delayed
from dask.delayed import Delayed

from dask_nmf import rng
from dask_nmf.cluster import client
from dask_nmf.execution.graphs.passes import block_of
from dask_nmf.execution.graphs.reduction import PassInputs, aligned, item
from dask_nmf.execution.tasks.blas import one_blas_thread
from dask_nmf.execution.tasks.factor_store import FactorStore
from dask_nmf.kernels import gradient, least_squares, row_sums
from dask_nmf.kernels.blocks import masking, row_batches
from dask_nmf.kernels.blocks.masked import Cells
from dask_nmf.kernels.blocks.masking import EntryMask, MaskedBlock
from dask_nmf.kernels.gradient import SGDOptions
from dask_nmf.solvers.sgd import Swept
from dask_nmf.sources.reader import Reader
from dask_nmf.types import Array, Block


class BlockGrid(NamedTuple):
    """V cut both ways."""

    rows: Sequence[int]  # edges
    columns: Sequence[int]
    tiled: bool  # V is stored so that a block can be read by itself

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.rows) - 1, len(self.columns) - 1


@dataclass(frozen=True)
class BlockSource:
    """Where V is read from, block by block, inside of the task that works on it."""

    reader: Reader
    rule: EntryMask

    def read(self, rows: slice, columns: slice) -> Block:
        """A block, as `passes.observe` gives them."""
        block = aligned(self.reader[rows, columns])
        if self.rule.is_uniform:
            return block
        numbers = np.arange(rows.start, rows.stop)
        return MaskedBlock(block, None, numbers, self.rule, first_column=columns.start)


class SweepSpec(NamedTuple):
    """What a sweep does, but for V and H."""

    how: SGDOptions
    seed: int
    epoch: int
    before: FactorStore  # where W is
    after: FactorStore  # where it goes


class Visit(NamedTuple):
    """One block in a sweep."""

    row: int
    column: int
    opens: bool  # the first one of its row: W is read
    closes: bool  # the last one: W is written


def schedule(grid: BlockGrid, seed: int, epoch: int) -> list[Visit]:
    """The blocks in order.

    Rows of blocks come in groups of as many as there are columns, so that few of them are in work at once.
    The order of groups, and of strata in a group, is random.
    """
    height, width = grid.shape
    groups = np.arange(-(-height // width))
    found = []
    for group in groups[np.argsort(_numbers(seed, epoch, groups))]:
        strata = group * width + np.arange(width)
        order = strata[np.argsort(_numbers(seed, epoch, len(groups) + strata))]
        for place, stratum in enumerate(order.tolist()):  # each row of the group has one block in each
            for column in range(width):
                row = int(group) * width + (column + stratum) % width
                if row < height:
                    found.append(Visit(row, column, place == 0, place == width - 1))
    return found


def _numbers(seed: int, epoch: int, rows: Array) -> Array:
    return rng.uniform_at(seed, rng.STRATA, rows, np.array([epoch]))


def sweep(
    panels: da.Array | None, source: Delayed, grid: BlockGrid, inputs: Delayed, what: SweepSpec
) -> Delayed:
    """All blocks once: a delayed `Swept`.

    Parameters
    ----------
    panels : V in its rows of blocks, where it is not read from a source.
    source : a delayed `Source`; None where there are panels. What it cannot read by the block is read by the
        row of blocks and divided, at most two groups of rows at a time.
    inputs : a delayed `PassInputs`, with the H (k + 1, n) to begin with.
    """
    height, width = grid.shape
    rows = [None] * height if panels is None else list(panels.to_delayed(optimize_graph=True).ravel())
    left: list[Any] = [None] * height
    right: list[Any] = [None] * width
    parts: dict[int, Delayed] = {}
    closed: list[Any] = []  # a task for each row of blocks that is done, in order
    for visit in schedule(grid, what.seed, what.epoch):
        i, j = visit.row, visit.column
        if not grid.tiled and visit.opens:
            earlier = closed[-2 * width] if len(closed) >= 2 * width else None
            parts[i] = delayed(_divided, pure=False)(rows[i], source, grid, i, earlier)
        block = None if grid.tiled else item(parts[i], j)
        done = delayed(_visit, pure=False)(block, source, left[i], right[j], inputs, grid, visit, what)
        left[i], right[j] = item(done, 0), item(done, 1)
        if visit.closes:
            closed.append(left[i])
    return delayed(_collected, pure=False)(right, closed)


def _divided(
    panel: Block | None, source: BlockSource, grid: BlockGrid, row: int, earlier: Any
) -> list[Block]:
    """A row of blocks. ``earlier`` is what must be done before there is room for it."""
    if panel is None:
        panel = source.read(slice(*grid.rows[row : row + 2]), slice(0, grid.columns[-1]))
    return [block_of(panel, first, last) for first, last in pairwise(grid.columns)]


class _Right(NamedTuple):
    """Columns of H on their way, with what was summed up along it."""

    factor: Array  # (columns, k + 1)
    totals: Array  # residual, penalty, held_out_loss, held_out_weight


@one_blas_thread()
def _visit(
    block: Block | None,
    source: BlockSource,
    left: Array | None,
    right: _Right | None,
    inputs: PassInputs,
    grid: BlockGrid,
    visit: Visit,
    what: SweepSpec,
) -> tuple[Array | None, _Right]:
    """Take the steps of one block."""
    first, last = grid.rows[visit.row], grid.rows[visit.row + 1]
    across = slice(grid.columns[visit.column], grid.columns[visit.column + 1])
    if block is None:
        block = source.read(slice(first, last), across)
    w = what.before.read(first, last) if visit.opens else left
    w = np.array(w, order="C")  # those of a task may be read-only
    h = np.array(inputs.h[:, across].T if right is None else right.factor, order="C")
    totals = np.zeros(4) if right is None else right.totals
    chance = rng.uniform_at(what.seed, rng.ROW_ORDER, np.arange(first, last), np.array([what.epoch]))
    block = masking.with_scale(block, inputs.scale)
    totals = totals + _steps(block, w, h, np.argsort(chance), what.how)
    if visit.closes:
        what.after.write(first, w)
        client.announce_panel()
        return None, _Right(h, totals)
    return w, _Right(h, totals)


def _steps(block: Block, w: Array, h: Array, order: Array, how: SGDOptions) -> Array:
    """All minibatches of a block: residual, penalty, held_out_loss, held_out_weight."""
    on_w, on_h = _cost(w, how.w_l2, how.w_l1), _cost(h, how.h_l2, how.h_l1)
    if not isinstance(block, MaskedBlock):
        penalty = len(h) * on_w.sum() + len(w) * on_h.sum()
        return np.array([gradient.descend_rows(block, w, h, order, how), penalty, 0.0, 0.0])
    totals = np.zeros(4)
    for cells, held, rows in _strips(block, order):
        penalty = cells.row_weight @ on_w[rows] + cells.column_weight @ on_h
        missed = row_sums.residual(held, w[rows, :-1], h[:, :-1].T), float(held.row_weight.sum())
        within = np.arange(len(rows))
        part = w[rows]
        totals += gradient.descend_cells(cells, part, h, within, how), penalty, *missed
        w[rows] = part
    return totals


def _cost(factor: Array, ridge: float, lasso: float) -> Array:
    """The penalty of each row of a factor with its memory, for one entry."""
    squares, ones = least_squares.row_norms(factor[:, :-1])
    return np.asarray(ridge * squares + 2 * lasso * ones)


def _strips(block: MaskedBlock, order: Array) -> Iterator[tuple[Cells, Cells, Array]]:
    """The cells of a block, its rows in the given order, some at a time."""
    shuffled = block[order]
    for rows, cells, held in row_batches.iter_row_batches(shuffled, even=True):
        yield cells, held, order[rows]


def _collected(right: list[_Right], closed: list[Any]) -> Swept:
    """H and the sums, when all of W is written."""
    factor = np.concatenate([part.factor for part in right])
    totals = np.sum([part.totals for part in right], axis=0)
    return Swept(np.ascontiguousarray(factor.T), *totals.tolist())
