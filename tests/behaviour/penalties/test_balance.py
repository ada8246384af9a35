"""Penalties that differ for W and H: their scales are the best, in every engine, and after resuming."""

from functools import cache
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
import scipy.optimize
import scipy.sparse
from distributed import Client
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import rel_entr
from sklearn.decomposition import NMF
from support.cuts import Enough, no_panels
from support.grids import pairwise
from support.matrices import Array
from support.observed import entries

from dask_nmf import nmf
from dask_nmf.iteration.loop import Step
from dask_nmf.planning import row_panels
from dask_nmf.solvers.parts.penalties import best_scales

pytestmark = pytest.mark.usefixtures("several_panels")


def penalties(alphas: tuple[float, Any]) -> dict[str, Any]:
    return dict(zip(("alpha_W", "alpha_H"), alphas, strict=True))


UNEQUAL = [(1e-5, 0.05), (0.5, 1e-6)]
PENALISED = [
    *((turned, alphas, 1.0) for turned in (False, True) for alphas in UNEQUAL),
    (False, (0.01, 1e-3), 0.5),
    (True, (1e-6, 1.0), 0.0),
]
UNEQUAL_FITS = [  # every solver and loss with every second one
    (solver, beta, *penalised)
    for number, (solver, beta) in enumerate([("hals", 2), ("mu", 2), ("sgd", 2), ("hals", 1), ("mu", 1)])
    for penalised in PENALISED[number % 2 :: 2]
]
turns = pytest.mark.parametrize("turned", [False, True], ids=["tall", "wide"])


def mixed(turned: bool = False) -> Array:
    """60 x 12, or 12 x 60, of rank 3 and a little noise."""
    random = np.random.default_rng(0)
    v = random.random((60, 3)) @ random.random((3, 12)) + 0.05 * random.random((60, 12))
    return v.T.copy() if turned else v


def cost(
    v: Array, pair: Any, alphas: tuple[float, float], l1_ratio: float, beta: int = 2, counts: Any = 1.0
) -> float:
    """scikit-learn's objective of (W, H), over the entries that count, each as often as it does."""
    w, h = pair
    counts, v = np.broadcast_to(counts, v.shape), np.nan_to_num(v)
    loss = 0.5 * (v - w @ h) ** 2 if beta == 2 else rel_entr(v, w @ h) - v + w @ h
    total = float((counts * loss).sum())
    for alpha, factor, mass in ((alphas[0], w, counts.sum(axis=1)), (alphas[1], h.T, counts.sum(axis=0))):
        rows = l1_ratio * factor.sum(axis=1) + 0.5 * (1 - l1_ratio) * (factor**2).sum(axis=1)
        total += alpha * float(mass @ rows)
    return total


def alive(w: Array, h: Array) -> int:
    """How many components there are in both factors."""
    return int((w.any(axis=0) & h.any(axis=1)).sum())


@cache
def least(turned: bool, alphas: tuple[float, float], l1_ratio: float, beta: int) -> tuple[float, int]:
    """The least objective of scikit-learn from some starts, and how many components it leaves."""
    v, found = mixed(turned), []
    how: dict[str, Any] = {"solver": "cd"} if beta == 2 else {"solver": "mu", "beta_loss": "kullback-leibler"}
    for init in ("nndsvda", "nndsvdar", "random"):
        model = NMF(3, init=init, random_state=1, max_iter=500, tol=1e-5, l1_ratio=l1_ratio, **how)
        model.set_params(**penalties(alphas))
        pair = model.fit_transform(v), model.components_
        found.append((cost(v, pair, alphas, l1_ratio, beta), alive(*pair)))
    return min(found)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize(("solver", "beta", "turned", "alphas", "l1_ratio"), UNEQUAL_FITS, ids=str)
def test_unequal_penalties_reach_scikit_learns_objective(
    turned: bool, alphas: tuple[float, float], l1_ratio: float, solver: str, beta: int
) -> None:
    v, options = mixed(turned), {"l1_ratio": l1_ratio, "beta_loss": beta, **penalties(alphas)}
    result = nmf(v, 3, solver=solver, random_state=2 * (alphas == UNEQUAL[1]), **options)
    pair = dask.compute(result.W, result.H)
    theirs, kept = least(turned, alphas, l1_ratio, beta)
    assert cost(v, pair, alphas, l1_ratio, beta) <= 1.02 * theirs
    assert alive(*pair) >= kept
    if (solver, beta) == ("hals", 2):
        assert result.n_iter <= 10


WAYS = [
    *(("nan", *how) for how in (("hals", 2), ("mu", 2), ("hals", 1))),
    *((kind, "hals", 2) for kind in ("csr", "weighted", "random", "nndsvda")),
]


@pytest.mark.parametrize(
    ("kind", "solver", "beta", "l1_ratio", "turned"),
    [  # each way with L1 and with L2, of which one is tall and one is wide
        (*way, float(l1), (number + l1) % 2 == 1) for number, way in enumerate(WAYS) for l1 in (0, 1)
    ],
)
def test_only_the_product_of_the_penalties_matters(
    kind: str, solver: str, beta: int, l1_ratio: float, turned: bool
) -> None:
    """Where both are L1, or both L2, the scale of W and H undoes the rest."""
    v = mixed(turned)
    there = np.random.default_rng(0).random(v.shape) > 0.2
    holed = np.where(there, v, np.nan)
    weights = np.ones(v.shape) * (1 + np.arange(v.shape[1]) % 3)
    sources: dict[str, tuple[Any, dict[str, Any], Any]] = {
        "nan": (holed, {"missing": "nan"}, there),
        "csr": (entries(holed), {"missing": "unstored"}, there),
        "weighted": (v, {"weights": weights}, weights),
        "random": (v, {"init": "random"}, 1.0),
        "nndsvda": (v, {"init": "nndsvda"}, 1.0),
    }
    source, more, counts = sources[kind]
    options: dict[str, Any] = {"solver": solver, "beta_loss": beta, "l1_ratio": l1_ratio, "tol": 1e-5, **more}
    reached = []
    for alphas in ((1e-3, 1e-3), (1e-6, 1.0)):
        result = nmf(source, 3, **penalties(alphas), **options)
        reached.append(cost(v, dask.compute(result.W, result.H), alphas, l1_ratio, beta, counts))
    assert reached[1] == pytest.approx(reached[0], rel=1e-2)


@pairwise(
    {
        "solver": ["hals", "mu", "sgd"],
        "alphas": [(0.0, 0.1), (0.1, 0.0), (1.0, 1e-30)],
        "l1_ratio": [0.0, 1.0],
    }
)
def test_next_to_no_penalty_on_one_factor_is_next_to_none_at_all(
    l1_ratio: float, alphas: tuple[float, float], solver: str
) -> None:
    v = mixed().astype(np.float32)
    result = nmf(v, 3, solver=solver, l1_ratio=l1_ratio, max_iter=30, **penalties(alphas))
    w, h = dask.compute(result.W, result.H)
    assert w.dtype == h.dtype == np.float32
    assert 0 < w.max() < 1e9
    assert 0 < h.max() < 1e9
    plain = nmf(v, 3, solver=solver, max_iter=30).relative_error
    assert result.relative_error <= plain + 5e-3


@pairwise({"names": ["W", "H", "WH"], "size": [1e-3, 1e3], "alphas": UNEQUAL})
def test_given_factors_may_have_any_size(names: str, size: float, alphas: tuple[float, float]) -> None:
    v, start = mixed(), nmf(mixed(), 3)
    factors = {"W": size * start.W.compute(), "H": size * start.H.compute()}
    factors = {name: factor for name, factor in factors.items() if name in names}
    options = {"l1_ratio": 1.0, **penalties(alphas)}
    result, plain = (nmf(v, 3, **options, **more) for more in ({"init": "custom", **factors}, {}))
    reached = [cost(v, dask.compute(r.W, r.H), alphas, 1.0) for r in (result, plain)]
    assert reached[0] <= 1.03 * reached[1]


@pairwise({"solver": ["hals", "mu"], "beta": [2, 1], "l1_ratio": [0.5, 1.0]})
def test_no_pass_raises_an_unbalanced_objective(l1_ratio: float, beta: int, solver: str) -> None:
    steps: list[Step] = []
    options: dict[str, Any] = {"alpha_W": 1e-4, "alpha_H": 0.3, "l1_ratio": l1_ratio, "beta_loss": beta}
    nmf(mixed(), 3, solver=solver, init="random", max_iter=25, tol=0, callback=steps.append, **options)
    losses = np.array([step.state.loss for step in steps])
    assert (np.diff(losses) <= 1e-9 * losses[0]).all()


@pytest.mark.parametrize("solver", ["hals", "mu", "sgd"])
def test_an_unbalanced_fit_resumes_bit_for_bit(solver: str, tmp_path: Path) -> None:
    def halt(step: Step) -> None:
        if step.number == 2:
            raise Enough

    options: dict[str, Any] = {"solver": solver, "alpha_W": 1e-4, "alpha_H": 0.3, "l1_ratio": 0.5}
    options |= {"max_iter": 5, "tol": 0}
    with pytest.raises(Enough):
        nmf(mixed(), 3, store=tmp_path / "run", callback=halt, **options)
    resumed, whole = nmf(mixed(), 3, store=tmp_path / "run", **options), nmf(mixed(), 3, **options)
    for name in ("W", "H"):
        np.testing.assert_array_equal(getattr(resumed, name), getattr(whole, name))


@pytest.mark.parametrize(("init", "turned"), [("sample", True), ("random", False)])
def test_blocks_are_balanced_too_and_resume_bit_for_bit(
    init: str, turned: bool, client: Client, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def halt(step: Step) -> None:
        if step.number == 2:
            raise Enough

    v, alphas = mixed(turned), UNEQUAL[turned]
    options: dict[str, Any] = {"init": init, "l1_ratio": 1.0, "max_iter": 15, **penalties(alphas)}
    panels = nmf(v, 3, **options)
    monkeypatch.setattr(row_panels, "plan_panels", no_panels)
    blocks = nmf(da.from_array(v, chunks=(30, 12)), 3, **options)
    with pytest.raises(Enough):
        nmf(da.from_array(v, chunks=(30, 12)), 3, store=tmp_path / "run", callback=halt, **options)
    resumed = nmf(da.from_array(v, chunks=(30, 12)), 3, store=tmp_path / "run", **options)
    np.testing.assert_array_equal(*(np.asarray(r.H) for r in (blocks, resumed)))
    reached = [cost(v, dask.compute(r.W, r.H), alphas, 1.0) for r in (panels, blocks)]
    assert reached[1] <= 1.02 * reached[0]


@pytest.mark.parametrize("solver", ["hals", "sgd"])
@turns
def test_a_component_that_is_zero_in_one_factor_costs_nothing_in_the_other(turned: bool, solver: str) -> None:
    v = mixed(turned)
    result = nmf(v, 3, solver=solver, l1_ratio=1.0, **penalties((1.0, 1.0)))
    pair = dask.compute(result.W, result.H)
    assert cost(v, pair, (1.0, 1.0), 1.0) == pytest.approx(0.5 * (v**2).sum())


sizes = st.floats(-12, 12).map(lambda power: 10.0**power) | st.just(0.0)


@given(parts=st.tuples(sizes, sizes, sizes, sizes))
def test_the_best_scale_is_where_the_penalties_are_least(parts: tuple[float, ...]) -> None:
    a1, a2, b1, b2 = parts

    def penalty(log: float) -> float:
        c = float(np.exp(log))
        return a1 * c + a2 * c * c + b1 / c + b2 / (c * c)

    (found,) = best_scales(np.array(parts)[:, None])
    if not (a1 or a2) or not (b1 or b2):
        assert found == 1
        return
    best = scipy.optimize.minimize_scalar(penalty, bounds=(-40, 40), method="bounded")
    assert penalty(float(np.log(found))) <= best.fun * (1 + 1e-6)
    if a2 == b2 == 0:
        assert found == pytest.approx(np.sqrt(b1 / a1), rel=1e-3)
    if a1 == b1 == 0:
        assert found == pytest.approx((b2 / a2) ** 0.25, rel=1e-3)
