"""Compare fits of the Kullback–Leibler divergence and of the squared error with scikit-learn's.

Three things are measured: the time to scikit-learn's objective, the reads of V to it, and the bare kernels.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np
import scipy.sparse
from lib import environment
from lib.datasets import DATA, counts, load, noisy, topics
from lib.methods import ITERATIONS, KL, SQUARED, Case, Method, fit_until, minibatch, ours, scikit_learn
from lib.timing import elapsed, interleaved, median_ratio
from sklearn.decomposition import NMF
from sklearn.decomposition._nmf import (
    _beta_divergence,
    _multiplicative_update_h,
    _multiplicative_update_w,
)
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import TfidfTransformer
from threadpoolctl import threadpool_limits

from dask_nmf import nmf
from dask_nmf.iteration.loop import Step
from dask_nmf.kernels import kl_newton
from dask_nmf.kernels.blocks.masked import Cells
from dask_nmf.kernels.divergence import BetaDivergence, RowPenalty
from dask_nmf.types import Array

NEAR = 1.005  # times the objective that scikit-learn reaches in `ITERATIONS`
ROUNDS = 3
SEEDS = range(3)
MAX_ITER = 60
RANKS = {"golub_all_aml": 3, "hrdetect_sbs96": 6, "reuters_lda": 20, "msweb_visits": 10,
          "digits": 16, "wordnet_gloss": 10}  # fmt: skip


def objective(case: Case, w: Array, h: Array) -> float:
    """Return the divergence, or half the squared error, computed in float64."""
    wide = (np.ascontiguousarray(part, np.float64) for part in (w, h))
    return float(_beta_divergence(case.V.astype(np.float64), *wide, case.loss))


def timer(method: Method, case: Case, length: int) -> Callable[[], float]:
    return lambda: elapsed(lambda: method.fit(case, length))


def compare(case: Case) -> None:
    """Print the seconds to `NEAR` times the objective of scikit-learn's solver for this loss."""
    if case.loss == KL:
        peers = [scikit_learn("mu"), scikit_learn("mu", "random"), minibatch()]
        mine = [ours("hals"), ours("mu", inner_iter=10)]
    else:
        peers = [scikit_learn("cd"), scikit_learn("cd", "random"), minibatch()]
        mine = [ours("hals")]

    def error(w: Array, h: Array) -> float:
        return objective(case, w, h)

    reference = fit_until(peers[0], case, error, 0.0).error
    reached = {method: fit_until(method, case, error, NEAR * reference) for method in (*peers, *mine)}
    near = [method for method in reached if reached[method].error <= NEAR * reference]
    works = {method.name: timer(method, case, reached[method].length) for method in near}
    times = interleaved(works, ROUNDS)
    theirs = [times[method.name] for method in near if method in peers]
    best = [min(turn) for turn in zip(*theirs, strict=True)]
    stored = case.V.nnz if scipy.sparse.issparse(case.V) else case.V.size
    print(f"{case.name}, {case.loss}: {case.V.shape}, {stored} entries, k = {case.rank};", end=" ")
    print(f"objective {reference:.6g} after {ITERATIONS} iterations")
    for method, (length, value) in reached.items():
        if method not in near:
            print(f"  {method.name:18} not reached: {value / reference:.4f} x after {length}")
            continue
        seconds = times[method.name]
        faster = median_ratio(best, seconds)
        print(f"  {method.name:18} {length:4} {median(seconds):8.2f} s, {faster:5.2f} x faster than the best")


def count_reads(name: str, rank: int) -> None:
    """Print the reads of V that it takes to come near the better of two starts of scikit-learn, and to it.

    Each pass counts, and so does the first read. A pass measures the loss of its H with its own W.
    """
    V = load(name).astype(np.float32)
    case = Case(name, V, rank, KL)
    mean = float(V.sum(dtype=np.float64)) / (V.shape[0] * V.shape[1])
    values = V.data if scipy.sparse.issparse(V) else V[V > 0]
    flat = float(np.sum(values * np.log(values / mean), dtype=np.float64))
    models = [
        NMF(rank, solver="mu", init=init, beta_loss=KL, tol=0, max_iter=ITERATIONS, random_state=0)
        for init in ("nndsvda", "random")
    ]
    best = min(objective(case, model.fit_transform(V), model.components_) for model in models)
    cells = []
    for seed in SEEDS:
        steps: list[Step] = []
        nmf(V, rank, beta_loss=KL, random_state=seed, max_iter=MAX_ITER, tol=0, callback=steps.append)
        losses = [step.relative_error**2 * flat / best for step in steps]
        reads = [
            next((str(1 + p) for p, loss in enumerate(losses, 1) if loss <= goal), "-")
            for goal in (NEAR, 1.0)
        ]
        cells.append(f"{reads[0]:>3} {reads[1]:>3} {min(losses):.4f}")
    print(f"{name:15} {rank:3} {best:12.6g} | {' | '.join(cells)}", flush=True)


def bare(V: Any, rank: int) -> None:
    """Print the time on one core of a multiplicative iteration of both factors, and of one of Newton's."""
    random = np.random.default_rng(0)
    w, h = (0.1 + random.random(shape, np.float32) for shape in ((V.shape[0], rank), (rank, V.shape[1])))
    cells = Cells(V.data, V.data[:0], V.indices, V.indptr, V.shape[1], implicit_zeros=True)
    loss = BetaDivergence(1.0, 1e-9)
    columns, none = cells.transpose(), RowPenalty(*np.zeros((2, V.shape[0])))
    works: dict[str, Callable[[], Any]] = {
        "scikit-learn's W and H": lambda: (
            _multiplicative_update_w(V, w.copy(), h, 1.0, 0, 0, 1.0),
            _multiplicative_update_h(V, w, h.copy(), 1.0, 0, 0, 1.0),
        ),
        "mu_update and mu_terms": lambda: (
            loss.mu_update(cells, h.T, w, none, 1),
            loss.mu_terms(cells, w, h),
        ),
        "solve and quadratic_models": lambda: (
            kl_newton.solve(cells, h.T, none, 1e-9, 1e-2),
            kl_newton.quadratic_models(columns, w, h.T, 1e-9),
        ),
    }

    def timer(work: Callable[[], Any]) -> Callable[[], float]:
        return lambda: elapsed(work, time.thread_time) * 1e9 / (V.nnz * rank)

    with threadpool_limits(1):
        times = interleaved({name: timer(work) for name, work in works.items()}, ROUNDS + 1)
    figures = ", ".join(f"{name} {median(each[1:]):.2f}" for name, each in times.items())
    print(f"k = {rank}: ns per entry and component: {figures}", flush=True)


def main() -> None:
    warnings.simplefilter("ignore", ConvergenceWarning)
    words = topics()
    for small in (words[:300], words[:300].toarray()):
        for solver, loss in (("hals", KL), ("mu", KL), ("hals", SQUARED)):
            nmf(small, 2, solver=solver, beta_loss=loss, max_iter=1)  # compiles
    print(environment.describe())
    print("each line: the method, its iterations, epochs or passes, and seconds")
    for rank in (10, 20, 32):
        bare(words, rank)
    compare(Case("topics", words, 20, KL))
    compare(Case("dense counts", counts(), 20, KL))
    compare(Case("dense, noisy", noisy(10_000, 2000, 20), 20, SQUARED))
    if not DATA.exists():
        return
    glosses = load("wordnet_gloss").astype(np.float32)
    compare(Case("WordNet", glosses, 10, KL))
    tfidf = TfidfTransformer(sublinear_tf=True).fit_transform(glosses)
    compare(Case("WordNet tf-idf", tfidf, 20, SQUARED))
    print(f"reads of V to {NEAR} x and 1 x the objective of {ITERATIONS} iterations, which read V", end=" ")
    print(f"{2 * ITERATIONS} times, and the lowest objective of {MAX_ITER} passes over it; three seeds")
    for name, rank in RANKS.items():
        count_reads(name, rank)


if __name__ == "__main__":
    main()
