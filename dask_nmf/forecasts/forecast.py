"""Plans of fits and of selections of ranks, for the function `dask_nmf.plan` and for the command."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from dask_nmf.cluster.backends.local import WorkerSizes
from dask_nmf.execution.partition import Resources, resources
from dask_nmf.fitting.factorise import open_request
from dask_nmf.fitting.request import FitRequest
from dask_nmf.forecasts.plan import Plan, make_plan
from dask_nmf.forecasts.subject import cut_for_fit, cut_for_selection
from dask_nmf.selection.models import SelectionOptions
from dask_nmf.sources.matrix import Matrix
from dask_nmf.sources.registry import open_matrix

Connect = Callable[[Matrix], AbstractContextManager[WorkerSizes | None]]


def plan_fit(V: Any, request: FitRequest, connect: Connect, probing: bool = True) -> Plan:
    """Return the plan of a fit of V.

    Parameters
    ----------
    connect : returns a context that gives the workers to plan for; None: those of the active cluster, or the
        threads of this process.
    probing : whether a panel is read and multiplied, for the seconds.

    Raises
    ------
    MemoryError, ValueError, DataError
        As the fit does before its first read.
    """
    matrix, request = open_request(V, request)
    with connect(matrix) as sizes, cut_for_fit(matrix, request, _resources(sizes)) as subject:
        return make_plan(subject, probing)


def plan_selection(
    V: Any, options: SelectionOptions, request: FitRequest, connect: Connect, probing: bool = True
) -> Plan:
    """Return the plan of a selection of ranks for V; the arguments and errors are as those of `plan_fit`.

    Parameters
    ----------
    request : its dtype and its cache are those of the selection.
    """
    matrix = open_matrix(V, request.dtype)
    with (
        connect(matrix) as sizes,
        cut_for_selection(matrix, options, request.cache, _resources(sizes)) as subject,
    ):
        return make_plan(subject, probing)


def _resources(sizes: WorkerSizes | None) -> Resources:
    if sizes is None:
        return resources()
    return Resources(sizes.memory_limit, sizes.threads, sizes.workers, sizes.workers)
