"""The work of a fit as its processes have counted it: seconds by part of the tasks, and peak memory."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from dask_nmf.cluster.client import active_client
from dask_nmf.cluster.watch import WORKER_LOSS, call_watched, run_on_workers
from dask_nmf.errors import NoWorkers
from dask_nmf.execution.tasks import stopwatch
from dask_nmf.execution.tasks.prefetch import own_threads


def work_of(fit: str) -> dict[str, Any]:
    """Return the work of a fit, as JSON holds it, and let the processes forget it.

    Without a cluster this process is the one worker. Workers that left have taken their counts with them.

    Returns
    -------
    ``workers``, in the order of their addresses, each with ``threads`` and what `stopwatch.take` returns, and
    ``client_bytes``, the peak memory of this process.
    """
    client, threads, counted = active_client(), {"": own_threads()}, {}
    if client is None:
        counted = {"": stopwatch.take(fit)}
    else:
        with suppress(*WORKER_LOSS, NoWorkers):  # the factors are worth more than these figures
            counted = run_on_workers(stopwatch.take, fit, on_error="ignore")
            threads = call_watched(client.nthreads)
    workers = [
        {"threads": threads.get(address, 1), **{name: round(value, 4) for name, value in parts.items()}}
        for address, parts in sorted(counted.items())
    ]
    return {"workers": workers, "client_bytes": stopwatch.peak_memory()}
