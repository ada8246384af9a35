"""A V in a store that answers late: how near a pass comes to a read of V alone."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from functools import partial
from statistics import median

import machine
import numpy as np
import zarr
from out_of_core import LIMIT, RANK, bare_pass, read, write
from rounds import elapsed, in_turn, ratio
from zarr.storage import LocalStore
from zarr.testing.store import LatencyStore

from dask_nmf.cluster import launch
from dask_nmf.execution import partition
from dask_nmf.execution.graphs.passes import PassSpec
from dask_nmf.execution.panel_engine import PanelEngine
from dask_nmf.solvers.hals import HALS
from dask_nmf.sources.registry import open_matrix

GIGABYTES = 1.0
WORKERS = 2
REPEATS = 3


def passes(path: str, latency: float, rank: int) -> dict[str, Callable[[], float]]:
    """Seconds of a read alone, of a pass that reads ahead, and of one that does not."""
    matrix = open_matrix(zarr.open_array(LatencyStore(LocalStore(path), get_latency=latency), mode="r"))
    panels, planned = partition.cut(matrix, rank)
    assert planned.prefetch
    h = np.random.default_rng(0).random((rank, matrix.layout.columns)).astype(matrix.dtype)
    weighing = PassSpec(HALS().weigh, HALS())
    kinds = {
        "a read alone": partial(bare_pass, panels, read, h),
        "a pass": partial(panels.run_pass, h, weighing),
        "a pass without reading ahead": partial(PanelEngine(matrix, planned.edges).run_pass, h, weighing),
    }
    return {name: partial(elapsed, work) for name, work in kinds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=GIGABYTES, help="of V (default: %(default)s)")
    asked = parser.parse_args()
    print(machine.name())
    with tempfile.TemporaryDirectory() as folder, launch.local_cluster(WORKERS, 1, 2 * LIMIT):
        path = f"{folder}/V.zarr"
        write(path, asked.gigabytes)
        for latency in (0.0, 0.05, 0.5):
            spent = in_turn(passes(path, latency, RANK), REPEATS)
            alone = spent.pop("a read alone")
            print(f"an answer after {latency * 1000:.0f} ms: a read alone {median(alone):.2f} s", flush=True)
            for name, seconds in spent.items():
                print(
                    f"  {name} {median(seconds):.2f} s, {ratio(alone, seconds):.0%} of the throughput",
                    flush=True,
                )


if __name__ == "__main__":
    main()
