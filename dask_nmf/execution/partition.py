"""Resources of the active cluster, and the cut of V into panels or blocks that fit its workers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from distributed.system import MEMORY_LIMIT
from distributed.utils import get_ip

from dask_nmf.cluster import config
from dask_nmf.cluster.client import active_client, is_loopback, shares_memory
from dask_nmf.cluster.watch import run_on_live_workers, wait_for_workers
from dask_nmf.errors import DataError
from dask_nmf.execution.engines.panels import PanelEngine
from dask_nmf.kernels.blocks.masking import EVERYTHING, EntryMask
from dask_nmf.planning import grid, row_panels, worker_memory
from dask_nmf.planning.grid import Edges, GridPlan
from dask_nmf.planning.model_groups import ModelGroups, group_models
from dask_nmf.planning.row_panels import PanelPlan
from dask_nmf.planning.worker_memory import Layout
from dask_nmf.process_settings import CPU_COUNT
from dask_nmf.sources.labels.names import NO_LABELS
from dask_nmf.sources.matrix import Matrix

UNLIMITED = MEMORY_LIMIT / 4  # bytes that a process without a limit may cache
KEPT = 0.8  # share of the memory that a plan leaves; cached blocks fragment the rest


class Resources(NamedTuple):
    """The resources of the workers: the least memory limit, the most threads of one, and their number."""

    memory_limit: int | None  # bytes; None if there is no limit
    threads: int
    workers: int
    here: int = 1  # workers that share the memory of this machine, or of its container, with the client

    @property
    def client_room(self) -> int:
        """The bytes that the client may fill: as configured, or a share of what workers here leave."""
        configured = config.read().client_memory
        if configured is not None:
            return int(configured)
        filled = (
            UNLIMITED if self.memory_limit is None else self.here * worker_memory.USABLE * self.memory_limit
        )
        return max(0, int(worker_memory.USABLE * (MEMORY_LIMIT - filled)))


def resources() -> Resources:
    """Return the resources of the active cluster, or the threads of this process if there is none.

    Raises
    ------
    NoWorkers
        If no worker comes: see `wait_for_workers`.
    MemoryError
        If the memory limit of a worker is too small for it to run.
    """
    client = active_client()
    if client is None:
        return Resources(None, CPU_COUNT, 1)
    workers: dict[str, Any] = {}
    while not workers:  # the first worker may be lost again
        wait_for_workers()
        workers = client.scheduler_info(n_workers=-1)["workers"]
    limits = {
        address: worker["memory_limit"] for address, worker in workers.items() if worker["memory_limit"]
    }
    for address, limit in limits.items():
        worker_memory.check_limit(limit, f"the memory limit of the worker at {address}")
    threads = max(worker["nthreads"] for worker in workers.values())
    here = sum(is_loopback(address) or worker["host"] == get_ip() for address, worker in workers.items())
    return Resources(min(limits.values(), default=None), threads, len(workers), here)


def check_sight(matrix: Matrix) -> None:
    """Refuse a V in files that some worker does not see, because Zarr reads missing chunks as zeros.

    Raises
    ------
    DataError
        If a worker does not see it. The text has its address.
    """
    client = active_client()
    if client is None or not matrix.workers_can_read:
        return
    ours, sent = matrix.fingerprint(), replace(matrix, labels=NO_LABELS)
    for address, theirs in run_on_live_workers(sent.fingerprint).items():
        if theirs != ours:
            raise DataError(
                f"the worker at {address} does not see {matrix.source} as this process does; "
                "put it where all workers reach it under the same path, or give them credentials of its store"
            )


@dataclass(frozen=True)
class CutOptions:
    """Options of the cut of V into panels.

    Attributes
    ----------
    edges : the edges of panels of an earlier plan, which are kept; None: they are planned.
    blocks : whether a pass goes over blocks of the panels, so that the plan has edges of columns too.
    own_grams : whether the sums of a pass have a gram matrix for each column.
    cache : the most bytes of panels that a worker caches between passes, of those that the plan leaves free;
        None: all of these.
    ranks : the number of components of each model that shares a pass; none: one, of the rank of the cut.
    other_ranks : further ranks to plan panels for. The plan is taken with which a pass of all models takes
        the fewest reads of V, the first one of equals.
    offer : the resources to plan for; None: those of the active cluster.
    """

    edges: tuple[int, ...] | None = None
    blocks: bool = False
    own_grams: bool = True
    cache: int | None = 0
    ranks: tuple[int, ...] = ()
    other_ranks: tuple[int, ...] = ()
    offer: Resources | None = None


def cut_into_panels(
    matrix: Matrix,
    rank: int,
    weights: Matrix | None = None,
    rule: EntryMask = EVERYTHING,
    options: CutOptions = CutOptions(),
) -> tuple[PanelEngine, PanelPlan]:
    """Return an engine of panels that fit the workers, which must all see V, and its plan (`plan_panels`).

    Raises
    ------
    MemoryError, DataError
        If a panel does not fit; if a worker does not see V or its weights.
    """
    offer = options.offer or resources()
    layout = replace(
        matrix.layout,
        masked=not (rule.uses_whole_blocks or rule.by_groups),
        listed=rule.lists_stored and weights is None and matrix.layout.indptr is not None,
        by_batches=rule.by_groups,
        labels=rule.labels,
        settles=matrix.orientation.by_columns and not rule.held_out,
        own_grams=options.own_grams,
        prefetch=matrix.worth_caching,
        weights=None if weights is None else weights.layout,
        at_client=matrix.bytes_here,
        chunk_columns=matrix.layout.chunk_columns if matrix.workers_can_read else None,
    )
    planned, groups = _plan(layout, (rank, *options.other_ranks), offer, options)
    for part in (matrix, weights):
        if part is not None:
            check_sight(part)
    lost = active_client() is None and not shares_memory()  # the cache, or it is never evicted
    lost = lost or (options.blocks and offer.workers > 1)
    room = 0 if lost else _spare(offer.memory_limit, groups.worker_bytes, options.cache)
    return PanelEngine(matrix, planned.edges, weights, rule, room, planned.prefetch), planned


def _plan(
    layout: Layout, ranks: Sequence[int], offer: Resources, options: CutOptions
) -> tuple[PanelPlan, ModelGroups]:
    """Return the plan for one of some ranks with which a pass of all models takes the fewest reads of V.

    The first one of equals is taken, and ranks without a plan are left out.

    Raises
    ------
    MemoryError
        If there is no plan at all, for the least rank.
    """
    plans: list[tuple[PanelPlan, ModelGroups]] = []
    refusals: dict[int, MemoryError] = {}
    for rank in ranks:
        try:
            planned = row_panels.plan_panels(
                layout, rank, offer.memory_limit, offer.threads, options.edges, options.blocks
            )
            plans.append((planned, group_models(planned, options.ranks or (rank,))))
        except MemoryError as error:
            refusals[rank] = error
            continue
        if plans[-1][1].reads == planned.reads:
            break
    if not plans:
        raise refusals[min(refusals)]
    return min(plans, key=lambda made: made[1].reads)


def _spare(memory_limit: int | None, worker_bytes: int, cache: int | None) -> int:
    """Return the bytes of panels that a worker may cache; without a limit, a quarter of the memory here."""
    if cache == 0:
        return 0
    if memory_limit is not None:
        spare = KEPT * (memory_limit * worker_memory.USABLE - worker_bytes)
    else:
        spare = UNLIMITED
    return max(0, int(spare if cache is None else min(spare, cache)))


def plan_blocks(
    matrix: Matrix, rank: int, kept: Edges | None = None, offer: Resources | None = None
) -> GridPlan:
    """Return a plan of blocks that fit the workers (see `plan_grid`); raise as `cut_into_panels` does."""
    offer = offer or resources()
    made = grid.plan_grid(matrix.layout, rank, offer.memory_limit, offer.threads, kept)
    check_sight(matrix)
    return made
