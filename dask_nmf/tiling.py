"""How V is cut both ways, where neither a panel nor H fits a worker: integers in, integers out.

::

    columns        0      c[1]    c[2]     c[-1]
    rows 0         |-------|-------|--...--|
                   |  V_00 |  V_01 |       |      a block is what one task holds
    r[1]           |-------|-------|--...--|
                   |  V_10 |  V_11 |       |
    r[-1]          |-------|-------|--...--|

`dask_nmf.grid` has the pass that goes with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import inf, isqrt

from dask_nmf.plan import (
    IN_FLIGHT,
    LARGEST,
    MIB,
    PANELS,
    PROGRAM,
    SAMPLE,
    SMALLEST,
    STRIP,
    SUMS_HELD,
    USABLE,
    Layout,
)

CHAINS = 2  # sums of columns that a worker thread has begun
ROWS_HELD = 2  # rows of blocks in memory, where V is read once a pass


@dataclass(frozen=True)
class Tiling:
    """V cut both ways, and what that costs."""

    rows: tuple[int, ...]  # 0 = rows[0] < ... < rows[-1], multiples of a unit but for the last
    columns: tuple[int, ...]  # likewise
    reads: int  # of V in a pass: 1 where rows of blocks are held in between, else 2
    worker_bytes: int  # projected peak resident memory of a worker
    pass_bytes: int  # of V in memory, read in a pass
    sample: tuple[int, int]  # rows and columns to draw for the start, about

    @property
    def shape(self) -> tuple[int, int]:
        """Blocks below each other and side by side."""
        return len(self.rows) - 1, len(self.columns) - 1

    @property
    def block(self) -> tuple[int, int]:
        """Rows and columns of the largest block."""
        return _longest(self.rows), _longest(self.columns)


def make(
    layout: Layout,
    rank: int,
    memory_limit: int | None,
    threads: int,
    kept: tuple[tuple[int, ...], tuple[int, ...]] | None = None,
) -> Tiling:
    """Cut V into blocks that fit.

    Like `plan.make`, it depends on V and on the memory of a worker alone. That one worker may have to hold
    the rows of blocks that are read once: so the results, and the reads, are those of any number of workers.

    Parameters
    ----------
    memory_limit, threads : see `plan.make`.
    kept : edges of rows and columns of an earlier tiling.

    Raises
    ------
    MemoryError
        If blocks of one storage chunk do not fit; the message has the numbers and the cure.
    """
    room = inf if memory_limit is None else memory_limit * USABLE
    whole = layout.rows * layout.columns * layout.itemsize
    most = min(max(whole // PANELS, SMALLEST), LARGEST)
    for reads, least in ((1, min(SMALLEST, most)), (2, 1)):
        for edges in [kept] if kept else _candidates(layout, most, least):
            taken = _worker_bytes(layout, rank, threads, edges, reads)
            if taken <= room:
                return Tiling(*edges, reads, taken, reads * whole, _sample(layout, memory_limit))
    rows, columns = (_longest(side) for side in edges)
    raise MemoryError(
        f"nor does a block of V cut both ways: {rows} rows x {columns} columns take "
        f"{rows * columns * layout.itemsize / MIB:.0f} MiB, and a worker running {threads} at once would "
        f"need {taken / MIB:.0f} MiB of the {room / MIB:.0f} MiB it may fill; give it at least "
        f"{taken / USABLE / MIB:.0f} MiB, fewer threads, or store V in smaller chunks"
    )


def _candidates(layout: Layout, most: int, least: int) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Edges for blocks of falling size, in bytes, down to one storage chunk."""
    found: list[tuple[tuple[int, ...], tuple[int, ...]]] = []
    while most >= least:
        edges = _edges(layout, most // layout.itemsize)
        if not found or edges != found[-1]:
            found.append(edges)
        most = most * 7 // 8
    return found


def _edges(layout: Layout, entries: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Edges of blocks of about so many entries, nearly square, of whole storage chunks.

    Beside a block its H, W and sums are moved: k rows and k columns; least for a square.
    """
    across = layout.chunk_columns or layout.columns
    height = _side(layout.rows, layout.chunk_rows, isqrt(entries))
    width = _side(layout.columns, across, entries // min(height, layout.rows))
    return _even(layout.rows, layout.chunk_rows, height), _even(layout.columns, across, width)


def _side(size: int, chunk: int, wanted: int) -> int:
    return chunk * min(max(1, wanted // chunk), -(-size // chunk))


def _even(size: int, chunk: int, side: int) -> tuple[int, ...]:
    chunks = -(-size // chunk)
    pieces = -(-size // side)
    return (*range(0, size, chunk * -(-chunks // pieces)), size)


def _worker_bytes(layout: Layout, rank: int, threads: int, edges: Sequence[Sequence[int]], reads: int) -> int:
    """Projected peak of a worker that has a block in each thread and, of one read, rows of blocks beside."""
    height, width = (_longest(side) for side in edges)
    size = layout.itemsize
    block = height * width * size
    reading = 2 * min(max(layout.chunk_bytes, IN_FLIGHT), layout.rows * layout.chunk_bytes)
    given = 3 * rank * width * size  # H: where it is, where it was, and what is made of both
    left = rank * height * (3 * size + 2 * 8)  # V Hᵀ, W, a guess and a temporary, and V Hᵀ in float64
    right = rank * width * (size + 3 * 8)  # WᵀV; in float64; the sum of those above; both added
    residual = 2 * min(block, STRIP * width * size)
    task = block * (2 + layout.copied) + max(reading, given + left + right + residual)
    parts = SUMS_HELD * rank * height * 8  # V Hᵀ of blocks side by side, that wait to be added
    if reads == 1:
        beside = ROWS_HELD * height * layout.columns * size + 2 * rank * layout.columns * 8
    else:
        beside = CHAINS * threads * rank * width * 8
    return int(PROGRAM + threads * (task + parts) + beside)


def _sample(layout: Layout, memory_limit: int | None) -> tuple[int, int]:
    """As many rows as columns, `SAMPLE` bytes of entries or 1/80 of a worker."""
    entries = (SAMPLE if memory_limit is None else min(SAMPLE, memory_limit // 80)) // layout.itemsize
    rows = min(layout.rows, isqrt(entries))
    return rows, min(layout.columns, entries // rows)


def _longest(edges: Sequence[int]) -> int:
    return max(last - first for first, last in pairwise(edges))
