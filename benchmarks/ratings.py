"""Ratings that are mostly missing: time to LIBMF's test error, and ratings that are larger than memory.

LIBMF (`pip install libmf`) is the peer: non-negative, L2 loss, as many threads as there are cores. Its
Python predictions read its factors wrongly, so they are taken from the factors here.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from itertools import product
from statistics import median
from typing import Any, NamedTuple

import machine
import numpy as np
import scipy.sparse
import zarr
from distributed import Client
from matrices import DATA, Ratings, planted, split

from dask_nmf import Result, nmf
from dask_nmf.cluster.launch import local_cluster
from dask_nmf.types import Array

JESTER = DATA / "jester5k.npz"
NEAR = 1.002  # times LIBMF's error
ITERATIONS = (10, 20, 30, 45, 60, 90)  # of LIBMF, tried in turn
PASSES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)  # of ours
REPEATS = 3
HELD_OUT = 0.1  # of the ratings for training, to choose rank and penalty by
LONG_SGD = {"learning_rate": 0.07, "tol": 1e-5}  # from random factors it is slow to begin
LONG_MU = {"inner_iter": 5, "tol": 1e-6, "max_iter": 1000}  # and this one slow to end
LIMIT = 700_000_000  # bytes, of each worker
USERS, ITEMS, RATED = 300_000, 20_000, 40_000_000


class Method(NamedTuple):
    """One way to factorise ratings."""

    name: str
    lengths: tuple[int, ...]  # iterations or passes, tried in turn
    fit: Callable[[Ratings, tuple[int, float], int | None], tuple[float, Array, Array]]
    """Ratings, (rank, penalty) and how far it goes (None: to its end): seconds, W and H."""
    held_error: Callable[[Ratings, tuple[int, float]], float]
    """The error of a tenth of the ratings that it has not seen."""


def jester() -> tuple[Ratings, Ratings, tuple[int, int]]:
    """The fixed split, values moved up to be ≥ 0."""
    with np.load(JESTER) as held:
        values = ((held["value_x100"].astype(np.int32) + 995) / 100).astype(np.float32)
        rows, columns = held["row"].astype(np.int64), held["col"].astype(np.int64)
        test, shape = held["is_test"].astype(bool), held["shape"].tolist()
    parts = [Ratings(rows[part], columns[part], values[part]) for part in (~test, test)]
    return parts[0], parts[1], (shape[0], shape[1])


def libmf(shape: tuple[int, int]) -> Method:
    """LIBMF; the time is that of its training alone."""
    from libmf import mf  # noqa: PLC0415  a peer that not everyone has

    def fit(train: Ratings, asked: tuple[int, float], length: int | None) -> tuple[float, Array, Array]:
        rank, alpha = asked
        model = mf.MF(
            fun=0, k=rank, nr_iters=length or ITERATIONS[-1], nr_threads=os.cpu_count(), do_nmf=True,
            quiet=True, lambda_p1=0.0, lambda_q1=0.0, lambda_p2=alpha, lambda_q2=alpha,
        )  # fmt: skip
        triplets = np.column_stack(train).astype(np.float32)
        start = time.monotonic()
        model.fit(triplets)
        return time.monotonic() - start, model.p_factors(), model.q_factors().T

    def held_error(train: Ratings, asked: tuple[int, float]) -> float:
        held = np.random.default_rng(0).random(len(train.rows)) < HELD_OUT
        kept, hidden = train.some(~held), train.some(held)
        _, w, h = fit(kept, asked, None)
        known = (hidden.rows < len(w)) & (hidden.columns < h.shape[1])
        return hidden.some(known).error(w, h)

    return Method("LIBMF", ITERATIONS, fit, held_error)


def ours(shape: tuple[int, int], solver: str, **options: Any) -> Method:
    """A fit in memory, from the matrix to W and H."""

    def run(train: Ratings, asked: tuple[int, float], **more: Any) -> Result:
        rank, alpha = asked
        matrix = train.matrix(shape)
        return nmf(matrix, rank, solver=solver, alpha_W=alpha, missing="unstored", **{**options, **more})

    def fit(train: Ratings, asked: tuple[int, float], length: int | None) -> tuple[float, Array, Array]:
        start = time.monotonic()
        result = run(train, asked, **({"max_iter": length, "tol": 0} if length else {}))
        w, h = result.W.compute(), result.H.compute()
        return time.monotonic() - start, w, h

    def held_error(train: Ratings, asked: tuple[int, float]) -> float:
        return float(run(train, asked, validation_fraction=HELD_OUT).validation_error)

    return Method(f"{solver} {options.get('init', '')}", PASSES, fit, held_error)


def reach(
    method: Method, train: Ratings, test: Ratings, asked: tuple[int, float], target: float
) -> tuple[int | None, float, float]:
    """How far it must go to an error, its median time and its error then."""
    for length in method.lengths:
        seconds, *factors = method.fit(train, asked, length)
        error = test.error(*factors)
        if error <= target:
            return length, median(method.fit(train, asked, length)[0] for _ in range(REPEATS)), error
    return None, seconds, error


def compare(
    name: str, train: Ratings, test: Ratings, shape: tuple[int, int], grid: list[tuple[int, float]]
) -> None:
    """LIBMF and ours, each with the rank and penalty that ratings held out tell."""
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
        held = {asked: method.held_error(train, asked) for asked in grid}
        asked = min(held, key=lambda one: held[one])
        whole, *factors = method.fit(train, asked, None)
        error = test.error(*factors)
        target = target or NEAR * error
        length, seconds, reached = reach(method, train, test, asked, target)
        first = first or seconds
        told = (
            f"{seconds:6.2f} s, {seconds / first:5.2f} x LIBMF" if length else f"not reached: {reached:.4f}"
        )
        best = f"{method.name:12} rank {asked[0]:2}, penalty {asked[1]:4}"
        print(
            f"  {best}: error {error:.4f} in {whole:6.2f} s; to {target:.4f} {told}",
            flush=True,
        )


def store(path: str) -> int:
    """The planted ratings as a CSR matrix in Zarr; how many there are."""
    group = zarr.create_group(
        path, attributes={"encoding-type": "csr_matrix", "encoding-version": "0.1.0", "shape": [USERS, ITEMS]}
    )
    arrays = {
        name: group.create_array(name, shape=(RATED,), chunks=(2**20,), dtype=dtype)
        for name, dtype in (("data", "float32"), ("indices", "int32"))
    }
    ends, done = [np.zeros(1, np.int64)], 0
    for indptr, columns, values in planted(USERS, ITEMS, RATED):
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
    """Each solver over ratings in Zarr, with two workers of `LIMIT`."""
    with tempfile.TemporaryDirectory() as folder:
        entries = store(f"{folder}/V.zarr")
        print(f"out of core: {entries} ratings of {USERS} x {ITEMS}, two workers of {LIMIT / 1e6:.0f} MB")
        for solver in ("hals", "sgd"):
            with local_cluster(2, 1, LIMIT) as client:
                told(client, solver, folder)


def told(client: Client, solver: str, folder: str) -> None:
    pids = [*client.run(os.getpid).values()]
    start = time.monotonic()
    asked: dict[str, Any] = {"missing": "unstored", "alpha_W": 0.01, "max_iter": 5, "tol": 0}
    result = nmf(f"{folder}/V.zarr", 8, solver=solver, store=f"{folder}/{solver}.zarr", **asked)
    seconds = time.monotonic() - start
    peaks = " and ".join(f"{machine.peak(pid):.0f}" for pid in pids)
    print(f"  {solver}: error {result.relative_error:.4f} after 5 passes, {seconds:.0f} s, peaks {peaks} MB")


def main() -> None:
    print(machine.name())
    warm = scipy.sparse.csr_array(np.eye(8, dtype=np.float32) + 1)
    for solver in ("hals", "mu", "sgd"):
        nmf(warm, 2, solver=solver, missing="unstored", max_iter=1)  # compiles
    if JESTER.exists():
        compare("Jester", *jester(), list(product((12, 16, 20, 32), (0.27, 0.3, 0.33))))
    users, items = 50_000, 5000
    train, test = split(users, items, 5_000_000)
    compare("planted", train, test, (users, items), [(8, alpha) for alpha in (0.01, 0.03)])
    out_of_core()


if __name__ == "__main__":
    main()
