"""What scikit-learn promises of its NMF, promised of ours: every solver and loss, beside scikit-learn."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import joblib
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from sklearn.base import clone
from sklearn.decomposition import NMF as SklearnNMF  # noqa: N811
from sklearn.decomposition._nmf import _beta_divergence, non_negative_factorization
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MaxAbsScaler
from sklearn.utils.estimator_checks import parametrize_with_checks
from support.matrices import Array, low_rank

from dask_nmf import NMF, nmf
from dask_nmf.errors import InvalidEntryError
from dask_nmf.execution.executor import Step
from dask_nmf.settings import LOSSES

SHAPES = {"tall": (48, 20), "wide": (20, 48)}
RANK = 3
BETAS = (-0.5, "itakura-saito", 0.5, "kullback-leibler", 1.5, "frobenius", 3.0)
FITS: list[tuple[str, Any]] = [
    ("hals", "frobenius"),
    ("hals", "kullback-leibler"),
    ("sgd", "frobenius"),
    *(("mu", beta) for beta in BETAS),
]
# With one factor or the other, of every solver and every exponent of its updates; with both: see the test of
# multiplicative updates. With W alone many passes find H for a β-divergence.
BEGUN = [("H", *fit) for fit in FITS] + [
    ("W", *fit) for fit in FITS if fit[1] not in ("itakura-saito", 0.5, 1.5)
]
WITH_ZEROS = [(solver, beta) for solver, beta in FITS if beta not in (-0.5, "itakura-saito")]
PENALTIES: dict[str, dict[str, float]] = {
    "none": {},
    "both": {"alpha_W": 0.1, "l1_ratio": 0.5},
    "W": {"alpha_W": 0.1, "alpha_H": 0.0, "l1_ratio": 0.5},
    "H": {"alpha_W": 0.0, "alpha_H": 0.1, "l1_ratio": 0.5},
}

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
fits = pytest.mark.parametrize(("solver", "beta_loss"), FITS)
fits_with_zeros = pytest.mark.parametrize(("solver", "beta_loss"), WITH_ZEROS)
shapes = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
betas = pytest.mark.parametrize("beta_loss", BETAS)


def noisy(shape: tuple[int, int], dtype: Any = np.float64) -> Array:
    """V > 0."""
    return low_rank(*shape, RANK, noise=1, dtype=dtype) + dtype(0.01)


def with_zeros(shape: tuple[int, int]) -> Array:
    """V of which a third are zeros, two whole columns too."""
    v = noisy(shape)
    v[v < np.quantile(v, 1 / 3)] = 0
    v[:, [2, 7]] = 0
    return v


def given(shape: tuple[int, int], rank: int = RANK) -> dict[str, Array]:
    """A start that is no one's."""
    random = np.random.default_rng(1)
    return {"W": random.random((shape[0], rank)) + 0.1, "H": random.random((rank, shape[1])) + 0.1}


def beta_of(beta_loss: str | float) -> float:
    return LOSSES[beta_loss] if isinstance(beta_loss, str) else beta_loss


def objective(
    v: Array, w: Array, h: Array, beta: float, alpha_W: float = 0, alpha_H: Any = "same", l1_ratio: float = 0
) -> float:
    """As scikit-learn documents it."""
    m, n = v.shape
    total = float(_beta_divergence(v, w, h, beta))
    for alpha, size, factor in ((alpha_W, n, w), (alpha_W if alpha_H == "same" else alpha_H, m, h)):
        total += alpha * size * (l1_ratio * factor.sum() + (1 - l1_ratio) * 0.5 * (factor**2).sum())
    return total


@parametrize_with_checks(
    [NMF(n_components=2, beta_loss="kullback-leibler", alpha_W=0.01, l1_ratio=0.5, tol=1e-2)]
)
def test_another_loss_passes_scikit_learns_checks(
    estimator: NMF, check: Callable[[NMF], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCIPY_ARRAY_API", "1")  # or one of the checks is skipped
    check(estimator)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (
            {"beta_loss": "itakura-saito"},
            "solver 'hals' is for frobenius and kullback-leibler; take solver 'mu'",
        ),
        ({"beta_loss": 0.5}, "beta_loss is 0.5 .* take solver 'mu'"),
        ({"solver": "sgd", "beta_loss": "kullback-leibler"}, "solver 'sgd' is for frobenius"),
        ({"beta_loss": np.nan}, "beta_loss is nan"),
        ({"beta_loss": None}, "beta_loss is None"),
        ({"l1_ratio": 1.5}, "l1_ratio is 1.5"),
        ({"l1_ratio": -0.1}, "l1_ratio is -0.1"),
        ({"alpha_W": "same"}, "alpha_W is 'same'"),
        ({"alpha_W": np.inf}, "alpha_W is inf"),
        ({"alpha_H": "other"}, "alpha_H is 'other'"),
        ({"alpha_H": -0.5}, "alpha_H is -0.5"),
        ({"tol": np.nan}, "tol is nan"),
        ({"max_iter": 2.5}, "max_iter is 2.5"),
        ({"n_components": 2.5}, "n_components is 2.5"),
        ({"solver": "mu", "beta_loss": 1.5, "delta": 0.1}, "delta belongs to beta_loss 'frobenius'"),
        ({"random_state": "chance"}, "chance"),
    ],
    ids=str,
)
def test_what_cannot_be_done_is_refused(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        NMF(**{"n_components": RANK, **options}).fit(noisy(SHAPES["tall"]))


@pytest.mark.parametrize(
    "make", [np.asarray, scipy.sparse.csr_array, da.asarray], ids=["numpy", "csr", "dask"]
)
@pytest.mark.parametrize("beta_loss", ["frobenius", "kullback-leibler", 0.5])
def test_a_negative_entry_is_refused_by_fit_and_by_transform(beta_loss: Any, make: Any) -> None:
    v = noisy(SHAPES["tall"])
    model = NMF(RANK, solver="mu", beta_loss=beta_loss, max_iter=2, random_state=0).fit(v)
    v[4, 5] = -1
    for method in (clone(model).fit, model.transform):
        with pytest.raises(ValueError, match=r"[Nn]egative|V has -1.0 at row 4, column 5"):
            method(make(v))


@pytest.mark.parametrize(
    "make", [np.asarray, scipy.sparse.csr_array, da.asarray], ids=["numpy", "csr", "dask"]
)
@pytest.mark.parametrize("beta_loss", ["itakura-saito", -0.5])
@shapes
def test_a_zero_is_refused_where_the_divergence_from_it_is_infinite(
    shape: tuple[int, int], beta_loss: Any, make: Any
) -> None:
    v = noisy(shape)
    model = NMF(RANK, solver="mu", beta_loss=beta_loss, max_iter=2, random_state=0).fit(v)
    v[4, 5] = 0
    for method in (clone(model).fit, model.transform):
        with pytest.raises(InvalidEntryError, match=r"V has 0.0 at row 4, column 5; a beta_loss of β ≤ 0"):
            method(make(v))
    assert np.isfinite(model.fit_transform(np.maximum(v, 1e-9))).all()


@fits
@pytest.mark.parametrize("penalty", [PENALTIES["none"], PENALTIES["both"]], ids=["none", "both"])
def test_factors_are_not_negative(penalty: dict[str, float], solver: str, beta_loss: Any) -> None:
    v = np.c_[5.01 - np.arange(1, 6), 5.01 + np.arange(1, 6)]
    model = NMF(2, solver=solver, beta_loss=beta_loss, random_state=0, max_iter=50, **penalty)
    w = model.fit_transform(v)
    assert np.isfinite(w).all()
    assert np.isfinite(model.components_).all()
    assert min(w.min(), model.components_.min()) >= 0


@fits
@shapes
def test_the_error_is_scikit_learns_of_the_same_factors(
    shape: tuple[int, int], solver: str, beta_loss: Any
) -> None:
    v = noisy(shape)
    model = NMF(RANK, solver=solver, beta_loss=beta_loss, random_state=0, max_iter=10, alpha_W=1e-3)
    w = model.fit_transform(v)
    expected = _beta_divergence(v, w, model.components_, beta_of(beta_loss), square_root=True)
    assert model.reconstruction_err_ == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("solver", ["hals", "mu"])
@pytest.mark.parametrize("beta_loss", ["frobenius", "kullback-leibler"])
def test_a_fit_of_full_rank_gives_v_back(beta_loss: str, solver: str) -> None:
    v = np.random.default_rng(42).random((6, 5)) + 0.1
    model = NMF(5, solver=solver, beta_loss=beta_loss, random_state=0, max_iter=300, tol=1e-7)
    w = model.fit_transform(v)
    assert model.reconstruction_err_ < 0.05
    np.testing.assert_allclose(model.inverse_transform(w), v, atol=0.05)


@fits_with_zeros
@shapes
def test_parts_that_do_not_overlap_are_found(shape: tuple[int, int], solver: str, beta_loss: Any) -> None:
    random = np.random.default_rng(0)
    w, h = random.random((shape[0], RANK)) + 0.5, random.random((RANK, shape[1])) + 0.5
    w *= np.arange(shape[0])[:, None] % RANK == np.arange(RANK)
    h *= np.arange(RANK)[:, None] == np.arange(shape[1]) % RANK
    tol = 1e-4 if solver == "sgd" else 1e-9
    model = NMF(RANK, solver=solver, beta_loss=beta_loss, random_state=0, max_iter=200, tol=tol)
    found = model.fit_transform(w @ h)
    np.testing.assert_allclose(found @ model.components_, w @ h, atol=1e-2)


@pytest.mark.parametrize(("solver", "beta_loss"), [*FITS[:3], ("mu", "itakura-saito"), ("mu", 3.0)])
@shapes
def test_transform_of_what_was_fitted_is_the_w_of_the_fit(
    shape: tuple[int, int], solver: str, beta_loss: Any
) -> None:
    v = noisy(shape)
    model = NMF(RANK, solver=solver, beta_loss=beta_loss, random_state=0, max_iter=100, tol=1e-6)
    w, again = model.fit_transform(v), model.transform(v)
    error = float(_beta_divergence(v, again, model.components_, beta_of(beta_loss), square_root=True))
    assert error == pytest.approx(model.reconstruction_err_, rel=2e-2)
    if solver == "hals":
        np.testing.assert_allclose(again, w, rtol=1e-2, atol=1e-3 * w.max())


@betas
@shapes
def test_transform_is_scikit_learns_or_better(shape: tuple[int, int], beta_loss: Any) -> None:
    v, beta = noisy(shape), beta_of(beta_loss)
    penalty = {"alpha_W": 0.01, "l1_ratio": 0.5}
    model = NMF(solver="mu", beta_loss=beta_loss, init="custom", max_iter=1, random_state=0, **penalty)
    ours = model.fit(v, **given(shape)).transform(v)
    solver = "cd" if beta == 2 else "mu"
    theirs = non_negative_factorization(
        v,
        H=model.components_,
        update_H=False,
        solver=solver,
        beta_loss=beta,
        max_iter=300,
        tol=1e-5,
        **penalty,
    )[0]
    reached = [objective(v, w, model.components_, beta, alpha_H=0, **penalty) for w in (ours, theirs)]
    assert reached[0] <= reached[1] * (1 + 1e-6)


@pytest.mark.parametrize(("names", "solver", "beta_loss"), BEGUN)
def test_a_fit_can_begin_anywhere(names: str, solver: str, beta_loss: Any) -> None:
    v = noisy(SHAPES["tall"], np.float32)
    start = {name: factor for name, factor in given(v.shape).items() if name in names}
    model = NMF(init="custom", solver=solver, beta_loss=beta_loss, random_state=0, max_iter=5)
    w = model.fit_transform(v, **start)
    assert (model.n_components_, w.dtype, model.components_.dtype) == (RANK, np.float32, np.float32)
    assert w.shape == (48, RANK)


@pytest.mark.parametrize("penalty", [PENALTIES[name] for name in ("none", "W", "H")], ids=["none", "W", "H"])
@betas
@shapes
def test_multiplicative_updates_are_scikit_learns(
    shape: tuple[int, int], beta_loss: Any, penalty: dict[str, float]
) -> None:
    v, start = noisy(shape), given(shape)
    options: dict[str, Any] = {"solver": "mu", "init": "custom", "beta_loss": beta_loss, "tol": 0, **penalty}
    theirs = non_negative_factorization(
        v, start["W"].copy(), start["H"].copy(), max_iter=10, **{"alpha_W": 0.0, **options}
    )
    ours = nmf(v, RANK, max_iter=10, **start, **options)
    for mine, other in zip(dask.compute(ours.W, ours.H), theirs[:2], strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("beta", [-0.5, 0.0, 0.5, 1.0, 2.0, 2.5])
def test_a_loss_next_to_another_gives_nearly_the_same(beta: float) -> None:
    v, start = noisy(SHAPES["tall"]), given(SHAPES["tall"])
    options: dict[str, Any] = {"solver": "mu", "init": "custom", "max_iter": 20, "tol": 0, "alpha_W": 0.1}
    one, other = (nmf(v, RANK, beta_loss=b, l1_ratio=0.5, **start, **options) for b in (beta, beta - 1e-5))
    for mine, near in zip(dask.compute(one.W, one.H), dask.compute(other.W, other.H), strict=True):
        np.testing.assert_allclose(mine, near, atol=1e-4)


@pytest.mark.parametrize("penalty", [PENALTIES["none"], PENALTIES["both"]], ids=["none", "both"])
@pytest.mark.parametrize(("solver", "beta_loss"), [fit for fit in FITS if fit[0] != "sgd"])  # met on the way
def test_no_pass_raises_the_objective(solver: str, beta_loss: Any, penalty: dict[str, float]) -> None:
    steps: list[Step] = []
    options: dict[str, Any] = {"solver": solver, "beta_loss": beta_loss, "init": "random", **penalty}
    nmf(noisy(SHAPES["tall"]), RANK, max_iter=30, tol=0, callback=steps.append, **options)
    reached = np.array([step.state.loss for step in steps])
    assert np.all(np.diff(reached) <= 1e-9 * reached[0])
    assert reached[-1] < reached[0]


@pytest.mark.parametrize(
    ("kind", "penalty"),
    [(scipy.sparse.csr_array, PENALTIES["none"]), (scipy.sparse.csc_matrix, PENALTIES["both"])],
    ids=["csr", "csc, penalised"],
)
@fits_with_zeros
@shapes
def test_a_sparse_v_is_the_same_v(
    shape: tuple[int, int], solver: str, beta_loss: Any, kind: Any, penalty: dict[str, float]
) -> None:
    v = with_zeros(shape)
    model = NMF(
        RANK, init="random", solver=solver, beta_loss=beta_loss, random_state=0, max_iter=5, **penalty
    )
    dense, sparse = clone(model), clone(model)
    np.testing.assert_allclose(sparse.fit_transform(kind(v)), dense.fit_transform(v), rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(sparse.components_, dense.components_, rtol=1e-6, atol=1e-9)
    if solver == "hals":  # the others have the same transform
        np.testing.assert_allclose(sparse.transform(kind(v)), dense.transform(v), rtol=1e-5, atol=1e-6)


@fits
@shapes
def test_float32_stays_and_is_near_to_float64(shape: tuple[int, int], solver: str, beta_loss: Any) -> None:
    model = NMF(RANK, solver=solver, beta_loss=beta_loss, random_state=0, max_iter=10)
    narrow, wide = clone(model), clone(model)
    w = narrow.fit_transform(noisy(shape, np.float32))
    assert w.dtype == narrow.components_.dtype == np.float32
    exact = wide.fit_transform(noisy(shape))
    product = exact @ wide.components_
    np.testing.assert_allclose(w @ narrow.components_, product, rtol=2e-2, atol=2e-2 * product.max())
    assert narrow.reconstruction_err_ == pytest.approx(wide.reconstruction_err_, rel=1e-3)


@pytest.mark.parametrize("dtype", [np.int32, np.uint8])
@pytest.mark.parametrize("beta_loss", ["frobenius", "kullback-leibler"])
def test_integers_are_counted_in_float64(beta_loss: str, dtype: Any) -> None:
    v = np.random.default_rng(0).poisson(3, (30, 12))
    model = NMF(RANK, beta_loss=beta_loss, random_state=0, max_iter=5)
    w = clone(model).fit_transform(v.astype(dtype))
    assert w.dtype == np.float64
    np.testing.assert_allclose(w, model.fit_transform(v.astype(float)))


@pytest.mark.parametrize("l1_ratio", [0.5, 1.0])
@pytest.mark.parametrize("alphas", [(0.05, "same"), (0.0, 0.02)], ids=str)
@pytest.mark.parametrize("beta_loss", ["frobenius", "kullback-leibler"])
@shapes
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


@pytest.mark.parametrize("beta_loss", ["frobenius", "kullback-leibler"])
@pytest.mark.parametrize("solver", ["hals", "mu"])
@shapes
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


@pytest.mark.parametrize("beta_loss", ["frobenius", "kullback-leibler", 0.5])
@pytest.mark.parametrize("l1_ratio", [0.0, 1.0])
@pytest.mark.parametrize(("punished", "other"), [("W", "H"), ("H", "W")])
@shapes
def test_a_penalty_on_one_factor_makes_that_one_small(
    shape: tuple[int, int], punished: str, other: str, l1_ratio: float, beta_loss: Any
) -> None:
    alphas = {f"alpha_{punished}": 0.1, f"alpha_{other}": 0.0, "l1_ratio": l1_ratio}
    options: dict[str, Any] = {"solver": "mu", "beta_loss": beta_loss, "init": "custom", **given(shape)}
    plain, some = (nmf(noisy(shape), RANK, max_iter=10, tol=0, **options, **more) for more in ({}, alphas))
    sizes = [{name: float(getattr(r, name).sum()) for name in "WH"} for r in (plain, some)]
    assert sizes[1][punished] < sizes[0][punished]
    assert sizes[1][other] > sizes[0][other]


@pytest.mark.parametrize(("names", "rank"), [("", 5), ("W", 2), ("H", 2), ("WH", 2)])
@pytest.mark.parametrize("n_components", ["auto", None])
def test_the_number_of_components_is_that_of_given_factors(n_components: Any, names: str, rank: int) -> None:
    v = np.random.default_rng(0).random((6, 5)) + 0.1
    start = {name: factor for name, factor in given(v.shape, 2).items() if name in names}
    model = NMF(n_components, init="custom" if start else None, random_state=0, tol=1e-2)
    assert model.fit_transform(v, **start).shape == (6, rank)
    assert model.n_components_ == len(model.components_) == len(model.get_feature_names_out()) == rank


@fits
def test_every_fit_that_stops_short_warns(solver: str, beta_loss: Any) -> None:
    model = NMF(RANK, solver=solver, beta_loss=beta_loss, init="random", random_state=0, max_iter=1, tol=1e-9)
    with pytest.warns(ConvergenceWarning, match="max_iter = 1 passes.*raise max_iter or tol"):
        model.fit(noisy(SHAPES["tall"]))


def test_chance_is_an_integer_or_a_random_state() -> None:
    v = noisy(SHAPES["tall"])
    states: list[Any] = [np.random.RandomState(5), np.random.RandomState(5), np.random.RandomState(6)]
    one, same, another = (
        NMF(RANK, init="random", max_iter=2, random_state=s).fit_transform(v) for s in states
    )
    np.testing.assert_array_equal(one, same)
    assert not np.allclose(one, another)


def explained(model: Any, X: Array, y: None = None) -> float:
    """A score: how small the error is of rows, some of which were not fitted."""
    return -float(np.linalg.norm(X - model.inverse_transform(model.transform(X))))


@pytest.mark.parametrize("beta_loss", ["frobenius", "kullback-leibler"])
def test_a_grid_search_finds_the_rank(beta_loss: str) -> None:
    v = low_rank(60, 20, RANK, noise=0)
    model = NMF(beta_loss=beta_loss, random_state=0, max_iter=400, tol=1e-5)
    search = GridSearchCV(model, {"n_components": [1, 2, RANK]}, scoring=explained, cv=3, error_score="raise")
    assert search.fit(v).best_params_ == {"n_components": RANK}
    scores = search.cv_results_["mean_test_score"]
    assert scores[0] < scores[1] < scores[2]
    assert search.best_estimator_.n_components_ == RANK


def test_a_step_of_a_pipeline_is_searched_by_its_name() -> None:
    grid = {"nmf__beta_loss": ["frobenius", "kullback-leibler"], "nmf__alpha_W": [0.0, 0.5]}
    pipeline = make_pipeline(MaxAbsScaler(), NMF(RANK, random_state=0, tol=1e-3))
    search = GridSearchCV(pipeline, grid, scoring=explained, cv=2, error_score="raise")
    assert search.fit(noisy((60, 20))).best_params_["nmf__alpha_W"] == 0


def test_pandas_in_and_pandas_out() -> None:
    v = noisy(SHAPES["tall"])
    frame = pd.DataFrame(v, [f"row {i}" for i in range(48)], [f"column {j}" for j in range(20)])
    model = NMF(RANK, random_state=0, tol=1e-3).set_output(transform="pandas")
    out = model.fit_transform(frame)
    assert list(out.columns) == ["nmf0", "nmf1", "nmf2"]
    assert list(out.index) == list(frame.index)
    assert list(model.feature_names_in_) == list(frame.columns)
    np.testing.assert_array_equal(out, NMF(RANK, random_state=0, tol=1e-3).fit_transform(v))
    np.testing.assert_allclose(model.transform(frame), out, rtol=1e-6, atol=1e-8)
    with pytest.raises(ValueError, match="feature names"):
        model.transform(frame[frame.columns[::-1]])


def by_pickle(model: NMF, folder: Path) -> Any:
    return pickle.loads(pickle.dumps(model))


def by_joblib(model: NMF, folder: Path) -> Any:
    joblib.dump(model, folder / "model.joblib")
    return joblib.load(folder / "model.joblib")


@pytest.mark.parametrize("keep", [by_pickle, by_joblib])
@fits
def test_a_model_that_was_kept_is_the_same(
    solver: str, beta_loss: Any, keep: Callable[[NMF, Path], Any], tmp_path: Path
) -> None:
    v = noisy(SHAPES["tall"])
    model = NMF(RANK, solver=solver, beta_loss=beta_loss, random_state=0, max_iter=3)
    assert keep(model, tmp_path).get_params() == model.get_params()
    again = keep(model.fit(v), tmp_path)
    assert vars(again).keys() == vars(model).keys()
    np.testing.assert_array_equal(again.components_, model.components_)
    np.testing.assert_array_equal(again.error_history_, model.error_history_)
    np.testing.assert_array_equal(again.transform(v), model.transform(v))
