"""Compare conversions with a reader of the same file: CSV with pyarrow, MatrixMarket with SciPy.

Each candidate is a process of its own, whose seconds on a processor, on the clock and peak memory are given.
The speeds are compared within each round, by seconds of processors.
"""

from __future__ import annotations

import argparse
import gzip
import json
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np
import pyarrow
import pyarrow.csv
import scipy.io
import scipy.sparse
from lib import environment

USERS, ITEMS, SHAPE = 300_000, 20_000, (20_000, 50_000)
BATCH = 10**6  # records that are made at once
ROUNDS = 3
MEASURED = """
import json, time
from pathlib import Path
{imports}
wall, processor = time.perf_counter(), time.process_time()
{work}
took = [time.perf_counter() - wall, time.process_time() - processor]
peak = int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])
print(json.dumps([*took, peak * 1024 / 1e6]))
"""
CONVERT = "from dask_nmf.ingest import convert"
CANDIDATES = {
    "triplets.csv": {
        "pyarrow": ("import pyarrow.csv", "for batch in pyarrow.csv.open_csv('triplets.csv'): pass"),
        "convert": (
            CONVERT,
            "convert('triplets.csv', 'V.zarr', row='user', column='item', value='rating', "
            "duplicates='last', overwrite=True)",
        ),
    },
    "counts.mtx.gz": {
        "SciPy": ("import scipy.io", "scipy.io.mmread('counts.mtx.gz', spmatrix=False).tocsr()"),
        "convert": (CONVERT, "convert('counts.mtx.gz', 'V.zarr', overwrite=True)"),
    },
}


class Figures(NamedTuple):
    """What a process took: seconds on the clock, seconds of processors, and peak memory in MB."""

    wall: float
    processor: float
    peak: float


def write_triplets(path: Path, megabytes: float) -> None:
    """Write a CSV file of ratings by user and item, in any order, popular ones more often."""
    rng = np.random.default_rng(0)
    users = pyarrow.array([f"user-{i:07d}" for i in range(USERS)])
    items = pyarrow.array([f"item-{i:05d}" for i in range(ITEMS)])
    schema = pyarrow.schema({"user": "string", "item": "string", "rating": "double"})
    with pyarrow.csv.CSVWriter(
        path, schema, write_options=pyarrow.csv.WriteOptions(quoting_style="none")
    ) as file:
        while path.stat().st_size < megabytes * 1e6:
            drawn = [(rng.random(BATCH) ** 2 * size).astype(np.int32) for size in (USERS, ITEMS)]
            ids = [
                names.take(pyarrow.array(index)) for names, index in zip((users, items), drawn, strict=True)
            ]
            file.write(pyarrow.table([*ids, pyarrow.array(rng.integers(1, 11, BATCH) / 2)], schema))


def write_counts(path: Path, entries: int) -> None:
    """Write counts of features by cells as MatrixMarket, by gzip."""
    density = entries / (SHAPE[0] * SHAPE[1])
    counts = scipy.sparse.random_array(SHAPE, density=density, rng=np.random.default_rng(0))
    counts.data = np.ceil(-2 * np.log(counts.data))
    with gzip.open(path, "wb", compresslevel=4) as file:
        scipy.io.mmwrite(file, counts.tocsc().tocoo(), field="integer")


def measure(imports: str, work: str, folder: str) -> Figures:
    """Return what some work takes in a process of its own."""
    script = MEASURED.format(imports=imports, work=work)
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=folder, capture_output=True, text=True, check=True
    )
    return Figures(*json.loads(done.stdout))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=float, default=200, help="size of the CSV file")
    parser.add_argument("--entries", type=int, default=5_000_000, help="of the MatrixMarket file")
    options = parser.parse_args()
    print(environment.describe())
    with tempfile.TemporaryDirectory() as folder:
        write_triplets(Path(folder, "triplets.csv"), options.megabytes)
        write_counts(Path(folder, "counts.mtx.gz"), options.entries)
        for file, candidates in CANDIDATES.items():
            runs = {name: partial(measure, *parts, folder) for name, parts in candidates.items()}
            figures: dict[str, list[Figures]] = {name: [] for name in runs}
            for _ in range(ROUNDS):
                for name, run in runs.items():
                    figures[name].append(run())
            size = Path(folder, file).stat().st_size / 1e6
            for name, rounds in figures.items():
                wall, processor, peak = (median(values) for values in zip(*rounds, strict=True))
                print(
                    f"{file} ({size:.0f} MB), {name}: {wall:.2f} s, "
                    f"{processor:.2f} s of processors, {peak:.0f} MB"
                )
            reader, converted = figures.values()
            shares = sorted(
                one.processor / other.processor for one, other in zip(reader, converted, strict=True)
            )
            listed = ", ".join(f"{share:.2f}" for share in shares)
            print(
                f"{file}: convert has {median(shares):.2f} of the speed of {next(iter(figures))} ({listed})"
            )


if __name__ == "__main__":
    main()
