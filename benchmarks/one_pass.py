"""A pass in memory beside its two bare products, over the same panels and threads."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise, product
from typing import Any

import machine
import numpy as np
import scipy.sparse
from matrices import noisy
from rounds import elapsed, in_turn, ratio

from dask_nmf import nmf
from dask_nmf.execution import partition
from dask_nmf.execution.graphs.passes import PassSpec
from dask_nmf.execution.tasks.blas import one_blas_thread
from dask_nmf.kernels.least_squares import solve
from dask_nmf.planning.row_panels import MIB
from dask_nmf.solvers.hals import HALS
from dask_nmf.sources.registry import open_matrix
from dask_nmf.types import Array

RANKS, COLUMNS = (8, 32, 128), (500, 5000, 50_000)
MEBIBYTES, STORED = 128, 4_000_000  # of a dense V, entries of a sparse one
DENSITY = 0.01
REPEATS = 5


def dense(columns: int, dtype: Any, mebibytes: int) -> Array:
    rows = mebibytes * MIB // (columns * np.dtype(dtype).itemsize)
    return noisy(rows, columns, 16).astype(dtype)


def sparse(columns: int) -> Any:
    rows = int(STORED / (DENSITY * columns))
    made = scipy.sparse.random_array((rows, columns), density=DENSITY, format="csr", rng=0, dtype=np.float32)
    return scipy.sparse.csr_array(made)


def compare(v: Any, k: int) -> tuple[float, float]:
    """A pass, and one with the solve of W besides the products, relative to the products."""
    panels, _ = partition.cut(open_matrix(v, transposed=False), k)
    h = np.asarray(nmf(v, k, max_iter=1).H)
    blocks = [v[a:b] for a, b in pairwise(panels.edges)]
    solver, threads = HALS(), partition.resources().threads

    def products(block: Any, solves: bool) -> None:
        num = np.asarray(block @ h.T)
        w = solve(num, h @ h.T, solver.tol) if solves else num
        np.asarray(w.T @ block)

    def bare(solves: bool) -> None:
        with one_blas_thread(), ThreadPoolExecutor(threads) as pool:
            list(pool.map(partial(products, solves=solves), blocks))

    kinds: dict[str, Callable[[], float]] = {
        "pass": partial(elapsed, partial(panels.run_pass, h, PassSpec(solver.weigh, solver))),
        "products": partial(elapsed, partial(bare, False)),
        "and solves": partial(elapsed, partial(bare, True)),
    }
    spent = in_turn(kinds, REPEATS)
    return ratio(spent["pass"], spent["products"]), ratio(spent["pass"], spent["and solves"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--mebibytes", type=int, default=MEBIBYTES, help="of a dense V (default: %(default)s)"
    )
    asked = parser.parse_args()
    kinds: dict[str, Callable[[int], Any]] = {
        "float32": partial(dense, dtype=np.float32, mebibytes=asked.mebibytes),
        "float64": partial(dense, dtype=np.float64, mebibytes=asked.mebibytes),
        "CSR, 1 %": sparse,
    }
    print(machine.name())
    print("a pass / its two products, and / those with a solve of W between them")
    for name, make in kinds.items():
        for n, k in product(COLUMNS, RANKS):
            products, solves = compare(make(n), k)
            print(f"{name}, n = {n}, k = {k}: {products:.2f}, {solves:.2f}", flush=True)


if __name__ == "__main__":
    main()
