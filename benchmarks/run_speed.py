"""Compare the time in memory to the error of scikit-learn's converged fit."""

from __future__ import annotations

import time
import warnings
from typing import NamedTuple

from lib import environment
from lib.datasets import noisy
from lib.methods import relative_error
from sklearn.decomposition import NMF
from sklearn.exceptions import ConvergenceWarning

from dask_nmf import nmf
from dask_nmf.iteration.loop import Step
from dask_nmf.types import Array

ROWS, COLUMNS, RANK = 20_000, 5000, 32
NEAR = 1.005  # of scikit-learn's converged error
STRIDE = 5  # iterations between two measurements of scikit-learn's error


class Reached(NamedTuple):
    """The time of a fit to `NEAR` times scikit-learn's converged error, and of all of it."""

    near: float  # seconds
    total: float  # seconds
    error: float  # ‖V − W H‖ / ‖V‖ at the end
    steps: int  # iterations or passes of the whole fit
    steps_near: int


def since(start: float) -> float:
    return time.monotonic() - start


def scikit_learn(v: Array, tol: float) -> Reached:
    """Fit V, and run the same iterations again to measure the error on the way.

    The time of an iteration is that of the first fit, less the time of its start, over its iterations.
    """
    start = time.monotonic()
    model = NMF(RANK, solver="cd", init="nndsvda", tol=tol, max_iter=200)
    w = model.fit_transform(v)
    total = since(start)
    error = relative_error(v, w, model.components_)
    start = time.monotonic()
    start_only = NMF(RANK, solver="cd", init="nndsvda", max_iter=1, random_state=0)
    w, h, done = start_only.fit_transform(v), start_only.components_, 1
    start_seconds = since(start)
    while relative_error(v, w, h) > NEAR * error and done < model.n_iter_:
        stride = min(STRIDE, model.n_iter_ - done)
        more = NMF(RANK, solver="cd", init="custom", tol=0, max_iter=stride)
        w, h, done = more.fit_transform(v, W=w, H=h), more.components_, done + stride
    each = (total - start_seconds) / max(model.n_iter_ - 1, 1)
    return Reached(start_seconds + (done - 1) * each, total, error, model.n_iter_, done)


def ours(v: Array, target: float) -> Reached:
    """Fit V until it converges, and again with the passes that reach the target."""
    steps: list[Step] = []
    start = time.monotonic()
    result = nmf(v, RANK, callback=steps.append)
    total = since(start)
    near = next(step.number for step in steps if step.relative_error <= target)
    start = time.monotonic()
    short = nmf(v, RANK, max_iter=near)
    assert short.relative_error <= target
    return Reached(since(start), total, result.relative_error, len(steps), near)


def main() -> None:
    warnings.simplefilter("ignore", ConvergenceWarning)
    v = noisy(ROWS, COLUMNS, RANK)
    nmf(v[:500, :300], 3)  # compiles
    print(environment.describe())
    print(f"V {ROWS} x {COLUMNS} float32, k = {RANK}")
    for tol in (1e-4, 1e-6):
        theirs = scikit_learn(v, tol)
        mine = ours(v, NEAR * theirs.error)
        name = f"tol {tol:g}"
        print(f"{name:13} error    steps  seconds | steps and seconds to {NEAR} x scikit-learn's error")
        for name, run in (("scikit-learn", theirs), ("dask_nmf", mine)):
            print(
                f"{name:13} {run.error:.5f} {run.steps:6d} {run.total:8.2f} | "
                f"{run.steps_near:5d} {run.near:7.2f}"
            )
        print(f"times faster: {theirs.near / mine.near:.1f} (whole fits: {theirs.total / mine.total:.1f})")


if __name__ == "__main__":
    main()
