"""The memory of a worker: the layout of V, and the projected peak of the tasks that run on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dask_nmf.kernels.linalg.packed_grams import packed_size
from dask_nmf.kernels.products import same_bits
from dask_nmf.kernels.row_sums import CACHED_ROWS
from dask_nmf.kernels.summary.residual_loops import GRAMS, TILE_COLUMNS
from dask_nmf.kernels.summary.residual_sums import MOST_BLOCKS, STRIP_ROWS

MIB = 2**20

IN_FLIGHT = 16 * MIB  # bytes of storage chunks that are fetched and decoded at once, if one is not larger

PROGRAM = 320 * MIB  # resident bytes of a worker that has imported (dask.array too), compiled and read

SUMS_HELD = 10  # sums of panels that wait in the reduction tree, and those being added

SAMPLES_HELD = 8  # memory of the candidates of all panels, in samples: as parts, merged, and in transit

SAMPLES_OF_CLIENT = 3  # samples in the memory of the client: as it comes, scaled, and in work

SQUARES_HELD = 6  # k x k matrices of float64 in one solve for W: H Hᵀ, its inverse, temporaries, WᵀW

OF_ROW = 32  # bytes per row beside W: its weight and its penalty, as float64

STRIP_BYTES = (
    64 * MIB
)  # bytes of a batch of rows of a panel: the cells that count and gram matrices, or a copy

LISTED_BYTES = (
    44 * MIB
)  # bytes of such a batch if the cells that count are the stored ones of CSR: no mask of a dense block

COPIES_OF_CSR = 4  # times a panel, at most, in a batch of CSR: scaled, and with what is held out taken out

RESIDUALS_WAITING = 16  # bytes a column of V of the residual sums of a panel: their losses and sizes

RESIDUALS_IN_WORK = 20  # the same while a task takes these sums, beside a copy of H

GRAMS_OF_BLOCKS = 3 * MOST_BLOCKS  # k x k matrices of float64 meanwhile, if V is sparse: of parts of W and H

RESIDUALS_OF_CLIENT = 80  # bytes a column of V in the client, which finds the columns with the largest losses

RESIDUAL_TILE = 2 * STRIP_ROWS * 8  # bytes a column, of `TILE_COLUMNS` at most, of a part of W H and of V

RESIDUAL_BLOCKS = 2 * MOST_BLOCKS**2 * 8  # bytes of the losses and sizes of blocks of V

BLOCKS_IN_WORK = 4  # times these bytes while they are taken

OF_STRIP = {"dense": 16, "csr": 24}  # bytes an entry of `CACHED_ROWS` rows in float64, with their residual

USABLE = 0.7  # share of a worker's memory limit that may be filled: above, distributed spills and pauses


@dataclass(frozen=True)
class Layout:
    """The shape, dtype and storage of V. The dimension that is cut into panels comes first."""

    rows: int
    columns: int
    itemsize: int  # bytes of an entry in a panel
    chunk_rows: int = 1  # panels begin at multiples of this
    chunk_bytes: int = 0  # bytes of a storage chunk, decoded: some are in flight while a panel is read
    needs_cast: bool = False  # whether a panel is cast, so that two copies of it exist for a moment
    indptr: Sequence[int] | NDArray[np.integer[Any]] | None = (
        None  # CSR row pointers, (rows + 1,); None if dense
    )
    density_unknown: bool = False  # blocks of unknown density: a chunk row is a panel, its bytes are a guess
    chunk_columns: int | None = None  # columns of a storage chunk; None if it spans all columns
    masked: bool = False  # whether V is processed cell by cell
    listed: bool = False  # if masked: whether the cells that are looked at are the stored entries of CSR
    own_grams: bool = True  # if masked: whether rows and columns have their own gram matrices, else quotients
    by_batches: bool = False  # whether batches of rows are copied without the entries held out
    labels: int = 0  # groups of rows, and of columns, by which entries are held out; 0 if none are
    settles: bool = False  # whether the last read takes residuals, and the sums of a pass too
    prefetch: bool = False  # whether one more panel may be read while others are in work
    weights: Layout | None = None  # layout of the weights, a second matrix that is read along
    at_client: int = 0  # bytes of V in the memory of the client; 0 if it is read from elsewhere

    @property
    def tiled(self) -> bool:
        """Return whether storage is cut at columns too, so that a block can be read by itself."""
        return self.chunk_columns is not None and self.chunk_columns < self.columns

    @property
    def group_grams(self) -> int:
        """The number of gram matrices in the sums of a pass: one, or one for each group."""
        return max(1, self.labels) if self.by_batches else 1

    @property
    def stored(self) -> int:
        """The number of entries that V stores."""
        return self.rows * self.columns if self.indptr is None else int(self.indptr[-1])

    def panel_bytes(self, first: int, last: int) -> int:
        """Return the bytes of rows ``first`` to ``last - 1`` in memory, with their weights."""
        weights = 0 if self.weights is None else self.weights.panel_bytes(first, last)
        if self.indptr is None:
            return (last - first) * self.columns * self.itemsize + weights
        entries = int(self.indptr[last]) - int(self.indptr[first])
        return entries * (self.itemsize + 4) + (last - first + 1) * 8 + weights

    def bytes_of_panels(self, edges: Sequence[int] | NDArray[np.integer[Any]]) -> NDArray[np.int64]:
        """Return the `panel_bytes` of each panel between neighbouring edges."""
        ends = np.asarray(edges, np.int64)
        heights = np.diff(ends)
        weights = 0 if self.weights is None else self.weights.bytes_of_panels(ends)
        if self.indptr is None:
            return np.asarray(heights * (self.columns * self.itemsize) + weights)
        entries = np.diff(np.asarray(self.indptr)[ends].astype(np.int64))
        return np.asarray(entries * (self.itemsize + 4) + (heights + 1) * 8 + weights)


def check_limit(memory_limit: int, whose: str) -> None:
    """Check that a worker can run within a memory limit.

    Parameters
    ----------
    memory_limit : bytes.
    whose : the subject of the message, such as "--memory-limit".

    Raises
    ------
    MemoryError
        If it cannot; the message has the memory that is needed.
    """
    if memory_limit * USABLE < PROGRAM:
        raise MemoryError(
            f"{whose} is {memory_limit / MIB:.0f} MiB, and a worker needs at least "
            f"{ceil(PROGRAM / USABLE / MIB)} MiB: the program by itself takes {PROGRAM / MIB:.0f} MiB, and "
            f"may fill {USABLE:.0%} of its limit"
        )


class Work(NamedTuple):
    """The load of a worker: the panels that it has at once, and the sums of each."""

    ranks: tuple[int, ...]  # the number of components of each model of the pass
    threads: int  # tasks that run at once, each with a panel
    waiting: int  # further panels in memory
    grams: bool  # whether sums have a gram matrix for each column
    ahead: int = 0  # panels that are prefetched meanwhile
    strata: bool = False  # whether tasks hand on rows of W, those of all models at once

    @property
    def rank(self) -> int:
        """The largest rank."""
        return max(self.ranks)

    @property
    def stack(self) -> int:
        """The number of components of the models that use a panel together, see `same_bits.MOST`."""
        return min(sum(self.ranks), max(same_bits.MOST, self.rank))

    @property
    def further_ranks(self) -> tuple[int, ...]:
        """All ranks but the largest one."""
        return tuple(sorted(self.ranks)[:-1])


def worker_bytes(layout: Layout, work: Work, panel: int, sample: int) -> int:
    """Return the projected peak bytes of a worker that has panels in work, and some waiting.

    Freed memory may stay with the process in fragments, so needs that do not coincide are added up too.

    Parameters
    ----------
    layout : V.
    work : the load of the worker.
    panel : bytes of a panel.
    sample : rows of the sample for the start.
    """
    row = max(layout.panel_bytes(0, layout.rows) / layout.rows, 1)
    h = 3 * sum(work.ranks) * layout.columns * layout.itemsize  # as received, contiguous, and previous
    sums = sum(waiting_sums(layout, rank, work.grams) for rank in work.ranks)
    residuals = RESIDUALS_WAITING * layout.columns + RESIDUAL_BLOCKS + _squares(layout, work.rank)
    return int(
        PROGRAM
        + h
        + work.threads * _task_bytes(layout, work, panel)
        + work.waiting * panel
        + work.ahead * (panel * (1 + layout.needs_cast) + _reading(layout))
        + SUMS_HELD * (sums + residuals if layout.settles else max(sums, residuals))
        + SAMPLES_HELD * sample * row
    )


def client_bytes(layout: Layout, ranks: Sequence[int], sample: int) -> int:
    """Return the projected peak bytes of the process that gives workers their tasks.

    Parameters
    ----------
    ranks : the number of components of each model.
    sample : rows of the sample for the start.
    """
    row = layout.panel_bytes(0, layout.rows) / max(1, layout.rows)
    factors = 4 * sum(ranks) * layout.columns * layout.itemsize  # the H of a state, and one that is solved
    sums = 2 * sum(waiting_sums(layout, rank, layout.masked and layout.own_grams) for rank in ranks)
    residuals = RESIDUALS_OF_CLIENT * layout.columns + RESIDUAL_BLOCKS + 3 * _squares(layout, max(ranks))
    return int(PROGRAM + layout.at_client + SAMPLES_OF_CLIENT * sample * row + factors + sums + residuals)


def task_bytes(layout: Layout, ranks: Sequence[int], panel: int) -> int:
    """Return the projected peak bytes of one task of a pass, with its panel of ``panel`` bytes.

    Parameters
    ----------
    ranks : the number of components of each model of the pass.
    """
    return int(_task_bytes(layout, Work(tuple(ranks), 1, 0, layout.masked and layout.own_grams), panel))


def _task_bytes(layout: Layout, work: Work, panel: int) -> float:
    """Return the bytes of a task that uses its panel for some models together, and then for others."""
    row = max(layout.panel_bytes(0, layout.rows) / layout.rows, 1)
    one = 5 * work.rank * layout.itemsize + OF_ROW  # V Hᵀ, the previous W or a guess, W, two temporaries
    if work.further_ranks:
        one += 3 * work.stack * layout.itemsize  # V Hᵀ, the previous W, and W of each model of a stack
    if work.strata:
        one += 2 * sum(work.further_ranks) * layout.itemsize  # W of the other models, received and copied
    weights = panel / row * one
    residual = strip_bytes(layout, layout.columns, panel)
    if layout.masked or layout.by_batches:
        residual = LISTED_BYTES if layout.listed and not work.strata else STRIP_BYTES
    if layout.by_batches and layout.indptr is not None:
        residual = min(residual, COPIES_OF_CSR * panel)
    held = panel * (1 + layout.needs_cast)
    residuals = residuals_in_work(layout, work.rank)  # these sums are taken after the others
    sums = max(_sums_in_work(layout, work), residuals) + layout.settles * RESIDUALS_WAITING * layout.columns
    sums += sum(waiting_sums(layout, rank, work.grams) for rank in work.further_ranks)
    return held + max(_reading(layout), weights + residual + sums)


def strip_bytes(layout: Layout, columns: int, panel: int) -> int:
    """Return the bytes for some rows of a part of V in float64, with their residual."""
    kind = "dense" if layout.indptr is None else "csr"
    return OF_STRIP[kind] * min(panel // layout.itemsize, CACHED_ROWS * columns)


def residuals_in_work(layout: Layout, rank: int) -> int:
    """Return the bytes for taking the residual sums of a panel; if V is sparse, H is copied by columns."""
    columns = (RESIDUALS_IN_WORK + rank * layout.itemsize) * layout.columns
    whole = layout.indptr is None and not layout.masked and not layout.by_batches
    tile = RESIDUAL_TILE * min(TILE_COLUMNS, layout.columns) if whole else 0
    return columns + tile + BLOCKS_IN_WORK * RESIDUAL_BLOCKS + _zeros_in_work(layout, rank)


def _zeros_in_work(layout: Layout, rank: int) -> int:
    """Return the bytes for what zeros that are not stored would lose: sums or gram matrices of W and of H."""
    if layout.masked and layout.labels:
        of_groups = 2 * MOST_BLOCKS * layout.labels * rank * 8  # sums of W and of H in blocks of V
        return of_groups + 2 * RESIDUALS_WAITING * layout.columns
    if layout.masked or layout.indptr is None:
        return 0
    if not layout.by_batches:
        return GRAMS_OF_BLOCKS * rank**2 * 8
    of_groups = _squares(layout, rank)  # of W in some blocks, and of H in one, as it is and over what counts
    return max(of_groups, min(8 * GRAMS, MOST_BLOCKS * of_groups)) + 8 * of_groups


def _squares(layout: Layout, rank: int) -> int:
    """Return the bytes of the gram matrices, or of the one, that stand for the loss of zeros of a panel."""
    return 0 if layout.indptr is None else layout.group_grams * rank**2 * 8


def _reading(layout: Layout) -> int:
    """Return the bytes of storage chunks in memory while a panel is read."""
    return 2 * min(max(layout.chunk_bytes, IN_FLIGHT), layout.rows * layout.chunk_bytes)


def _sums_in_work(layout: Layout, work: Work) -> int:
    """Return the bytes for computing the sums of a panel for a model, with those of a strip for its stack."""
    factors = (work.rank + 2 * work.stack) * layout.columns * 8  # H or WᵀV; a strip's, twice
    in_work = factors + SQUARES_HELD * work.rank**2 * 8
    # Gram matrices of two strips, and their sum
    return _numerators(layout) * in_work + 3 * _column_grams(layout, work.rank, work.grams)


def waiting_sums(layout: Layout, rank: int, grams: bool) -> int:
    """Return the bytes of the sums of a panel for a model, which wait to be added."""
    factor, square = rank * layout.columns * 8, layout.group_grams * rank**2 * 8  # larger where k > columns
    return _numerators(layout) * (factor + square) + _column_grams(layout, rank, grams)


def _numerators(layout: Layout) -> int:
    """Return how many factors the sums have: two if they are of quotients of masked cells, else one."""
    return 2 if layout.masked and not layout.own_grams else 1


def _column_grams(layout: Layout, rank: int, grams: bool) -> int:
    return layout.columns * packed_size(rank) * 8 if grams else 0
