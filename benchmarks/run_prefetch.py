"""Compare a pass over a store of high latency with a bare read of V, with and without prefetching."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from functools import partial
from statistics import median

import numpy as np
import zarr
from lib import environment
from lib.datasets import COLUMNS, RANK, write_zarr
from lib.passes import bare_pass, hals_pass, open_panels, read, without_prefetch
from lib.timing import elapsed, interleaved, median_ratio
from zarr.storage import LocalStore
from zarr.testing.store import LatencyStore

from dask_nmf.cluster.backends import local

GIGABYTES = 1.0
WORKERS, LIMIT = 2, 1_200_000_000  # bytes of memory of each worker
ROUNDS = 3


def passes(path: str, latency: float, rank: int) -> dict[str, Callable[[], float]]:
    """Return what measures a bare read, a pass with prefetching, and one without, in seconds."""
    V = zarr.open_array(LatencyStore(LocalStore(path), get_latency=latency), mode="r")
    panels, plan = open_panels(V, rank)
    assert plan.prefetch
    h = np.random.default_rng(0).random((rank, COLUMNS)).astype(V.dtype)
    works = {
        "a bare read": partial(bare_pass, panels, read, h),
        "a pass": partial(hals_pass, panels, h),
        "a pass without prefetching": partial(hals_pass, without_prefetch(panels), h),
    }
    return {name: partial(elapsed, work) for name, work in works.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=GIGABYTES, help="of V (default: %(default)s)")
    arguments = parser.parse_args()
    print(environment.describe())
    with tempfile.TemporaryDirectory() as folder, local.local_cluster(WORKERS, 1, LIMIT):
        path = f"{folder}/V.zarr"
        write_zarr(path, arguments.gigabytes)
        for latency in (0.0, 0.05, 0.5):
            times = interleaved(passes(path, latency, RANK), ROUNDS)
            bare = times.pop("a bare read")
            print(f"latency {latency * 1000:.0f} ms: a bare read takes {median(bare):.2f} s", flush=True)
            for name, seconds in times.items():
                print(
                    f"  {name} {median(seconds):.2f} s, {median_ratio(bare, seconds):.0%} of the throughput",
                    flush=True,
                )


if __name__ == "__main__":
    main()
