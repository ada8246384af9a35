"""Penalised fits reach scikit-learn's objective, and penalties do what it says of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.decomposition import NMF as SklearnNMF  # noqa: N811
from support.grids import pairwise
from support.parity import FITS, PENALTIES, RANK, SHAPES, beta_of, given, noisy, objective

from dask_nmf import NMF, nmf
from dask_nmf.iteration.loop import Step

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


@pytest.mark.parametrize("penalty", [PENALTIES["none"], PENALTIES["both"]], ids=["none", "both"])
@pytest.mark.parametrize(("solver", "beta_loss"), [fit for fit in FITS if fit[0] != "sgd"])  # met on the way
def test_no_pass_raises_the_objective(solver: str, beta_loss: Any, penalty: dict[str, float]) -> None:
    steps: list[Step] = []
    options: dict[str, Any] = {"solver": solver, "beta_loss": beta_loss, "init": "random", **penalty}
    nmf(noisy(SHAPES["tall"]), RANK, max_iter=30, tol=0, callback=steps.append, **options)
    reached = np.array([step.state.loss for step in steps])
    assert np.all(np.diff(reached) <= 1e-9 * reached[0])
    assert reached[-1] < reached[0]


@pairwise(
    {
        "l1_ratio": [0.5, 1.0],
        "alphas": [(0.05, "same"), (0.0, 0.02)],
        "beta_loss": ["frobenius", "kullback-leibler"],
        "shape": SHAPES,
    }
)
def test_a_penalised_objective_is_no_worse_than_scikit_learns(
    shape: tuple[int, int], beta_loss: str, alphas: tuple[float, Any], l1_ratio: float
) -> None:
    v, beta = noisy(shape), beta_of(beta_loss)
    penalty = {"alpha_W": alphas[0], "alpha_H": alphas[1], "l1_ratio": l1_ratio}
    solver = "cd" if beta == 2 else "mu"
    theirs = SklearnNMF(
        RANK, solver=solver, beta_loss=beta_loss, init="nndsvda", max_iter=200, tol=1e-5, **penalty
    )
    ours = NMF(RANK, beta_loss=beta_loss, random_state=0, max_iter=200, tol=1e-6, **penalty)
    reached = [
        objective(v, model.fit_transform(v), model.components_, beta, **penalty) for model in (ours, theirs)
    ]
    assert reached[0] <= reached[1] * (1 + 1e-3)


@pairwise({"beta_loss": ["frobenius", "kullback-leibler"], "solver": ["hals", "mu"], "shape": SHAPES})
def test_l1_makes_zeros_and_l2_makes_factors_small(
    shape: tuple[int, int], solver: str, beta_loss: str
) -> None:
    v = noisy(shape)
    model = NMF(RANK, solver=solver, beta_loss=beta_loss, random_state=0, max_iter=150, tol=1e-6)
    factors = {}
    for name, penalty in {
        "plain": {},
        "l1": {"alpha_W": 0.05, "l1_ratio": 1.0},
        "l2": {"alpha_W": 0.2},
    }.items():
        chosen = clone(model).set_params(**penalty)
        factors[name] = chosen.fit_transform(v), chosen.components_
    zeros = {name: sum(int((f <= 1e-3 * f.max()).sum()) for f in pair) for name, pair in factors.items()}
    sizes = {name: sum(float((f**2).sum()) for f in pair) for name, pair in factors.items()}
    assert zeros["l1"] > zeros["plain"]
    assert sizes["l2"] < sizes["plain"]


@pairwise(
    {
        "beta_loss": ["frobenius", "kullback-leibler", 0.5],
        "l1_ratio": [0.0, 1.0],
        "punished, other": [("W", "H"), ("H", "W")],
        "shape": SHAPES,
    }
)
def test_a_penalty_on_one_factor_makes_that_one_small(
    shape: tuple[int, int], punished: str, other: str, l1_ratio: float, beta_loss: Any
) -> None:
    alphas = {f"alpha_{punished}": 0.1, f"alpha_{other}": 0.0, "l1_ratio": l1_ratio}
    options: dict[str, Any] = {"solver": "mu", "beta_loss": beta_loss, "init": "custom", **given(shape)}
    plain, some = (nmf(noisy(shape), RANK, max_iter=10, tol=0, **options, **more) for more in ({}, alphas))
    sizes = [{name: float(getattr(r, name).sum()) for name in "WH"} for r in (plain, some)]
    assert sizes[1][punished] < sizes[0][punished]
    assert sizes[1][other] > sizes[0][other]
