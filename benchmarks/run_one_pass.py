"""Compare a pass over V in memory with its two bare products, over the same panels and threads."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import scipy.sparse
from lib import environment
from lib.datasets import noisy
from lib.passes import hals_pass, open_panels, products_in_memory
from lib.timing import elapsed, interleaved, median_ratio

from dask_nmf import nmf
from dask_nmf.types import Array

RANKS, COLUMNS = (8, 32, 128), (500, 5000, 50_000)
MIB = 2**20
MEBIBYTES, STORED = 128, 4_000_000  # the size of a dense V, and the stored entries of a sparse one
DENSITY = 0.01
ROUNDS = 5


def dense(columns: int, dtype: Any, mebibytes: int) -> Array:
    rows = mebibytes * MIB // (columns * np.dtype(dtype).itemsize)
    return noisy(rows, columns, 16).astype(dtype)


def sparse(columns: int) -> Any:
    rows = int(STORED / (DENSITY * columns))
    v = scipy.sparse.random_array((rows, columns), density=DENSITY, format="csr", rng=0, dtype=np.float32)
    return scipy.sparse.csr_array(v)


def compare(v: Any, k: int) -> tuple[float, float]:
    """Return the time of a pass over that of its products, without and with the solve of W between them."""
    panels, _ = open_panels(v, k)
    h = np.asarray(nmf(v, k, max_iter=1).H)
    works: dict[str, Callable[[], None]] = {
        "pass": partial(hals_pass, panels, h),
        "products": products_in_memory(panels, v, h, solves=False),
        "products and solve": products_in_memory(panels, v, h, solves=True),
    }
    times = interleaved({name: partial(elapsed, work) for name, work in works.items()}, ROUNDS)
    whole, products, solves = times.values()
    return median_ratio(whole, products), median_ratio(whole, solves)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--mebibytes", type=int, default=MEBIBYTES, help="of a dense V (default: %(default)s)"
    )
    arguments = parser.parse_args()
    kinds: dict[str, Callable[[int], Any]] = {
        "float32": partial(dense, dtype=np.float32, mebibytes=arguments.mebibytes),
        "float64": partial(dense, dtype=np.float64, mebibytes=arguments.mebibytes),
        "CSR, 1 %": sparse,
    }
    print(environment.describe())
    print("a pass / its two products, and / those with a solve of W between them")
    for name, make in kinds.items():
        for n, k in product(COLUMNS, RANKS):
            products, solves = compare(make(n), k)
            print(f"{name}, n = {n}, k = {k}: {products:.2f}, {solves:.2f}", flush=True)


if __name__ == "__main__":
    main()
