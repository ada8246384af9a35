"""Penalties: scikit-learn's objective and transform, and the conditions of a minimum."""

from functools import cache
from typing import Any

import dask
import numpy as np
import pytest
import scipy.optimize
import scipy.sparse
from sklearn.decomposition import NMF
from support.grids import pairwise
from support.matrices import Array, low_rank
from support.observed import entries, ratings

from dask_nmf import nmf, transform

SHAPES = {"tall": (60, 25), "wide": (25, 60)}
RANK = 3
ALPHAS = [(0.05, "same"), (0.1, 0.0), (0.0, 0.02), (0.02, 0.2)]
pytestmark = pytest.mark.usefixtures("several_panels")
shapes = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)


def objective(v: Array, w: Array, h: Array, alphas: tuple[float, Any]) -> float:
    """As scikit-learn documents it, with l1_ratio = 0."""
    on_w, on_h = alphas[0], alphas[0] if alphas[1] == "same" else alphas[1]
    m, n = v.shape
    return float(0.5 * ((v - w @ h) ** 2).sum() + 0.5 * (on_w * n * (w**2).sum() + on_h * m * (h**2).sum()))


def penalties(alphas: tuple[float, Any]) -> dict[str, Any]:
    return dict(zip(("alpha_W", "alpha_H"), alphas, strict=True))


@cache
def objective_of_scikit_learn(shape: tuple[int, int], alphas: tuple[float, Any]) -> float:
    v = low_rank(*shape, RANK, noise=1)
    model = NMF(RANK, init="nndsvda", max_iter=300, tol=1e-5, l1_ratio=0, **penalties(alphas))
    return objective(v, model.fit_transform(v), model.components_, alphas)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pairwise(
    {
        "solver, make": {
            "hals-dense": ("hals", np.asarray),
            "hals-csr": ("hals", scipy.sparse.csr_array),
            "mu-dense": ("mu", np.asarray),
        },
        "alphas": ALPHAS,
        "shape": SHAPES,
    }
)
def test_the_objective_is_scikit_learns_and_no_worse(
    shape: tuple[int, int], alphas: tuple[float, Any], solver: str, make: Any
) -> None:
    v = low_rank(*shape, RANK, noise=1)
    theirs = objective_of_scikit_learn(shape, alphas)
    result = nmf(make(v), RANK, solver=solver, max_iter=100, tol=1e-6, **penalties(alphas))
    w, h = dask.compute(result.W, result.H)
    assert objective(v, w, h, alphas) <= theirs * (1 + 1e-3)
    assert result.reconstruction_err == pytest.approx(np.linalg.norm(v - w @ h), rel=1e-9)


@shapes
def test_transform_is_scikit_learns(shape: tuple[int, int]) -> None:
    v, alpha = low_rank(*shape, RANK, noise=1), 0.05
    model = NMF(RANK, alpha_W=alpha, l1_ratio=0, tol=1e-10, max_iter=5000).fit(v)
    ours = transform(v, model.components_, alpha_W=alpha)
    assert ours is not None
    np.testing.assert_allclose(ours, model.transform(v), rtol=1e-5, atol=1e-6)


def worst(factor: Array, slope: Array) -> float:
    """How far from the conditions of a minimum over factor ≥ 0: slope ≥ 0, and 0 where the factor is > 0."""
    return float(np.abs(np.minimum(factor, slope)).max())


@pairwise(
    {
        "kind": ["whole", "nan", "csr", "weighted"],
        "alphas": [(0.05, 0.05), (0.02, 0.2)],  # with one of them there is no minimum
        "shape": SHAPES,
    }
)
def test_a_converged_fit_fulfils_the_conditions_of_a_minimum(
    shape: tuple[int, int], alphas: tuple[float, float], kind: str
) -> None:
    v = low_rank(*shape, RANK, noise=1) if kind == "whole" else ratings(shape)
    there = (~np.isnan(v)).astype(float)
    if kind == "weighted":
        there *= 1 + np.arange(shape[1]) % 3
    filled = np.nan_to_num(v)
    sources: dict[str, tuple[Any, dict[str, Any]]] = {
        "whole": (v, {}),
        "nan": (v, {"missing": "nan"}),
        "csr": (entries(v), {"missing": "unstored"}),
        "weighted": (filled, {"weights": there}),
    }
    source, more = sources[kind]
    result = nmf(source, RANK, alpha_W=alphas[0], alpha_H=alphas[1], max_iter=400, tol=1e-13, **more)
    w, h = dask.compute(result.W, result.H)
    rest = there * (w @ h - filled)
    size = float(((there * filled) @ h.T).max())
    assert worst(w, rest @ h.T + alphas[0] * there.sum(axis=1)[:, None] * w) < 1e-5 * size
    assert worst(h, w.T @ rest + alphas[1] * there.sum(axis=0) * h) < 1e-5 * size


@pytest.mark.parametrize("solver", ["hals", "mu"])
def test_a_penalty_that_leaves_nothing_ends(solver: str) -> None:
    v = low_rank(60, 25, RANK)
    result = nmf(v, RANK, solver=solver, alpha_W=1e6)
    assert result.n_iter < 100
    assert result.relative_error == pytest.approx(1, abs=1e-3)
