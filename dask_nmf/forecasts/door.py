"""The function `plan`, with every option written out that changes a plan."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from dask_nmf.cluster.backends.local import WorkerSizes
from dask_nmf.cluster.config import ClusterSpec
from dask_nmf.cluster.launch import planned_workers
from dask_nmf.fitting.factorise import cache_bytes
from dask_nmf.fitting.request import FitRequest
from dask_nmf.forecasts.forecast import Connect, plan_fit, plan_selection
from dask_nmf.forecasts.plan import Plan
from dask_nmf.options.keywords import reject_unknown_keywords
from dask_nmf.options.settings import Settings
from dask_nmf.selection.models import SelectionOptions
from dask_nmf.sources.matrix import Matrix
from dask_nmf.storage.locations import located


@reject_unknown_keywords
def plan(
    V: Any,
    n_components: int | None = None,
    *,
    ranks: str | int | Iterable[int] | None = None,
    n_init: int | None = None,
    folds: int = 1,
    holdout: float = 0.03,
    solver: str = "hals",
    beta_loss: str | float = "frobenius",
    init: str | None = None,
    max_iter: int = 200,
    missing: str | None = None,
    validation_fraction: float = 0.0,
    weights: Any = None,
    dtype: str | None = None,
    cache: int | str = "auto",
    workers: int | None = None,
    threads_per_worker: int | None = None,
    memory_limit: int | str | None = None,
    probe: bool = True,
) -> Plan:
    """Return what a fit of V (m × n) with `nmf` would cost: memory, reads, tasks and seconds.

    It is the plan that the fit makes. Nothing is written, and no cluster is started. For the seconds one
    panel of V is read and multiplied in this process; the rest of V is not read.

    Parameters
    ----------
    V : the matrix, in any form that `open_matrix` accepts: an array, a sparse matrix, a Dask array, or a
        path.
    n_components : number of components, k, of one fit.
    ranks : instead of it, the ranks that `select_rank` would compare, as that takes them, with a store.
    n_init, folds, holdout : as in `nmf` and `select_rank`, with the defaults of these.
    solver, beta_loss, init, max_iter, missing, validation_fraction, weights, dtype, cache : as in `nmf`.
    workers, threads_per_worker, memory_limit : the processes to plan for, the threads of each, and its memory
        in bytes or as text (``"2GiB"``). Without any of them the plan is for the active client or, if there
        is none, for the threads of this process.
    probe : whether a panel is read; without it a plan has no seconds.

    Returns
    -------
    Plan

    Raises
    ------
    MemoryError
        If neither a panel nor a block of V fits the memory of a worker, as in the fit.
    InvalidEntryError
        If the panel that is read has a negative or infinite entry, or NaN unless ``missing="nan"``.
    ValueError, TypeError
        If V or an option is not as described above, or both or neither of ``n_components`` and ``ranks`` is
        given.

    Examples
    --------
    >>> import numpy as np
    >>> from dask_nmf import plan
    >>> forecast = plan(np.ones((1000, 20)), 5, probe=False)
    >>> forecast.shape, forecast.panels
    ((1000, 20), 1)
    """
    if (n_components is None) == (ranks is None):
        raise ValueError(
            f"n_components is {n_components!r} and ranks is {ranks!r}; give n_components for the plan of a "
            "fit, or ranks for that of a selection"
        )
    connect = _connect(ClusterSpec(None, workers, threads_per_worker, memory_limit))
    shared = {"solver": solver, "beta_loss": beta_loss, "max_iter": max_iter, "missing": missing}
    if n_components is not None:
        settings = Settings(
            n_components,
            init=init,
            n_init=1 if n_init is None else n_init,
            validation_fraction=validation_fraction,
            **shared,  # type: ignore[arg-type]
        )
        request = FitRequest(settings, weights=located(weights), dtype=dtype, cache=cache_bytes(cache))
        return plan_fit(located(V), request, connect, probe)
    options = SelectionOptions.of(ranks, 5 if n_init is None else n_init, folds, holdout, **shared)
    request = FitRequest(options.settings, dtype=dtype, cache=cache_bytes(cache))
    return plan_selection(located(V), options, request, connect, probe)


def _connect(spec: ClusterSpec) -> Connect:
    """Return the context of the workers to plan for."""

    @contextmanager
    def connect(matrix: Matrix) -> Iterator[WorkerSizes | None]:
        yield planned_workers(spec, matrix.bytes) if spec.sized else None

    return connect
