"""Ways to factorise a matrix, each for any number of iterations: scikit-learn's and ours."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse
from sklearn.decomposition import NMF, MiniBatchNMF

from dask_nmf import nmf
from dask_nmf.kernels.row_sums import residual
from dask_nmf.types import Array

KL, SQUARED = "kullback-leibler", "frobenius"
ITERATIONS = 200
CHECKPOINTS = (1, 2, 3, 5, 7, *range(10, ITERATIONS + 1, 10))  # iterations at which the error is measured
EPOCHS = (1, 2, 4, 8, 16)  # of MiniBatchNMF, tried in turn
PASSES = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 48)  # of ours
STRIP = 4096  # rows of which an error is computed at once
START = 18  # reads of V by scikit-learn, besides the iterations: its SVD 16, its mean, its error in the end


class Case(NamedTuple):
    """A matrix, and the rank and loss of its factorisation."""

    name: str
    V: Any
    rank: int
    loss: str = SQUARED


Factors = tuple[Array, Array]  # W and H
Trail = Iterator[tuple[int, Array, Array]]  # fits of growing length: the length, W and H


class Method(NamedTuple):
    """A way to factorise. A length is a number of iterations, epochs or passes."""

    name: str
    fit: Callable[[Case, int], Factors]
    trail: Callable[[Case], Trail]
    reads: Callable[[int], int] = lambda length: length
    """Reads of V in a fit of a given length."""
    prepare: Callable[[Case], Case] = lambda case: case
    """Conversion of the case to what the method takes; it is not timed."""
    place: Callable[[], AbstractContextManager[Any]] = nullcontext
    """The cluster that the method runs on."""
    needs: str = "sklearn"
    """The module that must be installed."""


class Reached(NamedTuple):
    """The length at which a method stopped, and its error there."""

    length: int
    error: float


def from_scratch(fit: Callable[[Case, int], Factors], lengths: Sequence[int]) -> Callable[[Case], Trail]:
    """Return what runs each length as a fit of its own."""
    return lambda case: ((length, *fit(case, length)) for length in lengths)


def scikit_learn(solver: str, init: str = "nndsvda", lengths: Sequence[int] = CHECKPOINTS) -> Method:
    """Return scikit-learn's NMF. Its trail continues each fit from the factors of the one before."""

    def run(case: Case, length: int, start: str, **factors: Array) -> Factors:
        options: dict[str, Any] = {"beta_loss": case.loss, "tol": 0, "max_iter": length, "random_state": 0}
        model = NMF(case.rank, solver=solver, init=start, **options)
        return model.fit_transform(case.V, **factors), model.components_

    def trail(case: Case) -> Trail:
        (w, h), done = run(case, 1, init), 1
        for length in lengths:
            if length > done:
                w, h = run(case, length - done, "custom", W=w.copy(), H=h.copy())
                done = length
            yield length, w, h

    begin = START if init.startswith("nndsvd") else 2
    return Method(
        f"NMF {solver}, {init}",
        lambda case, length: run(case, length, init),
        trail,
        lambda length: begin + 2 * length,
    )


def minibatch() -> Method:
    """Return scikit-learn's MiniBatchNMF with its default settings."""

    def fit(case: Case, length: int) -> Factors:
        options: dict[str, Any] = {"beta_loss": case.loss, "tol": 0, "max_no_improvement": None}
        model = MiniBatchNMF(case.rank, max_iter=length, random_state=0, **options)
        return model.fit_transform(case.V), model.components_

    return Method("MiniBatchNMF", fit, from_scratch(fit, EPOCHS), lambda length: START + length)


def ours(solver: str, lengths: Sequence[int] = PASSES, **options: Any) -> Method:
    """Return our fit, from the matrix to W and H in memory; two reads of V are not passes."""

    def fit(case: Case, length: int) -> Factors:
        fixed: dict[str, Any] = {"beta_loss": case.loss, "max_iter": length, "tol": 0}
        result = nmf(case.V, case.rank, solver=solver, **fixed, **options)
        return np.asarray(result.W), np.asarray(result.H)

    return Method(
        f"dask_nmf {solver}", fit, from_scratch(fit, lengths), lambda length: length + 2, needs="dask_nmf"
    )


def floor(name: str, work: Callable[[Case], Any], **others: Any) -> Method:
    """Return work that every method has to do, as a method without factors."""

    def fit(case: Case, length: int) -> Any:
        return work(case)

    return Method(name, fit, lambda case: iter(()), **others)


def read_in_memory(method: Method) -> Method:
    """Return a method that takes no Zarr array, with a timed read of all of V before it."""

    def whole(case: Case) -> Case:
        return case._replace(V=case.V[...])

    return method._replace(
        name=f"{method.name}, V in memory",
        fit=lambda case, length: method.fit(whole(case), length),
        trail=lambda case: method.trail(whole(case)),
    )


def relative_error(v: Any, w: Array, h: Array) -> float:
    """Return ‖V − W H‖ / ‖V‖, summed over strips of rows."""
    rest = whole = 0.0
    for first in range(0, v.shape[0], STRIP):
        block = v[first : first + STRIP]
        rest += residual(block, w[first : first + STRIP], h)
        values = block.data if scipy.sparse.issparse(block) else block
        whole += float(np.square(values, dtype=np.float64).sum())
    return float(np.sqrt(rest / whole))


def fit_until(
    method: Method,
    case: Case,
    error: Callable[[Array, Array], float],
    target: float,
    patience: float = np.inf,
) -> Reached:
    """Fit with growing length until the error is at most the target, or the lengths or the seconds end."""
    reached, start = Reached(0, np.inf), time.monotonic()
    for length, w, h in method.trail(case):
        reached = Reached(length, error(w, h))
        if reached.error <= target or time.monotonic() - start > patience:
            break
    return reached
