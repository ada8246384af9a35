"""Measure how much 300 iterations of scikit-learn lower the loss of a fit that has converged.

The twelve small matrices are exactly or nearly of a low rank, and the rank of the fit is below, at or above
it. Each is fitted with both losses, both dtypes, and a loose and a tight tolerance. The gain is relative to
the loss, and then to ‖V‖² (or to the divergence of V from its mean).
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
TOLERANCES = {1e-4: 200, 1e-9: 2000}  # tol: max_iter


class Case(NamedTuple):
    """A matrix and the rank of its fit."""

    name: str
    v: Array
    rank: int


class Continued(NamedTuple):
    """A fit, and the loss that scikit-learn gains by continuing it."""

    result: Result
    loss: float  # ‖V − W H‖², or twice the divergence
    gain: float  # relative to the loss
    gain_of_v: float  # relative to ‖V‖²


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
        product = _product(rows, columns, 6, 3)
        v = rng.poisson(product * mean / product.mean()).astype(float)
        yield Case(f"counts of mean {mean:g}, k = 6", v, 6)


def _product(rows: int, columns: int, rank: int, seed: int) -> Array:
    rng = np.random.default_rng(seed)
    product: Array = rng.gamma(0.5, size=(rows, rank)) @ rng.gamma(0.5, size=(rank, columns))
    return product


def continued(case: Case, loss: str, dtype: str, tol: float) -> Continued:
    """Fit a matrix, and continue the fit with scikit-learn."""
    v = case.v.astype(dtype)
    result = nmf(v, case.rank, beta_loss=loss, tol=tol, max_iter=TOLERANCES[tol])
    wide = v.astype(np.float64)
    w, h = (factor.compute().astype(np.float64) for factor in result)
    reached = loss_of(wide, w, h, loss)
    options: dict[str, Any] = {"init": "custom", "max_iter": ITERATIONS, "tol": 0, "beta_loss": loss}
    solver = "cd" if loss == "frobenius" else "mu"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        further = non_negative_factorization(wide, w.copy(), h.copy(), case.rank, solver=solver, **options)[
            :2
        ]
    gained = reached - loss_of(wide, *further, loss)
    whole = reached / max(result.relative_error, 1e-300) ** 2
    return Continued(result, reached, gained / max(reached, 1e-300), gained / whole)


def loss_of(v: Array, w: Array, h: Array, loss: str) -> float:
    """Return ‖v − w h‖², or twice the divergence, float64."""
    y = w @ h
    if loss == "frobenius":
        return float(np.square(v - y).sum())
    positive = v > 0
    change = (y[positive] - v[positive]) / v[positive]  # so that no large terms cancel
    return 2 * float((v[positive] * (change - np.log1p(change))).sum() + y[~positive].sum())


def main() -> None:
    """Print a line for each fit."""
    print("| matrix | loss | dtype | tol | passes | relative error | gain of the loss | of V | outcome |")
    print("|---|---|---|---|---|---|---|---|---|")
    for case in cases():
        for loss in LOSSES:
            for dtype in ("float32", "float64"):
                for tol in TOLERANCES:
                    fit = continued(case, loss, dtype, tol)
                    result = fit.result
                    outcome = str(result.outcome)
                    print(
                        f"| {case.name} | {loss} | {dtype} | {tol:g} | {result.n_iter} "
                        f"| {result.relative_error:.3g} | {fit.gain:.1e} | {fit.gain_of_v:.1e} | {outcome} |",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
