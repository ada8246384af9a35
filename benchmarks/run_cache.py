"""Compare passes over panels that stay in the workers' memory with passes that read them again.

The times of a pass are given for several ratios of the size of V to the memory that may keep it.
"""

from __future__ import annotations

import tempfile
from functools import partial
from statistics import median

from lib import environment
from lib.datasets import CHUNK_ROWS, COLUMNS, write_zarr
from lib.timing import interleaved, median_ratio

from dask_nmf import nmf
from dask_nmf.cluster.backends.local import local_cluster
from dask_nmf.iteration.loop import Step

GIGABYTES, RANK, PASSES = 1.0, 16, 5
WORKERS, LIMIT = 2, 2_000_000_000  # bytes of memory of each worker
RATIOS = (8, 4, 2, 1, 0.5)  # bytes of V / bytes that all workers together may keep
ROUNDS = 3


def seconds_of_a_pass(path: str, cache: int | str) -> float:
    """Return the median time of a pass after the first, which fills the cache."""
    steps: list[Step] = []
    nmf(path, RANK, max_iter=PASSES, tol=0, cache=cache, callback=steps.append)
    return median(step.seconds for step in steps[1:])


def main() -> None:
    print(environment.describe())
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/V.zarr"
        write_zarr(path, GIGABYTES)
        size = round(GIGABYTES * 1e9 / (CHUNK_ROWS * COLUMNS * 4)) * CHUNK_ROWS * COLUMNS * 4
        candidates = {0.0: partial(seconds_of_a_pass, path, "off")}
        candidates |= {
            ratio: partial(seconds_of_a_pass, path, int(size / ratio / WORKERS)) for ratio in RATIOS
        }
        with local_cluster(WORKERS, 1, LIMIT):
            seconds_of_a_pass(path, "off")  # compiles
            times = interleaved(candidates, ROUNDS)
    off = times.pop(0.0)
    print(f"V {size / 1e9:.1f} GB, rank {RANK}: a pass that keeps nothing takes {median(off):.2f} s")
    for ratio, seconds in times.items():
        print(f"V / memory {ratio:g}: {median_ratio(seconds, off):.2f} of that")


if __name__ == "__main__":
    main()
