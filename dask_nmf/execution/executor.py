"""Computation of graphs on the active cluster or in this process, with retries if workers are lost."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import dask
import dask.array as da
from dask.delayed import Delayed
from dask.highlevelgraph import HighLevelGraph
from distributed import Future, wait

from dask_nmf import progress
from dask_nmf.cluster.client import PersistedLayer, active_client
from dask_nmf.cluster.watch import WORKER_LOSS, call_watched, compute_watched, explain_loss, wait_for_workers
from dask_nmf.errors import WorkersLost
from dask_nmf.execution.graphs import reduction
from dask_nmf.execution.tasks import blas
from dask_nmf.process_settings import SharedSetting

logger = logging.getLogger(__name__)

QUIET = {"distributed.admin.large-graph-warning-threshold": "1 GiB"}  # H is part of the graph
ATTEMPTS = 4  # at a pass, if its data is lost with workers
_quiet = SharedSetting(lambda: dask.config.set(QUIET))


def persist(*arrays: da.Array) -> tuple[da.Array, ...]:
    """Compute arrays; return them with their blocks in (distributed) memory."""
    held: tuple[da.Array, ...] = dask.persist(*arrays)
    if active_client() is not None:
        call_watched(lambda: wait(held))
    return tuple(map(guard_persisted, held))


def guard_persisted(array: da.Array) -> da.Array:
    """Return a persisted array with its futures in a `PersistedLayer`; without a cluster, as it is."""
    client = active_client()
    if client is None:
        return array
    layers = dict(array.dask.layers)
    for name, layer in layers.items():
        if all(isinstance(part, Future) for part in layer.values()):
            layers[name] = PersistedLayer(dict(layer), client)
    graph = HighLevelGraph(layers, array.dask.dependencies)
    return da.Array(graph, array.name, array.chunks, meta=array._meta)


def compute_with_retries(
    graph: Callable[[], list[Delayed]],
    renew: Callable[[], None] = lambda: None,
    homes: Callable[[], dict[int, str]] = dict,
    reads: int = 0,
) -> list[Any]:
    """Build a graph and compute it; retry from the sources if data is lost with workers.

    Parameters
    ----------
    graph : builds the nodes whose values are returned.
    renew : called before a retry, to take V from its source again.
    homes : returns the address of the preferred worker by the number of a panel; idle workers may take any.
    reads : the number of panels or blocks of V that are read, which `progress` then follows.

    Raises
    ------
    WorkersLost, NoWorkers
        If `ATTEMPTS` attempts fail; if no worker comes.
    """
    for attempt in range(1, ATTEMPTS + 1):
        wait_for_workers()
        try:
            if attempt > 1:
                renew()
            if reads:
                progress.report_read(reads)
            with blas.one_blas_thread(), _quiet.held():
                nodes = graph()  # building it may compute a part of it
                prefer_workers(nodes, homes())
                return compute_watched(nodes)
        except WORKER_LOSS as error:
            if attempt == ATTEMPTS:
                raise WorkersLost(f"a pass was lost {ATTEMPTS} times: {explain_loss(error)}") from error
            numbers = {"event": "retry", "attempt": attempt}
            logger.warning("the pass starts again: %s", explain_loss(error), extra={"nmf": numbers})
    raise AssertionError("unreachable")


def prefer_workers(nodes: list[Delayed], homes: dict[int, str]) -> None:
    """Annotate the tasks of panels and of their sums with preferred workers, by the number of the panel.

    `dask.annotate` would apply to all threads of this process, and another one may compute another fit.
    """
    for layer in {id(layer): layer for node in nodes for layer in node.dask.layers.values()}.values():
        chosen = layer.annotations or {}  # annotations of the caller
        numbers = () if "workers" in chosen else ((key, reduction.panel_of(key)) for key in layer)
        places = {key: (homes[number],) for key, number in numbers if number in homes}
        if places:
            # The scheduler can unpickle this function even if it lacks this package.
            workers = defaultdict(tuple, places).__getitem__
            layer.annotations = chosen | {"workers": workers, "allow_other_workers": True}
