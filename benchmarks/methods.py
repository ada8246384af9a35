"""Ways to factorise: scikit-learn's and ours, for as long as one likes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import numpy as np
from sklearn.decomposition import NMF, MiniBatchNMF

from dask_nmf import nmf
from dask_nmf.types import Array

KL, SQUARED = "kullback-leibler", "frobenius"
ITERATIONS = 200
LOOKS = (1, 2, 3, 5, 7, *range(10, ITERATIONS + 1, 10))  # on the way, at the error
EPOCHS = (1, 2, 4, 8, 16)  # of MiniBatchNMF, tried in turn
PASSES = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 48)  # of ours
START = 18  # reads of V by scikit-learn, besides the iterations: its SVD 16, its mean, its error in the end


class Case(NamedTuple):
    """A matrix, and what is asked of it."""

    name: str
    V: Any
    rank: int
    loss: str = SQUARED


Factors = tuple[Array, Array]  # W and H
Trail = Iterator[tuple[int, Array, Array]]  # longer and longer fits: their length, W and H


class Method(NamedTuple):
    """A way to factorise. A length is a number of iterations, epochs or passes."""

    name: str
    fit: Callable[[Case, int], Factors]
    trail: Callable[[Case], Trail]
    reads: Callable[[int], int] = lambda length: length
    """How often V is gone through in a fit so long."""
    prepare: Callable[[Case], Case] = lambda case: case
    """To what the method takes, and without the clock."""
    place: Callable[[], AbstractContextManager[Any]] = nullcontext
    """The cluster that it runs on."""
    needs: str = "sklearn"
    """The module that must be there."""


class Reached(NamedTuple):
    """How far a method went, and its error then."""

    length: int
    error: float


def anew(fit: Callable[[Case, int], Factors], lengths: Sequence[int]) -> Callable[[Case], Trail]:
    """Each fit from the beginning."""
    return lambda case: ((length, *fit(case, length)) for length in lengths)


def scikit_learn(solver: str, init: str = "nndsvda", lengths: Sequence[int] = LOOKS) -> Method:
    """scikit-learn's NMF. To find how long it takes, it goes on from where it was."""

    def run(case: Case, length: int, start: str, **factors: Array) -> Factors:
        asked: dict[str, Any] = {"beta_loss": case.loss, "tol": 0, "max_iter": length, "random_state": 0}
        model = NMF(case.rank, solver=solver, init=start, **asked)
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
    """scikit-learn's MiniBatchNMF, as it comes."""

    def fit(case: Case, length: int) -> Factors:
        asked: dict[str, Any] = {"beta_loss": case.loss, "tol": 0, "max_no_improvement": None}
        model = MiniBatchNMF(case.rank, max_iter=length, random_state=0, **asked)
        return model.fit_transform(case.V), model.components_

    return Method("MiniBatchNMF", fit, anew(fit, EPOCHS), lambda length: START + length)


def ours(solver: str, lengths: Sequence[int] = PASSES, **options: Any) -> Method:
    """From the matrix to W and H in memory. The first read and the last one are not passes."""

    def fit(case: Case, length: int) -> Factors:
        asked: dict[str, Any] = {"beta_loss": case.loss, "max_iter": length, "tol": 0}
        result = nmf(case.V, case.rank, solver=solver, **asked, **options)
        return np.asarray(result.W), np.asarray(result.H)

    return Method(f"dask_nmf {solver}", fit, anew(fit, lengths), lambda length: length + 2, needs="dask_nmf")


def go(
    method: Method,
    case: Case,
    error: Callable[[Array, Array], float],
    target: float,
    patience: float = np.inf,
) -> Reached:
    """Longer and longer, until the error is reached or no more is tried, or after so many seconds."""
    reached, start = Reached(0, np.inf), time.monotonic()
    for length, w, h in method.trail(case):
        reached = Reached(length, error(w, h))
        if reached.error <= target or time.monotonic() - start > patience:
            break
    return reached
