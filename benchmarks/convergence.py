"""How much lower 300 iterations of scikit-learn get from where a fit says that it has converged.

Twelve small matrices, exactly and nearly of a low rank, with a rank below, at and above it; both losses, both
dtypes, a loose and a tight tolerance. The gain is relative to the loss, and then to ‖V‖² (or the divergence
of V from its mean).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import non_negative_factorization

from dask_nmf import Result, nmf

Array = NDArray[Any]
ITERATIONS = 300
LOSSES = ("frobenius", "kullback-leibler")
TOLERANCES = {1e-4: 200, 1e-9: 2000}  # and the passes they may take


class Case(NamedTuple):
    """A matrix and the rank of its fit."""

    name: str
    v: Array
    rank: int


class Ended(NamedTuple):
    """A fit, and how much lower scikit-learn gets from there."""

    result: Result
    loss: float  # ‖V − W H‖², or twice the divergence
    gain: float  # of the loss
    of_v: float


def cases(rows: int = 600, columns: int = 80) -> Iterator[Case]:
    """Yield twelve matrices."""
    exact = _product(rows, columns, 5, 0)
    yield Case("exactly rank 5, k = 3", exact, 3)
    yield Case("exactly rank 5, k = 5", exact, 5)
    yield Case("exactly rank 5, k = 8", exact, 8)
    for noise, ranks in ((1e-5, (5,)), (1e-3, (3, 5, 8, 15)), (0.1, (5, 8))):
        rng = np.random.default_rng(1)
        v = np.maximum(exact * (1 + noise * rng.standard_normal(exact.shape)), 0)
        yield from (Case(f"rank 5 + {100 * noise:g} % noise, k = {k}", v, k) for k in ranks)
    rng = np.random.default_rng(2)
    for mean in (3.0, 0.2):
        of_rank_6 = _product(rows, columns, 6, 3)
        v = rng.poisson(of_rank_6 * mean / of_rank_6.mean()).astype(float)
        yield Case(f"counts of mean {mean:g}, k = 6", v, 6)


def _product(rows: int, columns: int, rank: int, seed: int) -> Array:
    rng = np.random.default_rng(seed)
    product: Array = rng.gamma(0.5, size=(rows, rank)) @ rng.gamma(0.5, size=(rank, columns))
    return product


def ended(case: Case, loss: str, dtype: str, tol: float) -> Ended:
    """Fit, and go on from there with scikit-learn."""
    v = case.v.astype(dtype)
    result = nmf(v, case.rank, beta_loss=loss, tol=tol, max_iter=TOLERANCES[tol])
    wide = v.astype(np.float64)
    w, h = (factor.compute().astype(np.float64) for factor in result)
    reached = loss_of(wide, w, h, loss)
    asked: dict[str, Any] = {"init": "custom", "max_iter": ITERATIONS, "tol": 0, "beta_loss": loss}
    solver = "cd" if loss == "frobenius" else "mu"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        further = non_negative_factorization(wide, w.copy(), h.copy(), case.rank, solver=solver, **asked)[:2]
    gained = reached - loss_of(wide, *further, loss)
    whole = reached / max(result.relative_error, 1e-300) ** 2
    return Ended(result, reached, gained / max(reached, 1e-300), gained / whole)


def loss_of(v: Array, w: Array, h: Array, loss: str) -> float:
    """Return ‖v − w h‖², or twice the divergence, float64."""
    y = w @ h
    if loss == "frobenius":
        return float(np.square(v - y).sum())
    there = v > 0
    far = (y[there] - v[there]) / v[there]  # no large terms cancel
    return 2 * float((v[there] * (far - np.log1p(far))).sum() + y[~there].sum())


def main() -> None:
    """Print a line for each fit."""
    print("| matrix | loss | dtype | tol | passes | relative error | gain of the loss | of V | outcome |")
    print("|---|---|---|---|---|---|---|---|---|")
    for case in cases():
        for loss in LOSSES:
            for dtype in ("float32", "float64"):
                for tol in TOLERANCES:
                    found = ended(case, loss, dtype, tol)
                    result = found.result
                    outcome = result.outcome.partition(":")[0]
                    print(
                        f"| {case.name} | {loss} | {dtype} | {tol:g} | {result.n_iter} "
                        f"| {result.relative_error:.3g} | {found.gain:.1e} | {found.of_v:.1e} | {outcome} |",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
