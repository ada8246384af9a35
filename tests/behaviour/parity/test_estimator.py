"""The estimator among scikit-learn's: its checks, searches, pipelines, pandas, pickles and errors."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask.array as da
import joblib
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MaxAbsScaler
from sklearn.utils.estimator_checks import parametrize_with_checks
from support.grids import pairwise
from support.matrices import Array, low_rank
from support.parity import RANK, SHAPES, fits, given, noisy, of_drawn_starts

from dask_nmf import NMF
from dask_nmf.errors import InvalidEntryError

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


@parametrize_with_checks(
    [NMF(n_components=2, beta_loss="kullback-leibler", alpha_W=0.01, l1_ratio=0.5, tol=1e-2)],
    expected_failed_checks=of_drawn_starts,
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


@pairwise(
    {
        "make": [np.asarray, scipy.sparse.csr_array, da.asarray],
        "beta_loss": ["itakura-saito", -0.5],
        "shape": SHAPES,
    }
)
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


@pytest.mark.parametrize("dtype", [np.int32, np.uint8])
@pytest.mark.parametrize("beta_loss", ["frobenius", "kullback-leibler"])
def test_integers_are_counted_in_float64(beta_loss: str, dtype: Any) -> None:
    v = np.random.default_rng(0).poisson(3, (30, 12))
    model = NMF(RANK, beta_loss=beta_loss, random_state=0, max_iter=5)
    w = clone(model).fit_transform(v.astype(dtype))
    assert w.dtype == np.float64
    np.testing.assert_allclose(w, model.fit_transform(v.astype(float)))


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
    with pytest.warns(ConvergenceWarning, match="max_iter = 1 pass,.*raise max_iter or tol"):
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
