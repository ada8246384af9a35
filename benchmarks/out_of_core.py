"""A V larger than the memory of the workers that factorise it: peak memory, spilling, the cost of a pass."""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from statistics import median
from typing import NamedTuple

import machine
import numpy as np
import zarr
from dask.delayed import delayed
from distributed import Client, Worker
from rounds import in_turn, ratio

from dask_nmf import nmf
from dask_nmf.cluster.launch import local_cluster
from dask_nmf.execution.executor import Step
from dask_nmf.execution.graphs.passes import PassSpec
from dask_nmf.execution.panel_engine import PanelEngine, sweep
from dask_nmf.execution.tasks.blas import one_blas_thread
from dask_nmf.planning import row_panels
from dask_nmf.solvers.hals import HALS
from dask_nmf.sources.registry import open_matrix
from dask_nmf.types import Array

COLUMNS, RANK = 5000, 32
CHUNK_ROWS = 400  # x 5000 float32: 8 MB
LIMIT = 600_000_000  # bytes, of each worker
REPEATS = 3


def write_rows(path: str, first: int) -> None:
    """One chunk of V: low rank + 10 % noise, float32."""
    rng = np.random.default_rng([1, first])
    h = np.random.default_rng(0).gamma(0.5, size=(RANK, COLUMNS)).astype(np.float32)
    v = rng.gamma(0.5, size=(CHUNK_ROWS, RANK)).astype(np.float32) @ h
    noise = rng.standard_normal(v.shape, dtype=np.float32)
    zarr.open_array(path, mode="r+")[first : first + CHUNK_ROWS] = v + 0.1 * v.std() * np.abs(noise)


def write(path: str, gigabytes: float) -> None:
    """V as a Zarr v3 array with the default codec, by processes of their own."""
    firsts = range(0, CHUNK_ROWS * max(1, round(gigabytes * 1e9 / (CHUNK_ROWS * COLUMNS * 4))), CHUNK_ROWS)
    shape, chunks = (firsts[-1] + CHUNK_ROWS, COLUMNS), (CHUNK_ROWS, COLUMNS)
    zarr.create_array(path, shape=shape, chunks=chunks, dtype="float32", overwrite=True)
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn")) as pool:
        list(pool.map(write_rows, [path] * len(firsts), firsts))


def keeps_in_memory(dask_worker: Worker) -> bool:
    """Whether the worker's values have no disk to go to."""
    return type(dask_worker.data) is dict


def fit(client: Client, path: str, store: str) -> Array:
    """Factorise, print what that took, and give H."""
    steps: list[tuple[float, Step]] = []
    before = client.run(os.getpid)
    started = time.monotonic()
    result = nmf(path, RANK, store=store, max_iter=5, callback=lambda s: steps.append((time.monotonic(), s)))
    ended = time.monotonic()
    for address, pid in client.run(os.getpid).items():
        fate = "" if before.get(address) == pid else ", RESTARTED"
        print(f"peak of worker {address}: {machine.peak(pid):.0f} MB of {LIMIT / 1e6:.0f} MB{fate}")
    print(f"peak of the client: {machine.peak(os.getpid()):.0f} MB")
    print(f"nothing can be spilled: {all(client.run(keeps_in_memory).values())}")
    seconds = median(step.seconds for _, step in steps)
    first = steps[0][0] - steps[0][1].seconds - started
    print(f"first read and start {first:.2f} s, a pass {seconds:.2f} s, W {ended - steps[-1][0]:.2f} s")
    print(f"relative error {result.relative_error:.5f} after {result.n_iter} passes")
    return np.asarray(result.H)


class Cost(NamedTuple):
    """Of one read of all panels."""

    wall: float  # seconds
    cpu: float  # seconds of all workers


def cost(client: Client, go_through: Callable[[], object]) -> Cost:
    """What a pass costs."""
    started, before = time.monotonic(), sum(client.run(time.process_time).values())
    go_through()
    return Cost(time.monotonic() - started, sum(client.run(time.process_time).values()) - before)


def bare_pass(panels: PanelEngine, look: Callable[[Array, Array], Array], h: Array) -> None:
    """Load each panel and look at it, in one task."""
    ones = ((1,) * panels.blocks.numblocks[0], (1,))
    panels.blocks.map_blocks(look, delayed(h), chunks=ones, dtype=h.dtype, meta=h[:0, :0]).compute()


def read(v: Array, h: Array) -> Array:
    return v[:1, :1].copy()


def multiply(v: Array, h: Array) -> Array:
    """The two products that no pass can do without."""
    with one_blas_thread():
        w = v @ h.T
        return (w.T @ v)[:1, :1].copy()


def compare(client: Client, panels: PanelEngine, h: Array) -> None:
    """A pass beside the bare ones, in turn, so that what else the machine does meets all of them."""
    kinds: dict[str, Callable[[], object]] = {
        "read only": lambda: bare_pass(panels, read, h),
        "read and the bare products": lambda: bare_pass(panels, multiply, h),
        "a pass": lambda: sweep(panels, h, PassSpec(HALS().weigh, HALS())),
    }

    def measured(work: Callable[[], object]) -> Callable[[], Cost]:
        return lambda: cost(client, work)

    costs = in_turn({name: measured(work) for name, work in kinds.items()}, REPEATS)
    columns = {name: list(zip(*turns, strict=True)) for name, turns in costs.items()}
    for name, both in columns.items():
        wall, cpu = map(median, both)
        print(f"{name}: {wall:.2f} s, {cpu:.2f} s of the processors")
    wall, cpu = map(ratio, columns["a pass"], columns["read and the bare products"])
    print(f"a pass / (read and the bare products): {wall:.2f}, by the processors' time {cpu:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=4.0, help="of V (default: 4)")
    parser.add_argument("--folder", help="where V and the run are kept meanwhile (default: a temporary one)")
    asked = parser.parse_args()
    if asked.gigabytes < 0.2:
        parser.error("V has 5000 columns and must have more rows: give at least 0.2 gigabytes")
    print(machine.name())
    with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
        path = f"{folder}/V.zarr"
        write(path, asked.gigabytes)
        with local_cluster(2, 1, LIMIT) as client:
            matrix = open_matrix(path)
            planned = row_panels.make(matrix.layout, RANK, LIMIT, 1)
            print(
                f"V {matrix.shape[0]} x {matrix.shape[1]} {matrix.dtype}, {planned.pass_bytes / 1e9:.1f} GB, "
                f"in {len(planned.edges) - 1} panels of {planned.edges[1]} rows; "
                f"planned peak of a worker: {planned.worker_bytes / 1e6:.0f} MB",
                flush=True,
            )
            h = fit(client, path, f"{folder}/run.zarr")
            compare(client, PanelEngine(matrix, planned.edges), h)


if __name__ == "__main__":
    main()
