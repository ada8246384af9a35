"""Kullback & Leibler's divergence and the squared error, of counts and of others, beside scikit-learn.

Three looks: the time to scikit-learn's objective, the reads of V to it, and the bare kernels.
"""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Iterator
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse
from reads import DATA, load
from sklearn.decomposition import NMF, MiniBatchNMF
from sklearn.decomposition._nmf import (
    _beta_divergence,
    _multiplicative_update_h,
    _multiplicative_update_w,
)
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import TfidfTransformer
from threadpoolctl import threadpool_limits

from dask_nmf import divergence, nmf
from dask_nmf.cells import Cells
from dask_nmf.divergence import Ridge
from dask_nmf.fit import Step
from dask_nmf.kernels import Array

KL, SQUARED = "kullback-leibler", "frobenius"
NEAR = 1.005  # times the objective that scikit-learn reaches in so many iterations:
ITERATIONS = 200
LOOKS = (1, 2, 3, 5, 7, *range(10, ITERATIONS + 1, 10))  # at its objective on the way
TIMED = 10  # iterations, for the time of one
EPOCHS = (1, 2, 4, 8, 16)  # of MiniBatchNMF, tried in turn
PASSES = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 48)  # of ours
REPEATS = 3
SEEDS = range(3)
MOST_PASSES = 60
FITTED = {"golub_all_aml": 3, "hrdetect_sbs96": 6, "reuters_lda": 20, "msweb_visits": 10,
          "digits": 16, "wordnet_gloss": 10}  # ranks  # fmt: skip


class Case(NamedTuple):
    """A matrix, float32, and what is asked of it."""

    name: str
    V: Any
    rank: int
    loss: str

    def objective(self, w: Array, h: Array) -> float:
        """The divergence, or half the squared error; float64."""
        wide = (np.ascontiguousarray(part, np.float64) for part in (w, h))
        return float(_beta_divergence(self.V.astype(np.float64), *wide, self.loss))


class Method(NamedTuple):
    """A way to factorise."""

    name: str
    trail: Callable[[Case], Iterator[tuple[int, Array, Array]]]
    """Longer and longer fits: iterations, epochs or passes, W and H."""
    seconds: Callable[[Case, int], float]
    """Of a fit so long."""


class Reached(NamedTuple):
    """How far a method went, and its objective then."""

    length: int
    objective: float


def topics(documents: int = 20_000, words: int = 4000, rank: int = 20, length: int = 55) -> Any:
    """Counts of the words of documents, each of few topics: Poisson, a million entries above 0."""
    random = np.random.default_rng(0)
    h = random.gamma(0.1, size=(rank, words))
    h /= h.sum(axis=1, keepdims=True)
    w = random.dirichlet(np.full(rank, 0.1), documents) * random.gamma(5, length / 5, (documents, 1))
    blocks = [random.poisson(part @ h) for part in np.array_split(w, 10)]
    return scipy.sparse.vstack([scipy.sparse.csr_array(block.astype(np.float32)) for block in blocks], "csr")


def dense(rows: int = 5000, columns: int = 500, rank: int = 20) -> Array:
    """Poisson counts of a low rank, few of them 0."""
    random = np.random.default_rng(0)
    w, h = random.gamma(0.5, size=(rows, rank)), random.gamma(0.5, size=(rank, columns))
    return random.poisson(w @ h).astype(np.float32)


def noisy(rows: int = 10_000, columns: int = 2000, rank: int = 20) -> Array:
    """Low rank + noise of 10 % of its size, cut at 0."""
    random = np.random.default_rng(0)
    v = random.gamma(0.5, size=(rows, rank)) @ random.gamma(0.5, size=(rank, columns))
    v += 0.1 * np.sqrt(np.mean(np.square(v))) * random.standard_normal(v.shape)
    return np.maximum(v, 0).astype(np.float32)


def elapsed(work: Callable[[], Any]) -> float:
    start = time.monotonic()
    work()
    return time.monotonic() - start


def peer(solver: str, init: str) -> Method:
    """scikit-learn's NMF. The time is that of its start, and of an iteration times their number."""

    def model(case: Case, length: int, start: str = init) -> NMF:
        return NMF(
            case.rank, solver=solver, init=start, beta_loss=case.loss, tol=0, max_iter=length, random_state=0
        )

    def trail(case: Case) -> Iterator[tuple[int, Array, Array]]:
        first, done = model(case, 1), 1
        w, h = first.fit_transform(case.V), first.components_
        for length in LOOKS:
            if length > done:
                more = model(case, length - done, "custom")
                w, h = more.fit_transform(case.V, W=w.copy(), H=h.copy()), more.components_
                done = length
            yield length, w, h

    def seconds(case: Case, length: int) -> float:
        begun = elapsed(lambda: model(case, 1).fit_transform(case.V))
        more = elapsed(lambda: model(case, 1 + TIMED).fit_transform(case.V)) - begun
        return begun + (length - 1) * more / TIMED

    return Method(f"NMF {solver}, {init}", trail, seconds)


def minibatch() -> Method:
    """scikit-learn's MiniBatchNMF, as it comes."""

    def fit(case: Case, length: int) -> tuple[Array, Array]:
        model = MiniBatchNMF(
            case.rank, beta_loss=case.loss, tol=0, max_no_improvement=None, max_iter=length, random_state=0
        )
        return model.fit_transform(case.V), model.components_

    return Method(
        "MiniBatchNMF",
        lambda case: ((length, *fit(case, length)) for length in EPOCHS),
        lambda case, length: elapsed(lambda: fit(case, length)),
    )


def ours(solver: str, **options: Any) -> Method:
    """From the matrix to W and H in memory."""

    def fit(case: Case, length: int) -> tuple[Array, Array]:
        result = nmf(case.V, case.rank, solver=solver, beta_loss=case.loss, max_iter=length, tol=0, **options)
        return result.W.compute(), result.H.compute()

    return Method(
        f"dask_nmf {solver}",
        lambda case: ((length, *fit(case, length)) for length in PASSES),
        lambda case, length: elapsed(lambda: fit(case, length)),
    )


def go(method: Method, case: Case, target: float) -> Reached:
    """Longer and longer, until the objective is reached or no more is tried."""
    reached = Reached(0, np.inf)
    for length, w, h in method.trail(case):
        reached = Reached(length, case.objective(w, h))
        if reached.objective <= target:
            break
    return reached


def compare(case: Case) -> None:
    """Seconds to `NEAR` times what scikit-learn's best suited solver reaches, the first of these methods."""
    if case.loss == KL:
        peers = [peer("mu", "nndsvda"), peer("mu", "random"), minibatch()]
        mine = [ours("hals"), ours("mu", inner_iter=10)]
    else:
        peers = [peer("cd", "nndsvda"), peer("cd", "random"), minibatch()]
        mine = [ours("hals")]
    reference = go(peers[0], case, 0.0).objective
    found = {method: go(method, case, NEAR * reference) for method in (*peers, *mine)}
    near = [method for method in found if found[method].objective <= NEAR * reference]
    rounds = [[method.seconds(case, found[method].length) for method in near] for _ in range(REPEATS)]
    best = [min(one[near.index(method)] for method in near if method in peers) for one in rounds]
    stored = case.V.nnz if scipy.sparse.issparse(case.V) else case.V.size
    print(f"{case.name}, {case.loss}: {case.V.shape}, {stored} entries, k = {case.rank};", end=" ")
    print(f"objective {reference:.6g} after {ITERATIONS} iterations")
    for method in found:
        length, objective = found[method]
        if method not in near:
            print(f"  {method.name:18} not reached: {objective / reference:.4f} x after {length}")
            continue
        spent = [one[near.index(method)] for one in rounds]
        sooner = median(other / one for other, one in zip(best, spent, strict=True))
        print(f"  {method.name:18} {length:4} {median(spent):8.2f} s, {sooner:5.2f} x scikit-learn's best")


def count_reads(name: str, rank: int) -> None:
    """Passes and the first read of V, to the better of two starts of scikit-learn and near it.

    A pass measures the loss of the H that it is given, with a W that it has: an answer.
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
    objective = min(case.objective(model.fit_transform(V), model.components_) for model in models)
    told = []
    for seed in SEEDS:
        steps: list[Step] = []
        nmf(V, rank, beta_loss=KL, seed=seed, max_iter=MOST_PASSES, tol=0, callback=steps.append)
        losses = [step.loss**2 * flat / objective for step in steps]
        reads = [
            next((str(1 + p) for p, loss in enumerate(losses, 1) if loss <= goal), "-")
            for goal in (NEAR, 1.0)
        ]
        told.append(f"{reads[0]:>3} {reads[1]:>3} {min(losses):.4f}")
    print(f"{name:15} {rank:3} {objective:12.6g} | {' | '.join(told)}", flush=True)


def bare(V: Any, rank: int) -> None:
    """One core: a multiplicative iteration (both factors), and one of Newton's."""
    random = np.random.default_rng(0)
    w, h = (0.1 + random.random(shape, np.float32) for shape in ((V.shape[0], rank), (rank, V.shape[1])))
    cells = Cells(V.data, V.data[:0], V.indices, V.indptr, V.shape[1], zeros=True)
    columns, none = cells.turned(), Ridge(*np.zeros((2, V.shape[0])))
    kinds: dict[str, Callable[[], Any]] = {
        "scikit-learn's W and H": lambda: (
            _multiplicative_update_w(V, w.copy(), h, 1.0, 0, 0, 1.0),
            _multiplicative_update_h(V, w, h.copy(), 1.0, 0, 0, 1.0),
        ),
        "multiply and shares": lambda: (
            divergence.multiply(cells, h.T, w, none, 1.0, 1e-9, 1),
            divergence.shares(cells, w, h, 1.0, 1e-9),
        ),
        "solve and models": lambda: (
            divergence.solve(cells, h.T, none, 1e-9, 1e-2),
            divergence.models(columns, w, h.T, 1e-9),
        ),
    }
    spent: dict[str, list[float]] = {name: [] for name in kinds}
    with threadpool_limits(1):
        for _ in range(REPEATS + 1):
            for name, work in kinds.items():
                start = time.thread_time()
                work()
                spent[name].append((time.thread_time() - start) * 1e9 / (V.nnz * rank))
    told = ", ".join(f"{name} {median(times[1:]):.2f}" for name, times in spent.items())
    print(f"k = {rank}: ns per entry and component: {told}", flush=True)


def main() -> None:
    warnings.simplefilter("ignore", ConvergenceWarning)
    counts = topics()
    for small in (counts[:300], counts[:300].toarray()):
        for solver, loss in (("hals", KL), ("mu", KL), ("hals", SQUARED)):
            nmf(small, 2, solver=solver, beta_loss=loss, max_iter=1)  # compiles
    print(f"{os.cpu_count()} cores; scikit-learn's iterations or epochs, or our passes, and seconds")
    for rank in (10, 20, 32):
        bare(counts, rank)
    compare(Case("topics", counts, 20, KL))
    compare(Case("dense counts", dense(), 20, KL))
    compare(Case("dense, noisy", noisy(), 20, SQUARED))
    if not DATA.exists():
        return
    words = load("wordnet_gloss").astype(np.float32)
    compare(Case("WordNet", words, 10, KL))
    tfidf = TfidfTransformer(sublinear_tf=True).fit_transform(words)
    compare(Case("WordNet tf-idf", tfidf, 20, SQUARED))
    print(f"reads of V to {NEAR} x and 1 x the objective of {ITERATIONS} iterations, which read it", end=" ")
    print(f"{2 * ITERATIONS} times, and the least of {MOST_PASSES} passes, relative to it; three seeds")
    for name, rank in FITTED.items():
        count_reads(name, rank)


if __name__ == "__main__":
    main()
