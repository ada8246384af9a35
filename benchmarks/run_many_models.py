"""Compare passes for many models that share each read of V with passes for one, and with fits one by one."""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from lib import environment
from lib.datasets import noisy, write_zarr
from lib.passes import open_panels, without_prefetch
from lib.timing import interleaved, median_ratio
from sklearn.cluster import KMeans
from sklearn.decomposition import NMF, non_negative_factorization
from sklearn.exceptions import ConvergenceWarning
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import normalize

from dask_nmf.execution.engines.panels import PanelEngine
from dask_nmf.fitting.passes.shared import RunningModel, iter_steps
from dask_nmf.iteration.loop import Passes, Stop
from dask_nmf.planning.model_groups import ModelGroups
from dask_nmf.solvers.hals import HALS
from dask_nmf.types import Array

MODELS, RANK, PASSES = 20, 10, 10
COLUMNS = 5000  # of a dense V in memory
HUGE = 1e30  # in place of ‖V‖²: every pass is accepted, and none takes the loss entry by entry
ENDLESS = Stop(max_iter=2**31, tol=0.0)
PLACES = ("memory", "disk")  # of V
IN_LOOP = 2  # fits by scikit-learn that are measured: the time of all is that of these, times as many

Works = Mapping[str, Callable[[], Any]]


def passes(panels: PanelEngine, ranks: Sequence[int], number: int) -> None:
    """Make passes for models of these ranks, which share each read of V."""
    random, columns = np.random.default_rng(0), panels.matrix.shape[1]
    starts = (random.random((rank, columns), dtype=np.float32) for rank in ranks)
    models = [RunningModel(Passes(HALS(), HALS().begin(h), HUGE, ENDLESS)) for h in starts]
    groups = ModelGroups((tuple(range(len(models))),), 0, 1)
    for _ in range(number):
        for _ in iter_steps(panels, models, groups):
            pass


def ours(panels: PanelEngine, number: int) -> Works:
    """Return the passes for many models together, and for one of them."""
    return {
        "together": partial(passes, panels, [RANK] * MODELS, number),
        "one": partial(passes, panels, [RANK], number),
    }


def scikit_learn(v: Array, solver: str, number: int) -> None:
    """Fit some models one after another; each iteration reads V twice."""
    with warnings.catch_warnings(action="ignore", category=ConvergenceWarning):
        for seed in range(IN_LOOP):
            NMF(RANK, init="random", solver=solver, tol=0, max_iter=number, random_state=seed).fit(v)


def consensus_of_fits(v: Array, number: int) -> None:
    """Fit all models one after another and cluster their components, as cNMF does (Kotliar et al., 2019).

    Columns are divided by their standard deviations. Components of all fits, divided by their norms, are
    left out where they are far from their neighbours, and clustered by k-means; the medians of the clusters
    are the components for a last fit of the other factor.
    """
    scaled = v / v.std(axis=0)
    with warnings.catch_warnings(action="ignore", category=ConvergenceWarning):
        options = {"init": "random", "solver": "mu", "tol": 0, "max_iter": number}
        fits = [NMF(RANK, random_state=seed, **options).fit(scaled).components_ for seed in range(MODELS)]
        stacked = normalize(np.concatenate(fits))
        near = (
            NearestNeighbors(n_neighbors=max(1, int(0.3 * MODELS))).fit(stacked).kneighbors()[0].mean(axis=1)
        )
        kept = stacked[near <= np.quantile(near, 0.9)]
        labels = KMeans(RANK, n_init=10, random_state=0).fit_predict(kept)
        medians = np.stack([np.median(kept[labels == one], axis=0) for one in range(RANK)])
        h = (medians / medians.sum(axis=1, keepdims=True)).astype(v.dtype)
        non_negative_factorization(v, H=h, update_H=False, n_components=RANK, **options)


def both_times(work: Callable[[], Any]) -> tuple[float, float]:
    """Return the processor time and the wall time of a work, seconds."""
    began, before = time.monotonic(), time.process_time()
    work()
    return time.process_time() - before, time.monotonic() - began


def compare(title: str, works: Works, rounds: int) -> None:
    """Measure each work in each round, and print both times."""
    times = interleaved({name: partial(both_times, work) for name, work in works.items()}, rounds)
    for number, clock in enumerate(("processor time", "wall time")):
        report(f"{title}, {clock}", {name: [each[number] for each in some] for name, some in times.items()})


def report(title: str, times: Mapping[str, list[float]], shared: str = "together") -> None:
    """Print the median time of all works over that of the passes together."""
    print(f"\n{title}: {np.median(times[shared]):.1f} s for {MODELS} models of rank {RANK} together")
    for name, some in times.items():
        many = {"one": MODELS, "scikit-learn cd": MODELS / IN_LOOP, "scikit-learn mu": MODELS / IN_LOOP}
        ratio = median_ratio(times[shared], some)
        one_by_one = f"; {many[name]:.0f} times this is {many[name] / ratio:.2f}" if name in many else ""
        print(f"  together over {name}: {ratio:.2f}{one_by_one}", flush=True)


def main() -> None:
    """Print the times in memory and out of core."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=0.5, help="of V on disk (default: %(default)s)")
    parser.add_argument("--mebibytes", type=int, default=128, help="of V in memory (default: %(default)s)")
    parser.add_argument("--passes", type=int, default=PASSES, help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--place", nargs="*", choices=PLACES, default=list(PLACES))
    options = parser.parse_args()
    print(environment.describe())
    works = {"memory": in_memory, "disk": out_of_core}
    for place in options.place:
        works[place](options)


def in_memory(options: argparse.Namespace) -> None:
    """Compare with one model that has all components, with scikit-learn, and with a loop like cNMF's."""
    v = noisy(options.mebibytes * 2**20 // (4 * COLUMNS), COLUMNS, RANK).astype(np.float32)
    panels, _ = open_panels(v, RANK * MODELS)
    passes(panels, [RANK] * MODELS, 1)
    loops = {f"scikit-learn {name}": partial(scikit_learn, v, name, options.passes) for name in ("cd", "mu")}
    whole = {"one of the summed rank": partial(passes, panels, [RANK * MODELS], options.passes)}
    others = {**loops, "a loop like cNMF's": partial(consensus_of_fits, v, options.passes)}
    works = {**ours(panels, options.passes), **whole, **others}
    compare("in memory", works, options.rounds)


def out_of_core(options: argparse.Namespace) -> None:
    """Compare with fits one after another, which read V once for each model and pass."""
    with TemporaryDirectory() as folder:
        write_zarr(f"{folder}/v.zarr", options.gigabytes)
        panels = without_prefetch(open_panels(f"{folder}/v.zarr", RANK * MODELS)[0])
        passes(panels, [RANK] * MODELS, 1)
        compare("out of core", ours(panels, options.passes), options.rounds)


if __name__ == "__main__":
    main()
