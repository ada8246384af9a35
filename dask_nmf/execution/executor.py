"""The loop over passes, and the only module that computes."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import dask
import dask.array as da
from dask.delayed import Delayed
from distributed import wait

from dask_nmf import progress
from dask_nmf.cluster.client import active_client, guard_persisted
from dask_nmf.cluster.watch import WORKER_LOSS, call_watched, compute_watched, explain_loss, wait_for_workers
from dask_nmf.errors import WorkersLost
from dask_nmf.execution.graphs import reduction
from dask_nmf.execution.tasks import blas
from dask_nmf.process_settings import SharedSetting

logger = logging.getLogger(__name__)

QUIET = {"distributed.admin.large-graph-warning-threshold": "1 GiB"}  # H is part of the graph
ATTEMPTS = 4  # at a pass whose data was lost with its workers
_quiet = SharedSetting(lambda: dask.config.set(QUIET))


def persist(*arrays: da.Array) -> tuple[da.Array, ...]:
    """Arrays computed, their blocks in (distributed) memory."""
    held: tuple[da.Array, ...] = dask.persist(*arrays)
    if active_client() is not None:
        call_watched(lambda: wait(held))
    return tuple(map(guard_persisted, held))


def compute_with_retries(
    graph: Callable[[], list[Delayed]],
    renew: Callable[[], None] = lambda: None,
    homes: Callable[[], dict[int, str]] = dict,
    reads: int = 0,
) -> list[Any]:
    """Build a graph and compute it; again, from the sources, if workers took V with them.

    ``homes``: the workers that panels are best sent to; another that is idle may take them. ``reads``: so
    many panels or blocks of V are read, which `progress` then follows.
    """
    for attempt in range(1, ATTEMPTS + 1):
        wait_for_workers()
        try:
            if attempt > 1:
                renew()
            if reads:
                progress.report_read(reads)
            with blas.one_blas_thread(), _quiet.held():
                nodes = graph()  # which may compute a part of it already
                prefer_workers(nodes, homes())
                return compute_watched(nodes)
        except WORKER_LOSS as error:
            if attempt == ATTEMPTS:
                raise WorkersLost(f"a pass was lost {ATTEMPTS} times: {explain_loss(error)}") from error
            logger.warning("the pass starts again: %s", explain_loss(error))
    raise AssertionError("unreachable")


def prefer_workers(nodes: list[Delayed], homes: dict[int, str]) -> None:
    """Annotate the graphs: tasks of panels, and of their sums, are best sent to these workers.

    `dask.annotate` would hold for all threads of this process, and another may be fitting something else.
    """
    for layer in {id(layer): layer for node in nodes for layer in node.dask.layers.values()}.values():
        chosen = layer.annotations or {}  # by the caller
        numbers = () if "workers" in chosen else ((key, reduction.panel_of(key)) for key in layer)
        places = {key: (homes[number],) for key, number in numbers if number in homes}
        if places:
            # a function that the scheduler can load, though it may not have this package
            workers = defaultdict(tuple, places).__getitem__
            layer.annotations = chosen | {"workers": workers, "allow_other_workers": True}
