"""Compare with LIBMF on ratings that are mostly missing, and fit ratings that are larger than memory.

LIBMF (`pip install libmf`) runs non-negative with the L2 loss, on as many threads as there are cores. Its
Python predictions read its factors wrongly, so predictions are computed from the factors here.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from itertools import product
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse
import zarr
from dask.system import CPU_COUNT
from distributed import Client
from lib import environment
from lib.datasets import DATA, Ratings, planted_ratings, split_ratings

from dask_nmf import Result, nmf
from dask_nmf.cluster.backends.local import local_cluster
from dask_nmf.types import Array

JESTER = DATA / "jester5k.npz"
NEAR = 1.002  # times LIBMF's error
ITERATIONS = (10, 20, 30, 45, 60, 90)  # lengths of LIBMF's fits
PASSES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)  # lengths of our fits
ROUNDS = 3
HELD_OUT = 0.1  # share of the training ratings that chooses rank and penalty
LONG_SGD = {"learning_rate": 0.07, "tol": 1e-5}  # a random start needs many passes
LONG_MU = {"inner_iter": 5, "tol": 1e-6, "max_iter": 1000}  # mu converges slowly
LIMIT = 700_000_000  # bytes of memory of each worker
USERS, ITEMS, RATED = 300_000, 20_000, 40_000_000


class Method(NamedTuple):
    """One way to factorise ratings."""

    name: str
    lengths: tuple[int, ...]  # iterations or passes, in growing order
    fit: Callable[[Ratings, tuple[int, float], int | None], tuple[float, Array, Array]]
    """Takes ratings, (rank, penalty) and a length, None for a whole fit; returns seconds, W and H."""
    held_out_error: Callable[[Ratings, tuple[int, float]], float]
    """Returns the error of a tenth of the ratings that the fit did not see."""


def jester() -> tuple[Ratings, Ratings, tuple[int, int]]:
    """Return Jester's training and test ratings, shifted to be ≥ 0, and the shape."""
    with np.load(JESTER) as file:
        values = ((file["value_x100"].astype(np.int32) + 995) / 100).astype(np.float32)
        rows, columns = file["row"].astype(np.int64), file["col"].astype(np.int64)
        test, shape = file["is_test"].astype(bool), file["shape"].tolist()
    parts = [Ratings(rows[part], columns[part], values[part]) for part in (~test, test)]
    return parts[0], parts[1], (shape[0], shape[1])


def libmf(shape: tuple[int, int]) -> Method:
    """Return LIBMF as a method; its time is that of training alone."""
    from libmf import mf  # noqa: PLC0415  a peer that not everyone has

    def fit(train: Ratings, setting: tuple[int, float], length: int | None) -> tuple[float, Array, Array]:
        rank, alpha = setting
        model = mf.MF(
            fun=0, k=rank, nr_iters=length or ITERATIONS[-1], nr_threads=CPU_COUNT, do_nmf=True,
            quiet=True, lambda_p1=0.0, lambda_q1=0.0, lambda_p2=alpha, lambda_q2=alpha,
        )  # fmt: skip
        triplets = np.column_stack(train).astype(np.float32)
        start = time.monotonic()
        model.fit(triplets)
        return time.monotonic() - start, model.p_factors(), model.q_factors().T

    def held_out_error(train: Ratings, setting: tuple[int, float]) -> float:
        held_out = np.random.default_rng(0).random(len(train.rows)) < HELD_OUT
        kept, hidden = train.select(~held_out), train.select(held_out)
        _, w, h = fit(kept, setting, None)
        known = (hidden.rows < len(w)) & (hidden.columns < h.shape[1])
        return hidden.select(known).error(w, h)

    return Method("LIBMF", ITERATIONS, fit, held_out_error)


def ours(shape: tuple[int, int], solver: str, **options: Any) -> Method:
    """Return our fit in memory, timed from the matrix to W and H."""

    def run(train: Ratings, setting: tuple[int, float], **more: Any) -> Result:
        rank, alpha = setting
        matrix = train.matrix(shape)
        return nmf(matrix, rank, solver=solver, alpha_W=alpha, missing="unstored", **{**options, **more})

    def fit(train: Ratings, setting: tuple[int, float], length: int | None) -> tuple[float, Array, Array]:
        start = time.monotonic()
        result = run(train, setting, **({"max_iter": length, "tol": 0} if length else {}))
        w, h = result.W.compute(), result.H.compute()
        return time.monotonic() - start, w, h

    def held_out_error(train: Ratings, setting: tuple[int, float]) -> float:
        return float(run(train, setting, validation_fraction=HELD_OUT).validation_error)

    return Method(f"{solver} {options.get('init', '')}", PASSES, fit, held_out_error)


def reach(
    method: Method, train: Ratings, test: Ratings, setting: tuple[int, float], target: float
) -> tuple[int | None, float, float]:
    """Return the length that a method needs for an error, its median time and its error there."""
    for length in method.lengths:
        seconds, *factors = method.fit(train, setting, length)
        error = test.error(*factors)
        if error <= target:
            return length, median(method.fit(train, setting, length)[0] for _ in range(ROUNDS)), error
    return None, seconds, error


def compare(
    name: str, train: Ratings, test: Ratings, shape: tuple[int, int], grid: list[tuple[int, float]]
) -> None:
    """Print LIBMF and ours, each with the rank and penalty that held-out ratings choose."""
    print(f"{name}: {len(train.values)} ratings, {100 * len(train.values) / np.prod(shape):.1f} % of {shape}")
    methods = [
        libmf(shape),
        ours(shape, "hals"),
        ours(shape, "sgd"),
        ours(shape, "sgd", init="random", **LONG_SGD),
        ours(shape, "mu", **LONG_MU),
    ]
    target = first = 0.0
    for method in methods:
        errors = {setting: method.held_out_error(train, setting) for setting in grid}
        setting = min(errors, key=lambda one: errors[one])
        whole, *factors = method.fit(train, setting, None)
        error = test.error(*factors)
        target = target or NEAR * error
        length, seconds, reached = reach(method, train, test, setting, target)
        first = first or seconds
        outcome = (
            f"{seconds:6.2f} s, {seconds / first:5.2f} x LIBMF" if length else f"not reached: {reached:.4f}"
        )
        best = f"{method.name:12} rank {setting[0]:2}, penalty {setting[1]:4}"
        print(
            f"  {best}: error {error:.4f} in {whole:6.2f} s; to {target:.4f} {outcome}",
            flush=True,
        )


def store(path: str) -> int:
    """Write planted ratings as a CSR matrix in Zarr; return how many there are."""
    group = zarr.create_group(
        path, attributes={"encoding-type": "csr_matrix", "encoding-version": "0.1.0", "shape": [USERS, ITEMS]}
    )
    arrays = {
        name: group.create_array(name, shape=(RATED,), chunks=(2**20,), dtype=dtype)
        for name, dtype in (("data", "float32"), ("indices", "int32"))
    }
    ends, done = [np.zeros(1, np.int64)], 0
    for indptr, columns, values in planted_ratings(USERS, ITEMS, RATED):
        arrays["data"][done : done + len(values)] = values
        arrays["indices"][done : done + len(values)] = columns
        ends.append(indptr[1:] + done)
        done += len(values)
    for array in arrays.values():
        array.resize((done,))
    pointers = np.concatenate(ends)
    group.create_array("indptr", data=pointers, chunks=(2**20,))
    return done


def out_of_core() -> None:
    """Run each solver over ratings in Zarr, with two workers of `LIMIT` bytes."""
    with tempfile.TemporaryDirectory() as folder:
        entries = store(f"{folder}/V.zarr")
        print(f"out of core: {entries} ratings of {USERS} x {ITEMS}, two workers of {LIMIT / 1e6:.0f} MB")
        for solver in ("hals", "sgd"):
            with local_cluster(2, 1, LIMIT) as client:
                fit_stored(client, solver, folder)


def fit_stored(client: Client, solver: str, folder: str) -> None:
    """Print the error, time and peaks of a fit of the stored ratings."""
    pids = [*client.run(os.getpid).values()]
    start = time.monotonic()
    options: dict[str, Any] = {"missing": "unstored", "alpha_W": 0.01, "max_iter": 5, "tol": 0}
    result = nmf(f"{folder}/V.zarr", 8, solver=solver, store=f"{folder}/{solver}.zarr", **options)
    seconds = time.monotonic() - start
    peaks = " and ".join(f"{environment.peak_memory(pid):.0f}" for pid in pids)
    print(f"  {solver}: error {result.relative_error:.4f} after 5 passes, {seconds:.0f} s, peaks {peaks} MB")


def main() -> None:
    print(environment.describe())
    warm = scipy.sparse.csr_array(np.eye(8, dtype=np.float32) + 1)
    for solver in ("hals", "mu", "sgd"):
        nmf(warm, 2, solver=solver, missing="unstored", max_iter=1)  # compiles
    if JESTER.exists():
        compare("Jester", *jester(), list(product((12, 16, 20, 32), (0.27, 0.3, 0.33))))
    users, items = 50_000, 5000
    train, test = split_ratings(users, items, 5_000_000)
    compare("planted", train, test, (users, items), [(8, alpha) for alpha in (0.01, 0.03)])
    out_of_core()


if __name__ == "__main__":
    main()
