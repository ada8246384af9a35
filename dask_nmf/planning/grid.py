"""The partition of V by rows and columns, where neither a panel nor H fits a worker.

::

    columns        0      c[1]    c[2]     c[-1]
    rows 0         |-------|-------|--...--|
                   |  V_00 |  V_01 |       |      a block is what one task holds
    r[1]           |-------|-------|--...--|
                   |  V_10 |  V_11 |       |
    r[-1]          |-------|-------|--...--|

The task graph of a pass over such blocks is in `dask_nmf.execution.graphs.grid`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import ceil, inf, isqrt

from dask_nmf.planning.row_panels import LARGEST, PANELS, SAMPLE, SMALLEST
from dask_nmf.planning.worker_memory import (
    IN_FLIGHT,
    MIB,
    PROGRAM,
    RESIDUAL_BLOCKS,
    RESIDUALS_WAITING,
    SQUARES_HELD,
    SUMS_HELD,
    USABLE,
    Layout,
    residuals_in_work,
    strip_bytes,
)

Edges = tuple[tuple[int, ...], tuple[int, ...]]  # row edges and column edges

FLATTEST = 16  # least rows of held blocks, in multiples of k; with fewer, H and sums are as much to move as V
CHAINS = 2  # partial sums of columns in progress per worker thread
ROWS_HELD = 2  # block rows in memory at once, where V is read once a pass


@dataclass(frozen=True)
class GridMemory:
    """The memory of a worker in a pass over blocks: see `PassMemory`."""

    layout: Layout
    threads: int
    block: tuple[int, int]  # rows and columns of the largest block
    reads: int
    room: float  # bytes that a worker may fill; infinite if nothing limits it

    def worker_bytes(self, ranks: Sequence[int]) -> int:
        """Return the projected peak bytes of a worker in a pass for models of these ranks."""
        return _worker_bytes(self, ranks)


@dataclass(frozen=True)
class GridPlan:
    """A partition of V into blocks, with its cost in memory and reads."""

    rows: tuple[int, ...]  # row edges: 0 = rows[0] < ... < rows[-1], multiples of a unit but for the last
    columns: tuple[int, ...]  # column edges, in the same form
    reads: int  # reads of V per pass: 1 where block rows are held between the two products, else 2
    worker_bytes: int  # projected peak resident memory of a worker
    pass_bytes: int  # bytes of V, as in memory, that one pass reads
    sample: tuple[int, int]  # approximate numbers of rows and columns to draw for the start
    memory: GridMemory  # the memory of a worker in a pass, for `group_models`

    @property
    def shape(self) -> tuple[int, int]:
        """The number of blocks below each other and the number side by side."""
        return len(self.rows) - 1, len(self.columns) - 1

    @property
    def block(self) -> tuple[int, int]:
        """The numbers of rows and columns of the largest block."""
        return _longest(self.rows), _longest(self.columns)


def plan_grid(
    layout: Layout,
    rank: int,
    memory_limit: int | None,
    threads: int,
    kept: Edges | None = None,
) -> GridPlan:
    """Return a partition of V into blocks that fit a worker.

    The plan depends on V and on the memory of one worker, but not on the number of workers. One worker may
    have to hold all block rows that are read once, so that the results and the reads do not depend on that
    number either.

    Parameters
    ----------
    layout : the shape, dtype and storage chunks of V.
    rank : the number of components, k.
    memory_limit, threads : see `plan_panels`.
    kept : row and column edges of an earlier plan that must be kept; None to choose them.

    Raises
    ------
    MemoryError
        If blocks of one storage chunk do not fit; the message has the numbers and the cure.
    """
    room = inf if memory_limit is None else memory_limit * USABLE
    whole = layout.rows * layout.columns * layout.itemsize
    most = min(max(whole // PANELS, SMALLEST), LARGEST)
    before = None if kept is None else [(_longest(kept[0]), _longest(kept[1]))]
    for reads in (1, 2):
        for height, width in before or _candidates(layout, rank, most, reads):
            memory = GridMemory(layout, threads, (height, width), reads, room)
            taken = memory.worker_bytes([rank])
            if taken <= room:
                edges = kept or (_edges(layout.rows, height), _edges(layout.columns, width))
                return GridPlan(*edges, reads, taken, reads * whole, _sample(layout, memory_limit), memory)
    raise MemoryError(
        f"nor does a block of V cut both ways: {height} rows x {width} columns take "
        f"{height * width * layout.itemsize / MIB:.0f} MiB, and a worker running {threads} at once would "
        f"need {taken / MIB:.0f} MiB of the {room / MIB:.0f} MiB it may fill; give it at least "
        f"{taken / USABLE / MIB:.0f} MiB, fewer threads, or store V in smaller chunks"
    )


def _candidates(layout: Layout, rank: int, most: int, reads: int) -> Iterator[tuple[int, int]]:
    """Yield the rows and columns of blocks of falling size, nearly square, down to one storage chunk.

    With a block, its parts of H, W and their sums are moved: k rows and k columns, least for a square. Blocks
    that are held (``reads`` is 1) may be flatter, because a row then takes less memory; and they
    must be large enough to be worth a task.
    """
    across = layout.chunk_columns or layout.columns
    smallest = layout.itemsize if reads == 2 else min(SMALLEST, most)
    while most >= smallest:
        entries = most // layout.itemsize
        wanted = isqrt(entries)
        lowest = wanted if reads == 2 else min(wanted, FLATTEST * rank)
        while wanted >= lowest:
            height = _side(layout.rows, layout.chunk_rows, wanted)
            yield height, _side(layout.columns, across, entries // height)
            wanted = wanted * 7 // 8
        most = most * 7 // 8


def _edges(size: int, side: int) -> tuple[int, ...]:
    return (*range(0, size, side), size)


def _side(size: int, chunk: int, wanted: int) -> int:
    """Return about ``wanted`` entries in whole storage chunks, so that all pieces are about equally long."""
    chunks = -(-size // chunk)
    pieces = -(-chunks // max(1, wanted // chunk))
    return min(chunk * -(-chunks // pieces), size)


def _worker_bytes(memory: GridMemory, ranks: Sequence[int]) -> int:
    """Return the projected peak bytes of a worker that has one block in each thread.

    A task uses its block for one model after the other. If V is read once, the worker holds block rows in
    addition.
    """
    layout, (height, width), size = memory.layout, memory.block, memory.layout.itemsize
    rank, total, squares = max(ranks), sum(ranks), sum(rank**2 for rank in ranks)
    loaded = height * width * size
    reading = 2 * min(max(layout.chunk_bytes, IN_FLIGHT), layout.rows * layout.chunk_bytes)
    h = 3 * rank * width * size  # the current one, the previous one, and a combination of both
    left = rank * height * (3 * size + 2 * 8)  # V Hᵀ, W, a guess and a temporary, and V Hᵀ in float64
    right = rank * width * (size + 3 * 8)  # WᵀV, also in float64, the sum of those above, and the sum of both
    lost = RESIDUALS_WAITING * width + RESIDUAL_BLOCKS  # of the last read, as the sums of losses of all rows
    right = max(right, residuals_in_work(replace(layout, columns=width), rank)) + lost
    further = (total - rank) * (height + 2 * width) * 8 + (squares - rank**2) * 8  # parts of other models
    residual = strip_bytes(layout, width, loaded)
    working = h + left + right + further + SQUARES_HELD * rank**2 * 8 + residual
    task = loaded * (2 + layout.needs_cast) + max(reading, working)
    parts = SUMS_HELD * total * height * 8  # V Hᵀ of blocks side by side that wait to be added
    if memory.reads == 1:
        rows = ROWS_HELD * height * layout.columns * size + 2 * total * layout.columns * 8
        rows += 2 * RESIDUALS_WAITING * layout.columns + ceil(layout.columns / width) * RESIDUAL_BLOCKS
    else:
        rows = CHAINS * memory.threads * (total * width * 8 + lost) + RESIDUALS_WAITING * layout.rows
    return int(PROGRAM + memory.threads * (task + parts) + rows)


def _sample(layout: Layout, memory_limit: int | None) -> tuple[int, int]:
    """Return the numbers of rows and columns of a sample that is nearly square.

    It has `SAMPLE` bytes of entries, or 1/80 of the memory limit if that is less.
    """
    entries = (SAMPLE if memory_limit is None else min(SAMPLE, memory_limit // 80)) // layout.itemsize
    rows = min(layout.rows, isqrt(entries))
    return rows, min(layout.columns, entries // rows)


def _longest(edges: Sequence[int]) -> int:
    return max(last - first for first, last in pairwise(edges))
