"""Compare other packages with ours, to the same error on the same cores: a table and its plots.

The target error is `NEAR` times that of a reference: scikit-learn's coordinate descent when it has converged,
or Spark's alternating least squares where entries are missing. Each method first runs until it reaches the
target or `PATIENCE` ends. A fit of that length is then timed in interleaved rounds, each in a process of its
own. A method that used up its patience is timed once.
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

import numpy as np
import scipy.sparse
import zarr
from lib import competitors, datasets, environment, methods
from lib.methods import Case, Method, Reached, ours, scikit_learn
from lib.passes import Look, bare_pass, multiply, open_panels, read
from lib.report import Row, write
from lib.timing import elapsed, interleaved, median_ratio
from sklearn.decomposition import NMF

from dask_nmf.cluster.backends import local
from dask_nmf.types import Array

NEAR = 1.005
RESULTS = Path(__file__).parent / "results"
LIMIT = 600_000_000  # bytes of memory of each worker
PENALTY = 0.01  # per rating
ROUNDS = 3
PATIENCE = 40.0  # seconds
WARM_UP_ROWS = 1000
PRELOAD = [
    "dask_nmf.fitting.factorise",
    "dask_nmf.execution.partition",
    "sklearn.decomposition",
    "matplotlib.figure",
]


class Problem(NamedTuple):
    """A matrix in a folder, and the methods to compare on it."""

    name: str
    rank: int
    write: Callable[[Path, bool], None]
    """Writes the files of V to a folder; a small V if the flag is set."""
    read: Callable[[Path], Any]
    error: Callable[[Path, Array, Array], float]
    reference: Callable[[Path, Case], float]
    methods: tuple[Method, ...]  # the first is ours; the others are compared with it
    floors: tuple[Method, ...] = ()
    cannot: dict[str, str] = {}  # noqa: RUF012  methods that do not run, and why


class Cost(NamedTuple):
    """The time and memory of a fit."""

    seconds: float
    peak: float  # MB


def converged(case: Case, tol: float) -> tuple[Array, Array]:
    model = NMF(case.rank, solver="cd", init="nndsvda", tol=tol, max_iter=200, random_state=0)
    return model.fit_transform(case.V[...] if isinstance(case.V, zarr.Array) else case.V), model.components_


def squared(name: str, rank: int, read: Callable[[Path], Any], tol: float, **others: Any) -> Problem:
    """Return a problem with the squared error of all entries."""

    def error(folder: Path, w: Array, h: Array) -> float:
        return methods.relative_error(read(folder), w, h)

    def reference(folder: Path, case: Case) -> float:
        return error(folder, *converged(case, tol))

    return Problem(name, rank, read=read, error=error, reference=reference, **others)


def products(case: Case) -> None:
    """Compute the two products of an iteration: V Hᵀ, and Vᵀ W."""
    h = np.ones((case.rank, case.V.shape[1]), np.float32)
    case.V.T @ (case.V @ h.T)


def workers() -> Any:
    return local.local_cluster(2, 1, LIMIT)


def bare(look: Look) -> Callable[[Case], None]:
    """Return a pass over our panels that only reads, or only multiplies."""

    def work(case: Case) -> None:
        panels, _ = open_panels(case.V, case.rank)
        bare_pass(panels, look, np.ones((case.rank, case.V.shape[1]), np.float32))

    return work


def write_dense(folder: Path, short: bool) -> None:
    np.save(folder / "V.npy", datasets.noisy(*((600, 300) if short else (10_000, 2000)), 20))


def write_glosses(folder: Path, short: bool) -> None:
    scipy.sparse.save_npz(folder / "V.npz", datasets.glosses(1000 if short else None))


def write_zarr(folder: Path, short: bool) -> None:
    datasets.write_zarr(str(folder / "V.zarr"), 0.03 if short else 2.0)


def write_ratings(folder: Path, short: bool) -> None:
    users, items, rated = (2000, 200, 60_000) if short else (20_000, 2000, 1_000_000)
    train, test = datasets.split_ratings(users, items, rated)
    for name, part in (("V", train), ("test", test)):
        scipy.sparse.save_npz(folder / f"{name}.npz", part.matrix((users, items)))


def read_npz(folder: Path) -> Any:
    return scipy.sparse.csr_array(scipy.sparse.load_npz(folder / "V.npz"))


def read_zarr(folder: Path) -> Any:
    return zarr.open_array(folder / "V.zarr", mode="r")


def test_error(folder: Path, w: Array, h: Array) -> float:
    cells = scipy.sparse.load_npz(folder / "test.npz").tocoo()
    return datasets.Ratings(*cells.coords, cells.data).error(w, h)


def spark_reference(folder: Path, case: Case) -> float:
    method = competitors.spark(PENALTY)
    with method.place():
        return test_error(folder, *method.fit(method.prepare(case), 30))


PRODUCTS = methods.floor("floor: the two products, once (BLAS)", products)
PROBLEMS = (
    squared(
        "dense, in memory", 20, lambda folder: np.load(folder / "V.npy"), 1e-5, write=write_dense,
        methods=(ours("hals"), ours("mu", inner_iter=10), scikit_learn("cd"), scikit_learn("mu"),
                 methods.minibatch(), competitors.torch_nmf(), competitors.dask_array()),
        floors=(PRODUCTS,),
        cannot={"Spark ALS": "takes triplets: 20 million of them"},
    ),
    squared(
        "sparse, in memory", 20, read_npz, 1e-5, write=write_glosses,
        methods=(ours("hals"), ours("mu", inner_iter=10), scikit_learn("cd"), scikit_learn("mu"),
                 methods.minibatch()),
        floors=(PRODUCTS._replace(name="floor: the two products, once (SciPy)"),),
        cannot={
            "nmf-torch": "takes dense matrices only",
            "dask.array, Lee–Seung": "its products fail on sparse blocks",
            "Spark ALS": "what is not stored is missing, not 0",
        },
    ),
    squared(
        "dense, out of core", datasets.RANK, read_zarr, 1e-4,
        write=write_zarr,
        methods=(ours("hals")._replace(place=workers), methods.read_in_memory(scikit_learn("cd")),
                 competitors.streamed(), competitors.dask_array(lambda: competitors.plain_cluster(LIMIT))),
        floors=(methods.floor("floor: a read of V, once", bare(read), place=workers),
                methods.floor("floor: a read and the two products, once", bare(multiply), place=workers)),
        cannot={"nmf-torch": "takes V in memory only", "NMF mu": "takes V in memory only"},
    ),
    Problem(
        "ratings, most missing", 8, write_ratings, read_npz, test_error, spark_reference,
        methods=(ours("hals", missing="unstored", alpha_W=PENALTY), competitors.spark(PENALTY)),
        cannot=dict.fromkeys(("scikit-learn", "nmf-torch"), "has no missing entries"),
    ),
)  # fmt: skip


def case_of(problem: Problem, folder: Path) -> Case:
    return Case(problem.name, problem.read(folder), problem.rank)


def refer(at: int, folder: Path) -> float:
    """Return the error of the reference."""
    problem = PROBLEMS[at]
    return problem.reference(folder, case_of(problem, folder))


def search(at: int, which: int, folder: Path, target: float, patience: float) -> Reached:
    """Return the length that a method needs for the target error."""
    problem = PROBLEMS[at]
    method = problem.methods[which]
    with method.place():
        case = method.prepare(case_of(problem, folder))
        return methods.fit_until(method, case, lambda w, h: problem.error(folder, w, h), target, patience)


def measure(at: int, which: int, folder: Path, length: int) -> Cost:
    """Return the cost of a fit of a given length, after a short fit that compiles."""
    problem = PROBLEMS[at]
    method = (*problem.methods, *problem.floors)[which]
    whole = case_of(problem, folder)
    with method.place():
        method.fit(method.prepare(whole._replace(V=whole.V[:WARM_UP_ROWS])), 1)
        case = method.prepare(whole)
        return Cost(elapsed(lambda: method.fit(case, length)), environment.total_peak_memory())


def alone(work: Callable[..., Any], *arguments: Any) -> Any:
    """Run work in a process of its own, with the modules of `PRELOAD` imported."""
    context = get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    with ProcessPoolExecutor(1, context) as pool:
        return pool.submit(work, *arguments).result()


def compare(at: int, without: list[str], short: bool) -> list[Row]:
    """Return the rows of a problem: ours, the others, the floors, and the methods that do not run."""
    problem = PROBLEMS[at]
    kept = {which: method for which, method in enumerate(problem.methods) if method.name not in without}
    floors = dict(enumerate(problem.floors, len(problem.methods)))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        alone(problem.write, folder, short)
        reference = alone(refer, at, folder)
        print(f"{problem.name}: the reference's error is {reference:.5f}", flush=True)
        patience = 1.0 if short else PATIENCE
        reached, slow = dict.fromkeys(floors, Reached(1, np.nan)), set()
        for which, method in kept.items():
            start = time.monotonic()
            reached[which] = alone(search, at, which, folder, NEAR * reference, patience)
            if which > 0 and time.monotonic() - start > patience:
                slow.add(which)
            print(
                f"  {method.name}: {reached[which].error / reference:.4f} x in {reached[which].length}",
                flush=True,
            )
        candidates = {
            which: partial(alone, measure, at, which, folder, reached[which].length) for which in reached
        }
        quick = {which: candidates[which] for which in candidates if which not in slow}
        costs = interleaved(quick, 1 if short else ROUNDS)
        costs |= interleaved({which: candidates[which] for which in slow}, 1)
    base = [cost.seconds for cost in costs[0]]
    rows = []
    for which, method in (kept | floors).items():
        length, error = reached[which]
        seconds = [cost.seconds for cost in costs[which]]
        row = Row(
            problem.name, method.name, length,
            None if which in floors else error / reference, not error > NEAR * reference,
            median(seconds), median_ratio(seconds, base[: len(seconds)]),
            method.reads(length), median(cost.peak for cost in costs[which]),
        )  # fmt: skip
        rows.append(row)
        print("  " + " | ".join(row.cells()[1:]), flush=True)
    return rows + [Row(problem.name, name, cannot=why) for name, why in problem.cannot.items()]


def missing(problems: list[int], without: list[str]) -> list[str]:
    """Return the methods whose module is not installed."""
    needed = [method for at in problems for method in PROBLEMS[at].methods if method.name not in without]
    return sorted({f"{method.name} ({method.needs})" for method in needed if not find_spec(method.needs)})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--short", action="store_true", help="small matrices, one round")
    names = sorted({method.name for problem in PROBLEMS for method in problem.methods[1:]})
    parser.add_argument("--without", action="append", default=[], choices=names, help="leave out a method")
    parser.add_argument("--case", action="append", choices=[problem.name for problem in PROBLEMS])
    parser.add_argument("--output", type=Path, default=RESULTS, help="a folder (default: %(default)s)")
    arguments = parser.parse_args()
    chosen = [
        at for at, problem in enumerate(PROBLEMS) if not arguments.case or problem.name in arguments.case
    ]
    if absent := missing(chosen, arguments.without):
        sys.exit(f"not installed: {', '.join(absent)}; pip install -e '.[bench]', or --without each of them")
    title = environment.describe()
    print(title, flush=True)
    rows = [row for at in chosen for row in compare(at, arguments.without, arguments.short)]
    notes = [
        f"The target is {NEAR} × the error of the reference. {'Small matrices. ' * arguments.short}{title}."
    ]
    notes += [f"Left out: {name}." for name in arguments.without]
    write(arguments.output, rows, "# Other packages and dask_nmf, to the same error", notes)


if __name__ == "__main__":
    main()
