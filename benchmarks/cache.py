"""What it saves that panels stay in memory between passes: seconds of a pass, as memory grows towards V."""

from __future__ import annotations

import tempfile
from functools import partial
from statistics import median

import machine
from out_of_core import CHUNK_ROWS, COLUMNS, write
from rounds import in_turn, ratio

from dask_nmf import nmf
from dask_nmf.cluster.launch import local_cluster
from dask_nmf.execution.executor import Step

GIGABYTES, RANK, PASSES = 1.0, 16, 5
WORKERS, LIMIT = 2, 2_000_000_000  # bytes, of each worker
RATIOS = (8, 4, 2, 1, 0.5)  # bytes of V / bytes that all workers may keep
REPEATS = 3


def seconds(path: str, cache: int | str) -> float:
    """Of a pass, after the first: that one finds what the first read kept."""
    steps: list[Step] = []
    nmf(path, RANK, max_iter=PASSES, tol=0, cache=cache, callback=steps.append)
    return median(step.seconds for step in steps[1:])


def main() -> None:
    print(machine.name())
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/V.zarr"
        write(path, GIGABYTES)
        whole = round(GIGABYTES * 1e9 / (CHUNK_ROWS * COLUMNS * 4)) * CHUNK_ROWS * COLUMNS * 4
        kinds = {0.0: partial(seconds, path, "off")}
        kinds |= {less: partial(seconds, path, int(whole / less / WORKERS)) for less in RATIOS}
        with local_cluster(WORKERS, 1, LIMIT):
            seconds(path, "off")  # compiles
            spent = in_turn(kinds, REPEATS)
    off = spent.pop(0.0)
    print(f"V {whole / 1e9:.1f} GB, rank {RANK}: a pass that keeps nothing {median(off):.2f} s")
    for less, times in spent.items():
        print(f"V / memory {less:g}: {ratio(times, off):.2f} of that")


if __name__ == "__main__":
    main()
