"""How V is cut into row panels, and the memory that takes: integers in, integers out.

A panel is some contiguous rows of V that one task holds whole::

    rows      0        edges[1]      edges[2]           edges[-1]
    V         |---------|-------------|--- ... ----------|
    chunks    |----|----|----|----|----|--- ... -----|---|
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import gcd
from typing import Any

import numpy as np
from numpy.typing import NDArray

MIB = 2**20
LARGEST = 128 * MIB  # a panel is at most this, if its storage chunks allow: beyond, overhead is < 2 %
SMALLEST = 8 * MIB  # and at least this: below, the 2-3 ms that Dask takes for a task show
PANELS = 16  # a small V is cut into this many, for load balance
SAMPLE = 128 * MIB  # of sampled rows, held in the client's memory
PROGRAM = 230 * MIB  # resident memory of a worker that has imported everything and holds nothing
CHUNKS_IN_FLIGHT = 10  # zarr's default concurrency
USABLE = 0.7  # of a worker's memory limit: above, distributed spills and pauses


@dataclass(frozen=True)
class Layout:
    """V as the planner sees it: the dimension that is cut into panels comes first."""

    rows: int
    columns: int
    itemsize: int  # bytes of an entry in a panel
    chunk_rows: int = 1  # panels begin at multiples of this
    chunk_bytes: int = 0  # of a storage chunk, decoded: some are in flight beside a panel being read
    copied: bool = False  # the panel is cast, so two of it exist for a moment
    indptr: Sequence[int] | NDArray[np.integer[Any]] | None = (
        None  # CSR: where each row's entries begin; None if dense
    )
    blind: bool = False  # blocks of unknown density: a chunk row is a panel, its bytes are a guess

    def panel_bytes(self, first: int, last: int) -> int:
        """Bytes of rows first..last-1 in memory."""
        if self.indptr is None:
            return (last - first) * self.columns * self.itemsize
        entries = int(self.indptr[last]) - int(self.indptr[first])
        return entries * (self.itemsize + 4) + (last - first + 1) * 8


@dataclass(frozen=True)
class Plan:
    """Panel edges and what they cost."""

    edges: tuple[int, ...]  # 0 = edges[0] < ... < edges[-1] = rows, multiples of a unit but for the last
    worker_bytes: int  # projected peak resident memory of a worker
    pass_bytes: int  # of V in memory, read in a pass
    sample_rows: int  # to draw for the start


def make(
    layout: Layout,
    rank: int,
    memory_limit: int | None,
    threads: int,
    edges: tuple[int, ...] | None = None,
) -> Plan:
    """Cut V into panels that fit.

    The edges depend on V and on the memory of a worker, not on the number of workers, so a result
    does not either.

    Parameters
    ----------
    memory_limit : bytes a worker may use; None where nothing limits it.
    threads : tasks a worker runs at once.
    edges : of an earlier plan that must be kept.

    Raises
    ------
    MemoryError
        If the smallest panel does not fit; the message has the numbers and the cure.
    """
    whole = layout.panel_bytes(0, layout.rows)
    largest = min(max(whole // PANELS, SMALLEST), LARGEST)
    if memory_limit is not None:
        room = memory_limit * USABLE
        smallest = layout.panel_bytes(0, min(layout.chunk_rows, layout.rows))
        while largest > smallest and _worker_bytes(layout, rank, largest, threads) > room:
            largest = largest * 7 // 8
    edges = edges or _edges(layout, rank, largest)
    panel = max(layout.panel_bytes(*pair) for pair in pairwise(edges))
    sample = _sample_rows(layout, rank, memory_limit)
    plan = Plan(edges, _worker_bytes(layout, rank, panel, threads), whole, sample)
    if memory_limit is not None and plan.worker_bytes > memory_limit * USABLE:
        raise MemoryError(_refusal(layout, plan, memory_limit, threads))
    return plan


def unit(edges: Sequence[int]) -> int:
    """The rows that divide every panel but the last: chunks of W, so that each has one writer."""
    return gcd(*edges[1:-1]) if len(edges) > 2 else edges[-1]


def _edges(layout: Layout, rank: int, largest: int) -> tuple[int, ...]:
    """Panels of whole steps, each as large as ``largest`` bytes allow, at least one step."""
    if layout.indptr is not None:
        return _sparse_edges(layout, rank, largest)
    starts = range(0, layout.rows, layout.chunk_rows)
    step = layout.panel_bytes(0, min(layout.chunk_rows, layout.rows))
    chunks = 1 if layout.blind else max(1, largest // max(1, step))
    panels = -(-len(starts) // chunks)
    even = -(-len(starts) // panels)
    return (*starts[::even], layout.rows)


def _sparse_edges(layout: Layout, rank: int, largest: int) -> tuple[int, ...]:
    """As many stored entries a panel as ``largest`` allows, in steps that make W's chunks about 1 MiB."""
    whole = layout.panel_bytes(0, layout.rows)
    step = max(1, min(MIB // (rank * layout.itemsize), layout.rows * min(largest, SMALLEST) // whole))
    starts = [*range(0, layout.rows, step), layout.rows]
    ends = np.asarray([layout.panel_bytes(0, row) for row in starts])
    edges = [0]
    while edges[-1] < len(starts) - 1:
        furthest = int(np.searchsorted(ends, ends[edges[-1]] + largest, side="right")) - 1
        edges.append(max(furthest, edges[-1] + 1))
    return tuple(starts[edge] for edge in edges)


def _worker_bytes(layout: Layout, rank: int, panel: int, threads: int) -> int:
    """Projected peak of a worker that has ``threads`` panels of ``panel`` bytes in work."""
    factor = 2 * rank * layout.columns * layout.itemsize  # H, as it came and contiguous
    sums = rank * layout.columns * (layout.itemsize + 3 * 8)  # a product, in float64, added to another
    row = max(layout.panel_bytes(0, layout.rows) / layout.rows, 1)
    weights = 4 * panel / row * rank * layout.itemsize  # A, the guess, W and one temporary
    reading = 1.3 * min(panel, CHUNKS_IN_FLIGHT * layout.chunk_bytes)
    task = panel * (1 + layout.copied) + weights + reading + sums
    return int(PROGRAM + factor + threads * task)


def _sample_rows(layout: Layout, rank: int, memory_limit: int | None) -> int:
    """5 % of the rows, at least 1000 and 50 a component, at most `SAMPLE` bytes or 1/20 of a worker."""
    most = SAMPLE if memory_limit is None else min(SAMPLE, memory_limit // 20)
    row = max(1, layout.panel_bytes(0, layout.rows) // layout.rows)
    wanted = max(1000, 50 * rank, layout.rows // 20)
    return min(layout.rows, max(rank, min(wanted, most // row)))


def _refusal(layout: Layout, plan: Plan, memory_limit: int, threads: int) -> str:
    first, last = max(pairwise(plan.edges), key=lambda pair: layout.panel_bytes(*pair))
    return (
        f"the smallest panel does not fit: {last - first} rows x {layout.columns} columns take "
        f"{layout.panel_bytes(first, last) / MIB:.0f} MiB, and a worker running {threads} at once would "
        f"need {plan.worker_bytes / MIB:.0f} MiB of the {memory_limit * USABLE / MIB:.0f} MiB it may fill "
        f"(its limit is {memory_limit / MIB:.0f} MiB); give it at least "
        f"{plan.worker_bytes / USABLE / MIB:.0f} MiB, fewer threads, or store V in chunks of fewer rows"
    )
