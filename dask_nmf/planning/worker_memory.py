"""The memory of a worker: the layout of V, and the projected peak of the tasks that run on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dask_nmf.kernels.linalg.packed_grams import packed_size

MIB = 2**20

IN_FLIGHT = 16 * MIB  # of storage chunks that are fetched and decoded at once, if one is not larger

PROGRAM = 320 * MIB  # resident memory of a worker that has imported (pyarrow too), compiled and read

SUMS_HELD = 10  # sums of panels that wait for their fellows in the tree, and those being added

SAMPLES_HELD = 8  # samples of rows that the candidates of all panels take: in parts, as one, and on their way

SQUARES_HELD = 6  # k x k matrices of float64 that one solve for W has: H Hᵀ, its inverse, temporaries, WᵀW

OF_ROW = 32  # bytes of a row beside W: how much of it counts, and its penalty, as float64

STRIP_BYTES = 64 * MIB  # of the cells that count of some rows of a panel, and their gram matrices

STRIP = 256  # rows of a panel whose residual is in memory

USABLE = 0.7  # of a worker's memory limit: above, distributed spills and pauses


@dataclass(frozen=True)
class Layout:
    """V as the planner sees it: the dimension that is cut into panels comes first."""

    rows: int
    columns: int
    itemsize: int  # bytes of an entry in a panel
    chunk_rows: int = 1  # panels begin at multiples of this
    chunk_bytes: int = 0  # of a storage chunk, decoded: some are in flight beside a panel being read
    needs_cast: bool = False  # the panel is cast, so two of it exist for a moment
    indptr: Sequence[int] | NDArray[np.integer[Any]] | None = (
        None  # CSR: where each row's entries begin; None if dense
    )
    density_unknown: bool = False  # blocks of unknown density: a chunk row is a panel, its bytes are a guess
    chunk_columns: int | None = None  # of a storage chunk; None: it spans all of them
    masked: bool = False  # V is looked at cell by cell
    own_grams: bool = True  # where it is, rows and columns have gram matrices of their own; else a quotient
    prefetch: bool = False  # a panel more may be read while others are worked on
    weights: Layout | None = None  # of a second matrix that is read along, the weights

    @property
    def tiled(self) -> bool:
        """Whether its storage is cut at columns too, so that a block can be read by itself."""
        return self.chunk_columns is not None and self.chunk_columns < self.columns

    @property
    def stored(self) -> int:
        """Entries that V holds."""
        return self.rows * self.columns if self.indptr is None else int(self.indptr[-1])

    def panel_bytes(self, first: int, last: int) -> int:
        """Bytes of rows first..last-1 in memory."""
        weights = 0 if self.weights is None else self.weights.panel_bytes(first, last)
        if self.indptr is None:
            return (last - first) * self.columns * self.itemsize + weights
        entries = int(self.indptr[last]) - int(self.indptr[first])
        return entries * (self.itemsize + 4) + (last - first + 1) * 8 + weights


def check_limit(memory_limit: int, whose: str) -> None:
    """Refuse a limit of memory in which a worker does not live.

    Parameters
    ----------
    memory_limit : bytes.
    whose : how the message begins, such as "--memory-limit".

    Raises
    ------
    MemoryError
        With what is needed.
    """
    if memory_limit * USABLE < PROGRAM:
        raise MemoryError(
            f"{whose} is {memory_limit / MIB:.0f} MiB, and a worker needs at least "
            f"{ceil(PROGRAM / USABLE / MIB)} MiB: the program by itself takes {PROGRAM / MIB:.0f} MiB, and "
            f"may fill {USABLE:.0%} of its limit"
        )


class Work(NamedTuple):
    """What a worker has at once."""

    rank: int
    threads: int  # with a panel each
    waiting: int  # panels beside
    grams: bool  # whether sums have a gram matrix for each column
    ahead: int = 0  # panels that are read meanwhile


def worker_bytes(layout: Layout, work: Work, panel: int, sample: int) -> int:
    """Projected peak of a worker that has panels of ``panel`` bytes in work, and some waiting.

    Memory that was used once may stay with the process, in pieces: what is not needed at one time adds up.
    """
    row = max(layout.panel_bytes(0, layout.rows) / layout.rows, 1)
    given = 3 * work.rank * layout.columns * layout.itemsize  # H: as it came, contiguous, and the one before
    return int(
        PROGRAM
        + given
        + work.threads * _task_bytes(layout, work, panel)
        + work.waiting * panel
        + work.ahead * (panel * (1 + layout.needs_cast) + _reading(layout))
        + SUMS_HELD * _sums(layout, work)[1]
        + SAMPLES_HELD * sample * row
    )


def task_bytes(layout: Layout, rank: int, panel: int) -> int:
    """Return the projected peak of the task of a pass that has a panel of so many bytes, with the panel."""
    return int(_task_bytes(layout, Work(rank, 1, 0, layout.masked and layout.own_grams), panel))


def _task_bytes(layout: Layout, work: Work, panel: int) -> float:
    row = max(layout.panel_bytes(0, layout.rows) / layout.rows, 1)
    one = 5 * work.rank * layout.itemsize + OF_ROW  # of A, W before or a guess, W, and two temporaries
    weights = panel / row * one
    residual = 2 * min(panel, STRIP * layout.columns * layout.itemsize)  # of CSR: its entries in float64
    if layout.masked:
        residual = STRIP_BYTES
    held = panel * (1 + layout.needs_cast)
    return held + max(_reading(layout), weights + residual + _sums(layout, work)[0])


def _reading(layout: Layout) -> int:
    """Return the bytes of storage chunks beside a panel that is being read."""
    return 2 * min(max(layout.chunk_bytes, IN_FLIGHT), layout.rows * layout.chunk_bytes)


def _sums(layout: Layout, work: Work) -> tuple[int, int]:
    """Return the bytes of making the sums of a panel, and of sums that wait to be added."""
    factor = work.rank * layout.columns
    square = work.rank**2 * 8  # more than a factor has, where k is above the number of columns
    making = factor * 24 + SQUARES_HELD * square  # WᵀV and that of a strip, and H, in float64
    waiting = factor * 8 + square
    if layout.masked and not layout.own_grams:
        making, waiting = 2 * making, 2 * waiting
    if work.grams:
        grams = layout.columns * packed_size(work.rank) * 8
        making, waiting = making + 2 * grams, waiting + grams
    return making, waiting
