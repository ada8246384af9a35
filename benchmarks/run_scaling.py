"""Measure what a pass costs besides reading and computing, and predict passes on larger clusters.

`pass_seconds` is the model, and docs/scaling.md has its results. It is checked against runs on one, two and
four workers.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from functools import partial
from math import ceil, log
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import zarr
from distributed import Client, Future, LocalCluster
from lib import environment
from lib.datasets import COLUMNS, RANK, write_zarr
from lib.passes import hals_pass, idle_pass, open_panels
from lib.timing import elapsed, interleaved, median_ratio

from dask_nmf.cluster.backends.local import local_cluster
from dask_nmf.execution.graphs.reduction import FAN_IN
from dask_nmf.planning.row_panels import LARGEST, MOST_PANELS
from dask_nmf.planning.worker_memory import MIB

GIGABYTES = 1.0
LIMIT = 600_000_000  # bytes of memory of each worker
ROUNDS = 3
TERA = 1e12


class Cost(NamedTuple):
    """The rates of a cluster."""

    worker: float  # bytes of V that one worker reads and works on, a second
    overhead: float  # seconds that client and scheduler take for a panel
    network: float  # bytes a second, of one worker
    latency: float  # seconds, of a message
    update: float  # seconds, of H from its sums, for an entry of H


def pass_seconds(m: int, n: int, k: int, workers: int, cost: Cost, itemsize: int = 4) -> float:
    """Return the seconds that one pass over V, (m, n), with H, (k, n), takes on so many workers."""
    size = m * n * itemsize
    panels = ceil(size / max(LARGEST, size / MOST_PANELS))
    computing = size / (workers * cost.worker)
    broadcast = (
        ceil(log(workers, 2)) * (k * n * itemsize / cost.network + cost.latency) if workers > 1 else 0.0
    )
    levels = ceil(log(workers, FAN_IN)) if workers > 1 else 0
    reduction = levels * ((FAN_IN - 1) * k * n * 8 / cost.network + cost.latency)
    return max(computing, panels * cost.overhead) + broadcast + reduction + k * n * cost.update


def nothing(*parts: Any) -> int:
    return 0


def bare(client: Client, panels: int) -> None:
    """Run as many empty tasks as a pass has, and a tree of them, straight from the client."""
    level: list[Future] = client.map(nothing, range(panels), pure=False)
    while len(level) > 1:
        groups = (level[first : first + FAN_IN] for first in range(0, len(level), FAN_IN))
        level = [client.submit(nothing, group, pure=False) for group in groups]
    level[0].result()


def overhead(panels: int, workers: int, threads: int, rounds: int = ROUNDS) -> float:
    """Return the seconds that a panel without work takes, and print them beside those of bare tasks.

    All workers are in this process.
    """
    with (
        LocalCluster(
            n_workers=workers,
            threads_per_worker=threads,
            processes=False,
            memory_limit=None,
            dashboard_address=None,
        ) as local,
        Client(local) as client,
    ):
        idle_pass(FAN_IN)
        works: dict[str, Callable[[], float]] = {
            "ours": partial(elapsed, partial(idle_pass, panels)),
            "bare": partial(elapsed, partial(bare, client, panels)),
        }
        times = interleaved(works, rounds)
    ours = median(times["ours"]) / panels
    print(
        f"{panels} panels, {workers} workers of {threads} threads: {1e3 * ours:.2f} ms a panel, "
        f"{median_ratio(times['ours'], times['bare']):.2f} x client.map and a tree",
        flush=True,
    )
    return ours


def real_pass(path: str, workers: int) -> float:
    """Return the seconds of a pass over V in Zarr that reads all panels again."""
    with local_cluster(workers, 1, LIMIT):
        panels, _ = open_panels(path, RANK)
        h = np.random.default_rng(0).random((RANK, COLUMNS)).astype(panels.matrix.dtype)
        run = partial(hals_pass, panels, h)
        run()
        return median(elapsed(run) for _ in range(ROUNDS))


def check(gigabytes: float, each: float) -> None:
    """Print passes on one, two and four workers beside the model's; it assumes two cores."""
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/V.zarr"
        write_zarr(path, gigabytes)
        m, n = zarr.open_array(path, mode="r").shape
        alone = real_pass(path, 1)
        cost = Cost(m * n * 4 / alone, each, 1e9, 1e-3, 0.0)
        for workers in (1, 2, 4):
            seconds = alone if workers == 1 else real_pass(path, workers)
            expected = pass_seconds(m, n, RANK, min(workers, 2), cost)
            print(f"{workers} workers: a pass {seconds:.2f} s, {seconds / expected:.2f} of the model's")


def predict_clusters(each: float) -> None:
    """Print the model's prediction for larger clusters."""
    cost = Cost(300 * MIB, each, 1e9, 1e-3, 1e-8)
    for workers, terabytes, n, k in ((10, 1, 5000, 32), (100, 10, 20_000, 64), (1000, 100, 20_000, 64)):
        seconds = pass_seconds(round(terabytes * TERA / (4 * n)), n, k, workers, cost)
        print(f"{workers} workers, {terabytes} TB, n = {n}, k = {k}: a pass {seconds:.0f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--gigabytes", type=float, default=GIGABYTES, help="of V (default: %(default)s)")
    parser.add_argument("--panels", type=int, default=10_000, help="without work (default: %(default)s)")
    arguments = parser.parse_args()
    print(environment.describe())
    for workers in (2, 8):
        overhead(min(1000, arguments.panels), workers, 1)
    each = overhead(arguments.panels, 4, 16, rounds=1)
    check(arguments.gigabytes, each)
    predict_clusters(each)


if __name__ == "__main__":
    main()
