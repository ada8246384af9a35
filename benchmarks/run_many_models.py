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
from lib.timing import elapsed, interleaved, median_ratio
from sklearn.decomposition import NMF
from sklearn.exceptions import ConvergenceWarning

from dask_nmf.execution.engine import Model
from dask_nmf.execution.engines.panels import PanelEngine
from dask_nmf.solvers.hals import HALS
from dask_nmf.types import Array

MODELS, RANK, PASSES = 20, 10, 10
COLUMNS = 5000  # of a dense V in memory
PLACES = ("memory", "disk")  # of V
IN_LOOP = 2  # fits by scikit-learn that are measured: the time of all is that of these, times as many

Works = Mapping[str, Callable[[], Any]]


def passes(panels: PanelEngine, ranks: Sequence[int], number: int) -> None:
    """Make passes for models of these ranks, which share each read of V."""
    random, columns = np.random.default_rng(0), panels.matrix.shape[1]
    starts = (random.random((rank, columns), dtype=np.float32) for rank in ranks)
    models = [Model(HALS(), HALS().begin(h)) for h in starts]
    for _ in range(number):
        totals = panels.sweep(models)
        # without ‖V‖² the loss is wrong by a constant, by which nothing changes
        models = [
            model._replace(state=HALS().update(model.state, sums, 0.0))
            for model, sums in zip(models, totals, strict=True)
        ]


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


def compare(works: Works, rounds: int, clock: Callable[[], float]) -> dict[str, list[float]]:
    """Return the seconds of each work in each round, after a short one that compiles."""
    return interleaved({name: partial(elapsed, work, clock) for name, work in works.items()}, rounds)


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
    parser.add_argument("--processor-time", action="store_true", help="for a busy machine")
    options = parser.parse_args()
    clock = time.process_time if options.processor_time else time.monotonic
    print(environment.describe())
    works = {"memory": in_memory, "disk": out_of_core}
    for place in options.place:
        works[place](options, clock)


def in_memory(options: argparse.Namespace, clock: Callable[[], float]) -> None:
    """Compare with one model that has all components, and with scikit-learn."""
    v = noisy(options.mebibytes * 2**20 // (4 * COLUMNS), COLUMNS, RANK).astype(np.float32)
    panels, _ = open_panels(v, RANK * MODELS)
    passes(panels, [RANK] * MODELS, 1)
    loops = {f"scikit-learn {name}": partial(scikit_learn, v, name, options.passes) for name in ("cd", "mu")}
    whole = {"one of the summed rank": partial(passes, panels, [RANK * MODELS], options.passes)}
    works = {**ours(panels, options.passes), **whole, **loops}
    report("in memory", compare(works, options.rounds, clock))


def out_of_core(options: argparse.Namespace, clock: Callable[[], float]) -> None:
    """Compare with fits one after another, which read V once for each model and pass."""
    with TemporaryDirectory() as folder:
        write_zarr(f"{folder}/v.zarr", options.gigabytes)
        panels = without_prefetch(open_panels(f"{folder}/v.zarr", RANK * MODELS)[0])
        passes(panels, [RANK] * MODELS, 1)
        report("out of core", compare(ours(panels, options.passes), options.rounds, clock))


if __name__ == "__main__":
    main()
