"""Time in memory to scikit-learn's answer."""

from __future__ import annotations

import time
import warnings
from typing import NamedTuple

import machine
import numpy as np
from matrices import noisy
from sklearn.decomposition import NMF
from sklearn.exceptions import ConvergenceWarning

from dask_nmf import nmf
from dask_nmf.execution.executor import Step
from dask_nmf.kernels.least_squares import residual
from dask_nmf.types import Array

ROWS, COLUMNS, RANK = 20_000, 5000, 32
NEAR = 1.005  # of scikit-learn's converged error
STRIDE = 5  # iterations between two looks at scikit-learn's error


class Reached(NamedTuple):
    """How long a fit took to come near scikit-learn's converged error, and in all."""

    near: float  # seconds
    total: float  # seconds
    error: float  # ‖V − W H‖ / ‖V‖ in the end
    steps: int  # in all
    steps_near: int


def seconds(start: float) -> float:
    return time.monotonic() - start


def relative_error(v: Array, w: Array, h: Array) -> float:
    return float(np.sqrt(residual(v, w, h)) / np.linalg.norm(v))


def scikit_learn(v: Array, tol: float) -> Reached:
    """Fitted in one go; its error at an iteration is found by going through the same iterations again.

    The time of an iteration is that of the fit in one go, less what its start takes.
    """
    start = time.monotonic()
    model = NMF(RANK, solver="cd", init="nndsvda", tol=tol, max_iter=200)
    w = model.fit_transform(v)
    total = seconds(start)
    error = relative_error(v, w, model.components_)
    start = time.monotonic()
    first = NMF(RANK, solver="cd", init="nndsvda", max_iter=1, random_state=0)
    w, h, done = first.fit_transform(v), first.components_, 1
    began = seconds(start)
    while relative_error(v, w, h) > NEAR * error and done < model.n_iter_:
        stride = min(STRIDE, model.n_iter_ - done)
        more = NMF(RANK, solver="cd", init="custom", tol=0, max_iter=stride)
        w, h, done = more.fit_transform(v, W=w, H=h), more.components_, done + stride
    each = (total - began) / max(model.n_iter_ - 1, 1)
    return Reached(began + (done - 1) * each, total, error, model.n_iter_, done)


def ours(v: Array, target: float) -> Reached:
    """Fitted until converged, and again with as many passes as it takes to come near."""
    steps: list[Step] = []
    start = time.monotonic()
    result = nmf(v, RANK, callback=steps.append)
    total = seconds(start)
    near = next(step.number for step in steps if step.loss <= target)
    start = time.monotonic()
    short = nmf(v, RANK, max_iter=near)
    assert short.relative_error <= target
    return Reached(seconds(start), total, result.relative_error, len(steps), near)


def main() -> None:
    warnings.simplefilter("ignore", ConvergenceWarning)
    v = noisy(ROWS, COLUMNS, RANK)
    nmf(v[:500, :300], 3)  # compiles
    print(machine.name())
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
        print(f"times sooner: {theirs.near / mine.near:.1f} (whole fits: {theirs.total / mine.total:.1f})")


if __name__ == "__main__":
    main()
