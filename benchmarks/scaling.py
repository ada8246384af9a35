"""What a pass costs besides reading and computing, and what it will take on clusters that are not here.

`pass_seconds` is the model; docs/scaling.md reads it out. It is checked against runs on one, two and four
workers.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import ceil, log
from statistics import median
from typing import Any, NamedTuple

import machine
import numpy as np
from distributed import Client, Future, LocalCluster
from out_of_core import LIMIT, RANK, write
from rounds import elapsed, in_turn, ratio

from dask_nmf.cluster import launch
from dask_nmf.execution import partition
from dask_nmf.execution.graphs.passes import PassSpec
from dask_nmf.execution.graphs.reduction import FAN_IN
from dask_nmf.execution.panel_engine import PanelEngine
from dask_nmf.kernels.least_squares import Sums
from dask_nmf.planning.row_panels import LARGEST, MIB, MOST_PANELS, Layout
from dask_nmf.solvers.hals import HALS
from dask_nmf.sources.matrix import Matrix
from dask_nmf.sources.reader import ReaderDefaults
from dask_nmf.sources.registry import open_matrix
from dask_nmf.types import Array

GIGABYTES = 1.0
REPEATS = 3
TERA = 1e12


class Cost(NamedTuple):
    """Of a cluster."""

    worker: float  # bytes of V that one worker reads and works on, a second
    overhead: float  # seconds that client and scheduler take for a panel
    network: float  # bytes a second, of one worker
    latency: float  # seconds, of a message
    update: float  # seconds, of H from its sums, for an entry of H


def pass_seconds(m: int, n: int, k: int, workers: int, cost: Cost, itemsize: int = 4) -> float:
    """Of one pass over V (m × n) with H (k × n)."""
    size = m * n * itemsize
    panels = ceil(size / max(LARGEST, size / MOST_PANELS))
    of_workers = size / (workers * cost.worker)
    given = ceil(log(workers, 2)) * (k * n * itemsize / cost.network + cost.latency) if workers > 1 else 0.0
    levels = ceil(log(workers, FAN_IN)) if workers > 1 else 0
    summed = levels * ((FAN_IN - 1) * k * n * 8 / cost.network + cost.latency)
    return max(of_workers, panels * cost.overhead) + given + summed + k * n * cost.update


@dataclass(frozen=True)
class Nothing(ReaderDefaults):
    """A V whose panels cost nothing."""

    shape: tuple[int, int]
    dtype = np.dtype(np.float32)

    def __getitem__(self, index: tuple[slice, slice]) -> Array:
        return np.zeros((index[0].stop - index[0].start, self.shape[1]), np.float32)


class Idle:
    """A solver that does nothing."""

    def weigh(self, v: Any, h: Array, w: Array | None) -> Array:
        return np.zeros((1, 1))

    def learn(self, v: Any, w: Array, h: Array, exact: bool) -> Sums:
        return Sums(np.zeros(0), np.zeros(0), 0.0)

    def error(self, v: Any, w: Array, h: Array) -> float:
        return 0.0


def nothing(*parts: Any) -> int:
    return 0


def bare(client: Client, panels: int) -> None:
    """As many tasks, and a tree of theirs, straight from the client."""
    level: list[Future] = client.map(nothing, range(panels), pure=False)
    while len(level) > 1:
        groups = (level[first : first + FAN_IN] for first in range(0, len(level), FAN_IN))
        level = [client.submit(nothing, group, pure=False) for group in groups]
    level[0].result()


def idle_pass(panels: int) -> None:
    shape = (panels, 4)
    matrix = Matrix(shape, Nothing.dtype, "nothing", False, Layout(*shape, 4), Nothing(shape))
    solver, h = Idle(), np.zeros((1, 4), np.float32)
    PanelEngine(matrix, tuple(range(panels + 1))).run_pass(h, PassSpec(solver.weigh, solver))


def overhead(panels: int, workers: int, threads: int, rounds: int = REPEATS) -> float:
    """Seconds for a panel that does nothing; beside as many bare tasks. All workers are in this process."""
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
        kinds: dict[str, Callable[[], float]] = {
            "ours": partial(elapsed, partial(idle_pass, panels)),
            "bare": partial(elapsed, partial(bare, client, panels)),
        }
        spent = in_turn(kinds, rounds)
    ours = median(spent["ours"]) / panels
    print(
        f"{panels} panels, {workers} workers of {threads} threads: {1e3 * ours:.2f} ms a panel, "
        f"{ratio(spent['ours'], spent['bare']):.2f} x client.map and a tree",
        flush=True,
    )
    return ours


def real_pass(path: str, workers: int) -> float:
    """Seconds of a pass over V in Zarr, whose panels are read anew."""
    with launch.local_cluster(workers, 1, LIMIT):
        matrix = open_matrix(path)
        panels, _ = partition.cut(matrix, RANK)
        h = np.random.default_rng(0).random((RANK, matrix.layout.columns)).astype(matrix.dtype)
        sweep = partial(panels.run_pass, h, PassSpec(HALS().weigh, HALS()))
        sweep()
        return median(elapsed(sweep) for _ in range(REPEATS))


def check(gigabytes: float, each: float) -> None:
    """The model against passes on one, two and four workers; there are but two cores here."""
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/V.zarr"
        write(path, gigabytes)
        m, n = open_matrix(path).shape
        alone = real_pass(path, 1)
        cost = Cost(m * n * 4 / alone, each, 1e9, 1e-3, 0.0)
        for workers in (1, 2, 4):
            found = alone if workers == 1 else real_pass(path, workers)
            expected = pass_seconds(m, n, RANK, min(workers, 2), cost)
            print(f"{workers} workers: a pass {found:.2f} s, {found / expected:.2f} of the model's")


def read_out(each: float) -> None:
    """What the model says of clusters that are not here."""
    cost = Cost(300 * MIB, each, 1e9, 1e-3, 1e-8)
    for workers, terabytes, n, k in ((10, 1, 5000, 32), (100, 10, 20_000, 64), (1000, 100, 20_000, 64)):
        seconds = pass_seconds(round(terabytes * TERA / (4 * n)), n, k, workers, cost)
        print(f"{workers} workers, {terabytes} TB, n = {n}, k = {k}: a pass {seconds:.0f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--gigabytes", type=float, default=GIGABYTES, help="of V (default: %(default)s)")
    parser.add_argument("--panels", type=int, default=10_000, help="of nothing (default: %(default)s)")
    asked = parser.parse_args()
    print(machine.name())
    for workers in (2, 8):
        overhead(min(1000, asked.panels), workers, 1)
    each = overhead(asked.panels, 4, 16, rounds=1)
    check(asked.gigabytes, each)
    read_out(each)


if __name__ == "__main__":
    main()
