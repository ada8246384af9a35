"""The partition of V into row panels, and the memory that it takes: integers in, integers out.

A panel is a range of contiguous rows of V that one task holds whole::

    rows      0        edges[1]      edges[2]           edges[-1]
    V         |---------|-------------|--- ... ----------|
    chunks    |----|----|----|----|----|--- ... -----|---|
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import gcd, inf, isqrt
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from dask_nmf.planning.worker_memory import MIB, USABLE, Layout, Work, waiting_sums, worker_bytes

LARGEST = 128 * MIB  # bytes of a panel at most, if its storage chunks allow: beyond, overhead is < 2 %
MOST_PANELS = 10_000  # beyond so many, panels exceed `LARGEST`: the scheduler takes 2 ms for each
LEAST = MIB  # bytes of a panel at least, while the sample could still be smaller
SMALLEST = 8 * MIB  # bytes of a panel at least: below, the 2-3 ms that Dask takes for a task show
SLOWER = 2  # divides `SMALLEST` where cells are processed one by one: that takes longer per entry
PANELS = 16  # a small V is cut into this many, for load balance
STEPS = 16  # positions per sparse panel at which it may end
SAMPLE = 128 * MIB  # bytes of sampled rows at most: the client holds them in memory
SAMPLED = 128 * 1024  # entries that a sample may always have: the work on them is negligible
SAMPLE_ROWS, SAMPLE_ROWS_PER_RANK = 1000, 50  # rows that a sample has if panels of a good size leave the room
BLOCK = 2**20  # entries of a block, about, where columns are cut too
MOST_ACROSS = 16  # blocks side by side at most


@dataclass(frozen=True)
class PanelMemory:
    """The memory of a worker in a pass over panels: see `PassMemory`."""

    layout: Layout
    work: Work
    panel: int  # bytes of the largest panel
    sample_rows: int
    room: float  # bytes that a worker may fill; infinite if nothing limits it

    def worker_bytes(self, ranks: Sequence[int]) -> int:
        """Return the projected peak bytes of a worker in a pass for models of these ranks."""
        work = self.work._replace(ranks=tuple(ranks))
        return worker_bytes(self.layout, work, self.panel, self.sample_rows)

    def samples_at_once(self, wanted: int) -> int:
        """Return how many samples may be drawn in one read: they fit a worker, and have `SAMPLE` bytes."""
        row = self.layout.panel_bytes(0, self.layout.rows) / max(1, self.layout.rows)
        number = max(1, min(wanted, int(SAMPLE / max(1, self.sample_rows * row))))
        while number > 1 and self._bytes_with_samples(number) > self.room:
            number -= 1
        return number

    def _bytes_with_samples(self, number: int) -> int:
        return replace(self, sample_rows=number * self.sample_rows).worker_bytes(self.work.ranks)


@dataclass(frozen=True)
class PanelPlan:
    """The panel edges of V, with their cost in memory and reads."""

    edges: tuple[int, ...]  # 0 = edges[0] < ... < edges[-1] = rows, multiples of a unit but for the last
    worker_bytes: int  # projected peak resident memory of a worker
    pass_bytes: int  # bytes of V, as in memory, that one pass reads
    sample_rows: int  # rows to draw for the start; 0: so few fit that another kind of start is needed
    column_edges: tuple[int, ...]  # edges of column blocks, for solvers that work on blocks
    tiled: bool  # whether blocks are read one by one, rather than as panels that are then divided
    prefetch: bool  # whether there is room to read one panel more than are in work
    memory: PanelMemory  # the memory of a worker in a pass, for `group_models`
    reads: ClassVar[int] = 1  # reads of V per pass


def plan_panels(
    layout: Layout,
    rank: int,
    memory_limit: int | None,
    threads: int,
    edges: tuple[int, ...] | None = None,
    blocks: bool = False,
) -> PanelPlan:
    """Return a partition of V into row panels that fit a worker.

    The edges depend on V and on the memory of a worker, but not on the number of workers, so a result does
    not depend on that number either.

    Parameters
    ----------
    layout : the shape, dtype and storage of V, with the dimension that is cut into panels first.
    rank : the number of components, k.
    memory_limit : bytes that a worker may use; None if nothing limits it.
    threads : tasks that a worker runs at once.
    edges : edges of an earlier plan that must be kept; None to choose them.
    blocks : whether to cut columns too.

    Raises
    ------
    MemoryError
        If the smallest panel does not fit; the message has the numbers and the cure.
    """
    whole = layout.panel_bytes(0, layout.rows)
    largest = min(max(whole // PANELS, _worthwhile(layout)), max(LARGEST, whole // MOST_PANELS))
    room = inf if memory_limit is None else memory_limit * USABLE
    sample = _sample_rows(layout, rank, memory_limit)
    smallest = layout.panel_bytes(0, min(layout.chunk_rows, layout.rows))
    across = _across(layout) if blocks else 1
    waiting = 2 * across if blocks and not layout.tiled else 0
    grams = layout.masked and layout.own_grams and not blocks
    work = Work((rank,), threads, waiting, grams, strata=blocks)
    good = max(smallest, min(largest, _good_size(layout, work)))
    if layout.prefetch and not blocks:
        further = work._replace(ahead=1)
        smaller = _reduced(layout, further, largest, good, sample, room)
        if worker_bytes(layout, further, smaller, sample) <= room:
            work, largest = further, smaller
    if worker_bytes(layout, work, smallest, min(sample, _fewest(rank))) > room:
        sample = 0
    fewest = _fewest(rank)
    # Panels shrink to a good size first, then the sample to enough rows; only then both go below that.
    for size, rows in ((good, _enough(rank)), (max(smallest, LEAST), fewest), (smallest, fewest)):
        largest = _reduced(layout, work, largest, size, sample, room)
        if edges is None:
            sample = _shrunk(layout, work, largest, sample, rows, room)
    edges = edges or _edges(layout, rank, largest)
    panel = int(layout.bytes_of_panels(edges).max())
    if worker_bytes(layout, work, panel, sample) > room:
        work = work._replace(ahead=0)
    sample = _shrunk(layout, work, panel, sample, fewest, room)
    if worker_bytes(layout, work, panel, sample) > room:
        sample = 0
    cuts = _cuts(layout, min(across, len(edges) - 1))
    memory = PanelMemory(layout, work, panel, sample, room)
    needed = memory.worker_bytes([rank])
    plan = PanelPlan(edges, needed, whole, sample, cuts, layout.tiled, work.ahead > 0, memory)
    if memory_limit is not None and plan.worker_bytes > room:
        raise MemoryError(_refusal(layout, plan, memory_limit, threads))
    return plan


def aligned_rows(edges: Sequence[int]) -> int:
    """Return the largest number of rows that divides every panel but the last.

    It is the number of rows of a chunk of W, so that each chunk has one writer.
    """
    return gcd(*edges[1:-1]) if len(edges) > 2 else edges[-1]


def _edges(layout: Layout, rank: int, largest: int) -> tuple[int, ...]:
    """Return edges of panels of whole chunk rows: each as large as ``largest`` bytes allow, at least one."""
    if layout.indptr is not None:
        return _sparse_edges(layout, rank, largest)
    starts = range(0, layout.rows, layout.chunk_rows)
    step = layout.panel_bytes(0, min(layout.chunk_rows, layout.rows))
    chunks = 1 if layout.density_unknown else max(1, largest // max(1, step))
    panels = -(-len(starts) // chunks)
    even = -(-len(starts) // panels)
    return (*starts[::even], layout.rows)


def _sparse_edges(layout: Layout, rank: int, largest: int) -> tuple[int, ...]:
    """Return edges of panels with about equally many stored entries.

    Panels end at steps that make chunks of W about 1 MiB. If there are few panels, their number is a power
    of 2, so that two or four threads end together.
    """
    before = np.asarray(layout.indptr, np.int64) * (layout.itemsize + 4) + 8 * np.arange(layout.rows + 1)
    panels = -(-int(before[-1]) // largest)
    if panels < PANELS:
        panels = 1 << (panels - 1).bit_length()
    step = max(1, min(MIB // (rank * layout.itemsize), layout.rows // (STEPS * panels)))
    starts = _starts(layout.rows, step)
    while step > 1 and np.diff(before[starts]).max() > largest:
        step //= 2
        starts = _starts(layout.rows, step)
    ends = before[starts]
    while panels < len(starts) - 1:
        inner = np.searchsorted(ends, ends[-1] * np.arange(1, panels) / panels)
        rising = np.concatenate([[0], inner, [len(starts) - 1]])
        edges = starts[rising[np.append(True, np.diff(rising) > 0)]]
        if np.diff(before[edges]).max() <= largest:
            return tuple(edges.tolist())
        panels += 1 + panels // PANELS
    return tuple(starts.tolist())


def _starts(rows: int, step: int) -> NDArray[np.int64]:
    return np.append(np.arange(0, rows, step), rows)


def _across(layout: Layout) -> int:
    """Return the number of column blocks that gives about `BLOCK` entries a block; V alone decides it."""
    chunks = -(-layout.columns // (layout.chunk_columns or 1))
    return max(1, min(isqrt(layout.stored // BLOCK), MOST_ACROSS, chunks))


def _cuts(layout: Layout, across: int) -> tuple[int, ...]:
    """Return the edges of column blocks, at storage chunks if blocks are read one by one."""
    step = layout.chunk_columns if layout.tiled and layout.chunk_columns else 1
    chunks = -(-layout.columns // step)
    return (*(step * (chunks * i // across) for i in range(across)), layout.columns)


def _reduced(layout: Layout, work: Work, panel: int, least: int, sample: int, room: float) -> int:
    """Return the bytes of panels, lowered from ``panel`` towards ``least`` until they fit beside a sample."""
    while panel > least and worker_bytes(layout, work, panel, sample) > room:
        panel = panel * 7 // 8
    return panel


def _shrunk(layout: Layout, work: Work, panel: int, sample: int, fewest: int, room: float) -> int:
    """Return the rows of a sample, lowered towards ``fewest`` until it fits beside panels."""
    least = min(sample, fewest)
    while sample > least and worker_bytes(layout, work, panel, sample) > room:
        sample = max(least, sample * 7 // 8)
    return sample


def _worthwhile(layout: Layout) -> int:
    """Return the bytes of a panel that takes much longer than the task that processes it."""
    return SMALLEST // SLOWER if layout.masked else SMALLEST


def _good_size(layout: Layout, work: Work) -> int:
    """Return the bytes of a panel whose fixed costs are small beside its entries.

    They are those of its task, of its sums, and of storage chunks at its ends, which are decoded for its
    neighbours too.
    """
    chunk = 0 if layout.indptr is None else layout.chunk_bytes  # dense panels are whole chunks
    return max(_worthwhile(layout), chunk, waiting_sums(layout, work.rank, work.grams))


def _enough(rank: int) -> int:
    """Return the rows of a sample for a good start: more are worth less than panels of a good size."""
    return max(SAMPLE_ROWS, SAMPLE_ROWS_PER_RANK * rank)


def _fewest(rank: int) -> int:
    """Return the fewest rows of a sample: more than two a component, as half are drawn by weight."""
    return 2 * rank + 2


def _sample_rows(layout: Layout, rank: int, memory_limit: int | None) -> int:
    """Return the number of rows to sample.

    It is 5 % of the rows, but at least those of `_enough` and `SAMPLED` entries, and at most `SAMPLE` bytes
    or 1/80 of the memory limit.
    """
    most = SAMPLE if memory_limit is None else min(SAMPLE, memory_limit // 80)
    row = max(1, layout.panel_bytes(0, layout.rows) // layout.rows)
    easy = layout.rows * SAMPLED // max(1, layout.stored)
    wanted = max(_enough(rank), layout.rows // 20, easy)
    return min(layout.rows, max(_fewest(rank), min(wanted, most // row)))


def _refusal(layout: Layout, plan: PanelPlan, memory_limit: int, threads: int) -> str:
    largest = int(layout.bytes_of_panels(plan.edges).argmax())
    first, last = plan.edges[largest : largest + 2]
    return (
        f"the smallest panel does not fit: {last - first} rows x {layout.columns} columns take "
        f"{layout.panel_bytes(first, last) / MIB:.0f} MiB, and a worker running {threads} at once would "
        f"need {plan.worker_bytes / MIB:.0f} MiB of the {memory_limit * USABLE / MIB:.0f} MiB it may fill "
        f"(its limit is {memory_limit / MIB:.0f} MiB); give it at least "
        f"{plan.worker_bytes / USABLE / MIB:.0f} MiB, fewer threads, or store V in chunks of fewer rows"
    )
