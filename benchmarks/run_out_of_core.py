"""Factorise a V that is larger than the memory of the workers: peak memory, spilling, the cost of a pass."""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from statistics import median
from typing import NamedTuple

import numpy as np
from distributed import Client, Worker
from lib import environment
from lib.datasets import RANK, write_zarr
from lib.passes import PanelEngine, bare_pass, hals_pass, multiply, open_panels, read, without_prefetch
from lib.timing import interleaved, median_ratio

from dask_nmf import nmf
from dask_nmf.cluster.backends.local import local_cluster
from dask_nmf.iteration.loop import Step
from dask_nmf.types import Array

LIMIT = 600_000_000  # bytes of memory of each worker
ROUNDS = 3


def keeps_in_memory(dask_worker: Worker) -> bool:
    """Return whether the worker has no disk to spill to."""
    return type(dask_worker.data) is dict


def fit(client: Client, path: str, store: str) -> Array:
    """Factorise V, print peaks and times, and return H."""
    steps: list[tuple[float, Step]] = []
    before = client.run(os.getpid)
    started = time.monotonic()
    result = nmf(path, RANK, store=store, max_iter=5, callback=lambda s: steps.append((time.monotonic(), s)))
    ended = time.monotonic()
    for address, pid in client.run(os.getpid).items():
        restarted = "" if before.get(address) == pid else ", RESTARTED"
        peak = environment.peak_memory(pid)
        print(f"peak of worker {address}: {peak:.0f} MB of {LIMIT / 1e6:.0f} MB{restarted}")
    print(f"peak of the client: {environment.peak_memory(os.getpid()):.0f} MB")
    print(f"nothing can be spilled: {all(client.run(keeps_in_memory).values())}")
    seconds = median(step.seconds for _, step in steps)
    first = steps[0][0] - steps[0][1].seconds - started
    print(f"first read and start {first:.2f} s, a pass {seconds:.2f} s, W {ended - steps[-1][0]:.2f} s")
    print(f"relative error {result.relative_error:.5f} after {result.n_iter} passes")
    return np.asarray(result.H)


class Cost(NamedTuple):
    """The time of one read of all panels."""

    wall: float  # seconds
    cpu: float  # seconds of all workers


def cost(client: Client, work: Callable[[], object]) -> Cost:
    """Return the wall time and the workers' processor time of a call."""
    started, before = time.monotonic(), sum(client.run(time.process_time).values())
    work()
    return Cost(time.monotonic() - started, sum(client.run(time.process_time).values()) - before)


def compare(client: Client, panels: PanelEngine, h: Array) -> None:
    """Print the cost of a pass beside those of the bare ones."""
    works: dict[str, Callable[[], object]] = {
        "read only": lambda: bare_pass(panels, read, h),
        "read and the bare products": lambda: bare_pass(panels, multiply, h),
        "a pass": lambda: hals_pass(panels, h),
    }

    def measured(work: Callable[[], object]) -> Callable[[], Cost]:
        return lambda: cost(client, work)

    costs = interleaved({name: measured(work) for name, work in works.items()}, ROUNDS)
    columns = {name: list(zip(*turns, strict=True)) for name, turns in costs.items()}
    for name, both in columns.items():
        wall, cpu = map(median, both)
        print(f"{name}: {wall:.2f} s, {cpu:.2f} s of the processors")
    wall, cpu = map(median_ratio, columns["a pass"], columns["read and the bare products"])
    print(f"a pass / (read and the bare products): {wall:.2f}, by the processors' time {cpu:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=4.0, help="of V (default: 4)")
    parser.add_argument("--folder", help="where V and the run are kept meanwhile (default: a temporary one)")
    arguments = parser.parse_args()
    if arguments.gigabytes < 0.2:
        parser.error("V has 5000 columns and must have more rows: give at least 0.2 gigabytes")
    print(environment.describe())
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        path = f"{folder}/V.zarr"
        write_zarr(path, arguments.gigabytes)
        with local_cluster(2, 1, LIMIT) as client:
            panels, plan = open_panels(path, RANK)
            rows, columns = panels.matrix.shape
            print(
                f"V {rows} x {columns} {panels.matrix.dtype}, {plan.pass_bytes / 1e9:.1f} GB, "
                f"in {len(plan.edges) - 1} panels of {plan.edges[1]} rows; "
                f"planned peak of a worker: {plan.worker_bytes / 1e6:.0f} MB",
                flush=True,
            )
            h = fit(client, path, f"{folder}/run.zarr")
            compare(client, without_prefetch(panels), h)


if __name__ == "__main__":
    main()
