"""V in the blocks of a grid, as arguments of the tasks of a graph. Nothing here computes."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

from dask import delayed
from dask.delayed import Delayed

from dask_nmf.execution.graphs.reduction import heights
from dask_nmf.execution.tasks.panel_reader import aligned
from dask_nmf.planning.grid import GridPlan
from dask_nmf.sources.matrix import Matrix
from dask_nmf.types import Block

Span = tuple[int, int]  # first, and one after the last


class GridBlock(NamedTuple):
    """A block of V as an argument of a task: its entries, or the reader with which the task loads them."""

    entries: Any  # a `Block`, or a delayed one; None if there is a reader
    reader: Any  # a `Reader`, or a delayed one; None if there are entries
    rows: Span
    columns: Span

    def load(self) -> Block:
        """Return the entries of the block."""
        return aligned(
            self.entries if self.reader is None else self.reader[slice(*self.rows), slice(*self.columns)]
        )


@dataclass(frozen=True)
class Blocks:
    """V in the blocks of a grid, as nodes of one graph."""

    tiling: GridPlan
    reader: Delayed | None  # a delayed `Reader`, if tasks read V themselves
    array: list[list[Delayed]] | None  # the blocks, if V is a Dask array

    @classmethod
    def of(cls, matrix: Matrix, tiling: GridPlan) -> Blocks:
        """Return the blocks of a matrix, cut by a plan."""
        array = matrix.reader.dask_array
        if array is None:
            return cls(tiling, delayed(matrix.reader, traverse=False), None)
        blocks = array.rechunk((heights(tiling.rows), heights(tiling.columns)))
        return cls(tiling, None, blocks.to_delayed(optimize_graph=True).tolist())

    @property
    def rows(self) -> list[Span]:
        """The span of V of each row of blocks."""
        return list(pairwise(self.tiling.rows))

    @property
    def columns(self) -> list[Span]:
        """The span of V of each column of blocks."""
        return list(pairwise(self.tiling.columns))

    def lazy_block(self, i: int, j: int) -> GridBlock:
        """Return a block as an argument of the only task that needs it, which loads it."""
        entries = None if self.array is None else self.array[i][j]
        return GridBlock(entries, self.reader, self.rows[i], self.columns[j])

    def shared_block(self, i: int, j: int, after: Delayed | None) -> GridBlock:
        """Return a block as an argument of several tasks; it is loaded once, when ``after`` is done."""
        loaded = delayed(_load, pure=False)(self.lazy_block(i, j), after)
        return GridBlock(loaded, None, self.rows[i], self.columns[j])


def _load(block: GridBlock, after: Any) -> Block:
    return block.load()
