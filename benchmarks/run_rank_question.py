"""Measure a whole question of the rank by the command: reads, minutes and peak memory.

The matrix is the tf-idf of the glosses of WordNet, or a dense Zarr array of planted rank. Beside it stands
what as many fits by scikit-learn would take, which is the time of one of them, times as many.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import psutil
import scipy.sparse
import zarr
from lib import environment
from lib.datasets import glosses, write_zarr
from sklearn.decomposition import NMF
from sklearn.exceptions import ConvergenceWarning

from dask_nmf.selection.models import model_keys, parse_ranks

PLANTED = 12  # rank of the dense matrix
WATCH = 0.2  # seconds between two looks at the memory of the processes
IN_MEMORY = 0.1  # share of the rows of the dense matrix that scikit-learn is given
CHUNK = 1 << 18  # entries of CSR in a chunk


class Peaks(NamedTuple):
    """The peak resident memory of the processes of a command, MB."""

    client: float
    workers: list[float]


def write_wordnet(path: str) -> None:
    """Write the tf-idf of the glosses in the layout of AnnData."""
    v = glosses()
    kind = {"encoding-type": "csr_matrix", "encoding-version": "0.1.0", "shape": list(v.shape)}
    group = zarr.create_group(path, attributes=kind)
    for name in ("data", "indices", "indptr"):
        group.create_array(name, data=getattr(v, name), chunks=(CHUNK,))


def watched(command: list[str], log: Path) -> tuple[float, Peaks]:
    """Run a command, whose log goes to a file; return its seconds and the peaks of its processes."""
    executable = str(Path(sys.executable).with_name("dask-nmf"))
    began, peaks = time.monotonic(), dict[int, float]()
    with log.open("w") as lines, subprocess.Popen([executable, *command], stderr=lines) as process:
        while process.poll() is None:
            peaks |= peaks_of(process.pid)
            time.sleep(WATCH)
    if process.returncode:
        sys.exit(f"the command failed: {log.read_text()[-2000:]}")
    client = peaks.pop(process.pid)
    return time.monotonic() - began, Peaks(client, sorted(peaks.values()))


def peaks_of(pid: int) -> dict[int, float]:
    """Return the peaks of a process and of those that it started, by their numbers."""
    try:
        family = [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]
        return {one: environment.peak_memory(one) for one in family}
    except (psutil.NoSuchProcess, OSError, IndexError):  # one of them ended meanwhile
        return {}


def report(log: Path, seconds: float, peaks: Peaks) -> None:
    """Print the plan, the passes, the minutes and the peaks."""
    events = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    plan = next(event for event in events if event.get("event") == "plan")
    passes = [event for event in events if event.get("event") == "shared pass"]
    print(
        f"{plan['models']} models, {plan['panels']} panels; a pass of all models takes {plan['reads']} reads"
    )
    for event in passes:
        print(f"  pass {event['pass']}: {event['running']} models go on, {event['seconds']:.1f} s")
    in_passes = sum(event["seconds"] for event in passes)
    print(f"{len(passes)} passes, {seconds / 60:.1f} minutes, of which passes {in_passes / 60:.1f}")
    workers = ", ".join(f"{peak:.0f}" for peak in peaks.workers)
    print(f"peak memory: client {peaks.client:.0f} MB, other processes {workers} MB")
    print(events[-1].get("message", events[-1]))


def scikit_learn(v: Any, rank: int, iterations: int) -> float:
    """Return the seconds of a fit by coordinate descent."""
    began = time.monotonic()
    with warnings.catch_warnings(action="ignore", category=ConvergenceWarning):
        NMF(rank, init="random", tol=0, max_iter=iterations, random_state=0).fit(v)
    return time.monotonic() - began


def compare(path: str, kind: str, models: int, mean_rank: int, iterations: int) -> None:
    """Print what as many fits by scikit-learn would take, from one fit of the mean rank."""
    if kind == "wordnet":
        share, v = 1.0, scipy.sparse.csr_array(glosses())
    else:
        stored = zarr.open_array(path, mode="r")
        rows = int(stored.shape[0] * IN_MEMORY)
        share, v = rows / stored.shape[0], np.maximum(np.asarray(stored[:rows]), 0)
    one = scikit_learn(v, mean_rank, iterations) / share
    part = f" (from {share:.2f} of the rows)" if share < 1 else ""
    print(f"scikit-learn, {iterations} iterations of rank {mean_rank}: {one:.1f} s{part}")
    print(f"{models} such fits: {models * one / 3600:.1f} hours")


def main() -> None:
    """Print the cost of the question."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("matrix", choices=("wordnet", "dense"), nargs="?", default="dense")
    parser.add_argument(
        "--gigabytes", type=float, default=4.0, help="of the dense matrix (default: %(default)s)"
    )
    parser.add_argument("--ranks", default="2:30:14", help="default: %(default)s")
    parser.add_argument("--n-init", type=int, default=1, help="default: %(default)s")
    parser.add_argument("--folds", type=int, default=2, help="default: %(default)s")
    parser.add_argument("--memory-limit", default="1GB", help="of each of two workers (default: %(default)s)")
    parser.add_argument("--time-limit", type=float, help="seconds; the rest can be extrapolated")
    parser.add_argument("--iterations", type=int, default=20, help="of scikit-learn (default: %(default)s)")
    parser.add_argument("--folder", help="where V and the selection are meanwhile (default: a temporary one)")
    options = parser.parse_args()
    print(environment.describe())
    ranks = parse_ranks(options.ranks)
    with TemporaryDirectory(dir=options.folder) as folder:
        path = f"{folder}/V.zarr"
        if options.matrix == "wordnet":
            write_wordnet(path)
        else:
            write_zarr(path, options.gigabytes, PLANTED)
        command = ["select", path, "--output", f"{folder}/select.zarr", "--ranks", options.ranks]
        command += ["--n-init", str(options.n_init), "--folds", str(options.folds), "--workers", "2"]
        command += [
            "--threads-per-worker",
            "1",
            "--memory-limit",
            options.memory_limit,
            "--log-format",
            "json",
        ]
        if options.time_limit is not None:
            command += ["--time-limit", str(options.time_limit)]
        print("dask-nmf", " ".join(command), flush=True)
        report(Path(folder, "log"), *watched(command, Path(folder, "log")))
        sys.stdout.flush()
        models = len(model_keys(ranks, options.n_init, options.folds))
        compare(path, options.matrix, models, round(sum(ranks) / len(ranks)), options.iterations)


if __name__ == "__main__":
    main()
