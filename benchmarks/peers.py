"""Others and ours, to the same error on the same cores: one table, and its plots.

The error to reach is `NEAR` times that of a reference: scikit-learn's coordinate descent when it has
converged, or Spark's alternating least squares where entries are missing. Each method first goes on until it
is there, or until `PATIENCE` is over; then so long a fit is timed in rounds, each in a process of its own.
What was that slow is timed once.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import machine
import matrices
import numpy as np
import out_of_core
import rivals
import scipy.sparse
import zarr
from methods import Case, Method, Reached, go, minibatch, ours, scikit_learn
from rounds import elapsed, in_turn, ratio
from sklearn.decomposition import NMF
from table import Row, write

from dask_nmf.cluster import launch
from dask_nmf.execution import partition
from dask_nmf.kernels.least_squares import residual
from dask_nmf.types import Array

NEAR = 1.005
RESULTS = Path(__file__).parent / "results"
LIMIT = out_of_core.LIMIT  # bytes, of each worker
PENALTY = 0.01  # for each rating
ROUNDS = 3
PATIENCE = 40.0  # seconds
WARM = 1000  # rows
STRIP = 4096  # rows that an error is taken of at once
PRELOAD = [
    "dask_nmf.fitting.factorise",
    "dask_nmf.execution.partition",
    "sklearn.decomposition",
    "matplotlib.figure",
]


class Problem(NamedTuple):
    """What all are given. Its functions take the folder where it is."""

    name: str
    rank: int
    write: Callable[[Path, bool], None]
    """V to files; a small one where that is asked for."""
    read: Callable[[Path], Any]
    error: Callable[[Path, Array, Array], float]
    reference: Callable[[Path, Case], float]
    methods: tuple[Method, ...]  # the first is ours, that the others are compared with
    floors: tuple[Method, ...] = ()
    cannot: dict[str, str] = {}  # noqa: RUF012  methods, and why


class Spent(NamedTuple):
    """On a fit."""

    seconds: float
    peak: float  # MB


def relative_error(v: Any, w: Array, h: Array) -> float:
    """‖V − W H‖ / ‖V‖, some rows at a time."""
    rest = whole = 0.0
    for first in range(0, v.shape[0], STRIP):
        block = v[first : first + STRIP]
        rest += residual(block, w[first : first + STRIP], h)
        values = block.data if scipy.sparse.issparse(block) else block
        whole += float(np.square(values, dtype=np.float64).sum())
    return float(np.sqrt(rest / whole))


def converged(case: Case, tol: float) -> tuple[Array, Array]:
    model = NMF(case.rank, solver="cd", init="nndsvda", tol=tol, max_iter=200, random_state=0)
    return model.fit_transform(case.V[...] if isinstance(case.V, zarr.Array) else case.V), model.components_


def squared(name: str, rank: int, read: Callable[[Path], Any], tol: float, **others: Any) -> Problem:
    """Of which the squared error is measured, of all entries."""

    def error(folder: Path, w: Array, h: Array) -> float:
        return relative_error(read(folder), w, h)

    def reference(folder: Path, case: Case) -> float:
        return error(folder, *converged(case, tol))

    return Problem(name, rank, read=read, error=error, reference=reference, **others)


def floor(name: str, work: Callable[[Case], Any], **others: Any) -> Method:
    """What no method can do without."""

    def fit(case: Case, length: int) -> Any:
        return work(case)

    return Method(name, fit, lambda case: iter(()), **others)


def products(case: Case) -> None:
    """W from V and H, and what H takes from V and W."""
    h = np.ones((case.rank, case.V.shape[1]), np.float32)
    case.V.T @ (case.V @ h.T)


def read_in_memory(method: Method) -> Method:
    """A method that takes no Zarr array: all of V is read first, by the clock."""

    def whole(case: Case) -> Case:
        return case._replace(V=case.V[...])

    return method._replace(
        name=f"{method.name}, V in memory",
        fit=lambda case, length: method.fit(whole(case), length),
        trail=lambda case: method.trail(whole(case)),
    )


def workers() -> Any:
    return launch.local_cluster(2, 1, LIMIT)


def bare(look: Callable[[Array, Array], Array]) -> Callable[[Case], None]:
    """A pass that only reads, or also multiplies, over our panels."""

    def work(case: Case) -> None:
        panels, _ = partition.cut(out_of_core.open_matrix(case.V), case.rank)
        out_of_core.bare_pass(panels, look, np.ones((case.rank, panels.blocks.shape[1]), np.float32))

    return work


def write_dense(folder: Path, short: bool) -> None:
    np.save(folder / "V.npy", matrices.noisy(*((600, 300) if short else (10_000, 2000)), 20))


def write_glosses(folder: Path, short: bool) -> None:
    scipy.sparse.save_npz(folder / "V.npz", matrices.glosses(1000 if short else None))


def write_zarr(folder: Path, short: bool) -> None:
    out_of_core.write(str(folder / "V.zarr"), 0.03 if short else 2.0)


def write_ratings(folder: Path, short: bool) -> None:
    users, items, rated = (2000, 200, 60_000) if short else (20_000, 2000, 1_000_000)
    train, test = matrices.split(users, items, rated)
    for name, part in (("V", train), ("test", test)):
        scipy.sparse.save_npz(folder / f"{name}.npz", part.matrix((users, items)))


def read_npz(folder: Path) -> Any:
    return scipy.sparse.csr_array(scipy.sparse.load_npz(folder / "V.npz"))


def read_zarr(folder: Path) -> Any:
    return zarr.open_array(folder / "V.zarr", mode="r")


def test_error(folder: Path, w: Array, h: Array) -> float:
    cells = scipy.sparse.load_npz(folder / "test.npz").tocoo()
    return matrices.Ratings(*cells.coords, cells.data).error(w, h)


def spark_reference(folder: Path, case: Case) -> float:
    method = rivals.spark(PENALTY)
    with method.place():
        return test_error(folder, *method.fit(method.prepare(case), 30))


PRODUCTS = floor("floor: the two products, once (BLAS)", products)
PROBLEMS = (
    squared(
        "dense, in memory", 20, lambda folder: np.load(folder / "V.npy"), 1e-5, write=write_dense,
        methods=(ours("hals"), ours("mu", inner_iter=10), scikit_learn("cd"), scikit_learn("mu"), minibatch(),
                 rivals.torch_nmf(), rivals.dask_array()),
        floors=(PRODUCTS,),
        cannot={"Spark ALS": "takes triplets: 20 million of them"},
    ),
    squared(
        "sparse, in memory", 20, read_npz, 1e-5, write=write_glosses,
        methods=(ours("hals"), ours("mu", inner_iter=10), scikit_learn("cd"), scikit_learn("mu"),
                 minibatch()),
        floors=(PRODUCTS._replace(name="floor: the two products, once (SciPy)"),),
        cannot={
            "nmf-torch": "takes dense matrices only",
            "dask.array, Lee–Seung": "its products fail on sparse blocks",
            "Spark ALS": "what is not stored is missing, not 0",
        },
    ),
    squared(
        "dense, out of core", out_of_core.RANK, read_zarr, 1e-4,
        write=write_zarr,
        methods=(ours("hals")._replace(place=workers), read_in_memory(scikit_learn("cd")), rivals.streamed(),
                 rivals.dask_array(lambda: rivals.plain_cluster(LIMIT))),
        floors=(floor("floor: a read of V, once", bare(out_of_core.read), place=workers),
                floor("floor: a read and the two products, once", bare(out_of_core.multiply), place=workers)),
        cannot={"nmf-torch": "takes V in memory only", "NMF mu": "takes V in memory only"},
    ),
    Problem(
        "ratings, most missing", 8, write_ratings, read_npz, test_error, spark_reference,
        methods=(ours("hals", missing="unstored", alpha_W=PENALTY), rivals.spark(PENALTY)),
        cannot=dict.fromkeys(("scikit-learn", "nmf-torch"), "has no missing entries"),
    ),
)  # fmt: skip


def case_of(problem: Problem, folder: Path) -> Case:
    return Case(problem.name, problem.read(folder), problem.rank)


def refer(at: int, folder: Path) -> float:
    """The error of the reference."""
    problem = PROBLEMS[at]
    return problem.reference(folder, case_of(problem, folder))


def search(at: int, which: int, folder: Path, target: float, patience: float) -> Reached:
    """How far a method must go."""
    problem = PROBLEMS[at]
    method = problem.methods[which]
    with method.place():
        case = method.prepare(case_of(problem, folder))
        return go(method, case, lambda w, h: problem.error(folder, w, h), target, patience)


def spend(at: int, which: int, folder: Path, length: int) -> Spent:
    """On a fit of a length, after a short one of some rows, that compiles."""
    problem = PROBLEMS[at]
    method = (*problem.methods, *problem.floors)[which]
    whole = case_of(problem, folder)
    with method.place():
        method.fit(method.prepare(whole._replace(V=whole.V[:WARM])), 1)
        case = method.prepare(whole)
        return Spent(elapsed(lambda: method.fit(case, length)), machine.family_peak())


def alone(work: Callable[..., Any], *arguments: Any) -> Any:
    """In a process of its own, that begins as all the others do."""
    context = get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    with ProcessPoolExecutor(1, context) as pool:
        return pool.submit(work, *arguments).result()


def compare(at: int, without: list[str], short: bool) -> list[Row]:
    """The rows of a problem: ours, the others, the floors, and those that cannot."""
    problem = PROBLEMS[at]
    kept = {which: method for which, method in enumerate(problem.methods) if method.name not in without}
    floors = dict(enumerate(problem.floors, len(problem.methods)))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        alone(problem.write, folder, short)
        reference = alone(refer, at, folder)
        print(f"{problem.name}: the reference's error is {reference:.5f}", flush=True)
        patience = 1.0 if short else PATIENCE
        found, slow = dict.fromkeys(floors, Reached(1, np.nan)), set()
        for which, method in kept.items():
            start = time.monotonic()
            found[which] = alone(search, at, which, folder, NEAR * reference, patience)
            if which > 0 and time.monotonic() - start > patience:
                slow.add(which)
            print(
                f"  {method.name}: {found[which].error / reference:.4f} x in {found[which].length}",
                flush=True,
            )
        kinds = {which: partial(alone, spend, at, which, folder, found[which].length) for which in found}
        spent = in_turn({which: kinds[which] for which in kinds if which not in slow}, 1 if short else ROUNDS)
        spent |= in_turn({which: kinds[which] for which in slow}, 1)
    base = [one.seconds for one in spent[0]]
    rows = []
    for which, method in (kept | floors).items():
        length, error = found[which]
        seconds = [one.seconds for one in spent[which]]
        row = Row(
            problem.name, method.name, length,
            None if which in floors else error / reference, not error > NEAR * reference,
            median(seconds), ratio(seconds, base[: len(seconds)]),
            method.reads(length), median(one.peak for one in spent[which]),
        )  # fmt: skip
        rows.append(row)
        print("  " + " | ".join(row.cells()[1:]), flush=True)
    return rows + [Row(problem.name, name, cannot=why) for name, why in problem.cannot.items()]


def missing(problems: list[int], without: list[str]) -> list[str]:
    """What is not installed, of what is needed."""
    methods = [method for at in problems for method in PROBLEMS[at].methods if method.name not in without]
    return sorted({f"{method.name} ({method.needs})" for method in methods if not find_spec(method.needs)})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--short", action="store_true", help="small matrices, one round")
    names = sorted({method.name for problem in PROBLEMS for method in problem.methods[1:]})
    parser.add_argument("--without", action="append", default=[], choices=names, help="leave out a method")
    parser.add_argument("--case", action="append", choices=[problem.name for problem in PROBLEMS])
    parser.add_argument("--output", type=Path, default=RESULTS, help="a folder (default: %(default)s)")
    asked = parser.parse_args()
    chosen = [at for at, problem in enumerate(PROBLEMS) if not asked.case or problem.name in asked.case]
    if absent := missing(chosen, asked.without):
        sys.exit(f"not installed: {', '.join(absent)}; pip install -e '.[bench]', or --without each of them")
    title = machine.name()
    print(title, flush=True)
    rows = [row for at in chosen for row in compare(at, asked.without, asked.short)]
    notes = [f"{NEAR} × the reference's error is to be reached. {'Small matrices. ' * asked.short}{title}."]
    notes += [f"Left out: {name}." for name in asked.without]
    write(asked.output, rows, "# Others and ours, to the same error", notes)


if __name__ == "__main__":
    main()
