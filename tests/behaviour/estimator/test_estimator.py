"""scikit-learn's face: its own checks, and what it promises beyond them."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import fields
from inspect import signature
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from sklearn.base import clone
from sklearn.decomposition import NMF as SklearnNMF  # noqa: N811
from sklearn.exceptions import ConvergenceWarning
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler
from sklearn.utils.estimator_checks import parametrize_with_checks
from support.matrices import LIBRARIES, SOURCES
from support.parity import of_drawn_starts

from dask_nmf import NMF, nmf, transform
from dask_nmf.options.settings import Settings


@parametrize_with_checks(
    [
        NMF(n_components=2, tol=1e-2),
        NMF(n_components=2, solver="mu", missing="nan", alpha_W=0.01, tol=1e-2),
        NMF(n_components=2, solver="sgd", tol=1e-2),
    ],
    expected_failed_checks=of_drawn_starts,
)
def test_scikit_learns_checks(
    estimator: NMF, check: Callable[[NMF], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCIPY_ARRAY_API", "1")  # or one of the checks is skipped
    check(estimator)


@pytest.mark.parametrize("wide", [False, True])
def test_fit_transform_is_fit_then_transform(v: np.ndarray, wide: bool) -> None:
    x = v.T if wide else v
    model = NMF(n_components=4, random_state=0, max_iter=50, tol=1e-3)
    w = model.fit_transform(x)
    np.testing.assert_allclose(clone(model).fit(x).transform(x), w, rtol=1e-6, atol=1e-7)
    assert model.reconstruction_err_ == pytest.approx(np.linalg.norm(x - w @ model.components_), rel=1e-9)
    np.testing.assert_allclose(model.inverse_transform(w), w @ model.components_)
    assert model.n_iter_ == len(model.error_history_)


def test_the_error_is_scikit_learns_and_no_worse(v: np.ndarray) -> None:
    theirs = SklearnNMF(4, random_state=0, max_iter=5000, tol=1e-5).fit(v).reconstruction_err_
    assert NMF(4, random_state=0, max_iter=500, tol=1e-6).fit(v).reconstruction_err_ <= 1.002 * theirs


def test_dask_in_gives_dask_out_chunked_as_the_rows(v: np.ndarray) -> None:
    x = da.from_array(v, chunks=((50, 30, 40), 7))
    model = NMF(n_components=4, random_state=0, tol=1e-3)
    w = model.fit_transform(x)
    assert isinstance(w, da.Array)
    assert w.chunks[0] == x.chunks[0]
    np.testing.assert_allclose(w.compute(), NMF(4, random_state=0, tol=1e-3).fit_transform(v), rtol=1e-5)
    assert isinstance(model.transform(x), da.Array)
    assert model.n_features_in_ == 30


@pytest.mark.parametrize("kind", [scipy.sparse.csr_matrix, scipy.sparse.csr_array, scipy.sparse.csc_array])
def test_sparse_is_dense(v: np.ndarray, kind: Callable[[Any], Any]) -> None:
    x = np.where(v > np.median(v), v, 0)
    dense = NMF(3, random_state=0, tol=1e-3).fit_transform(x)
    np.testing.assert_allclose(
        NMF(3, random_state=0, tol=1e-3).fit_transform(kind(x)), dense, rtol=1e-5, atol=1e-8
    )


def test_float32_stays(v: np.ndarray) -> None:
    model = NMF(3, random_state=0, tol=1e-3)
    assert model.fit_transform(v.astype(np.float32)).dtype == np.float32
    assert model.components_.dtype == np.float32


def test_given_factors(v: np.ndarray) -> None:
    rng = np.random.default_rng(1)
    w, h = rng.random((120, 3)), rng.random((3, 30))
    model = NMF(init="custom", solver="mu", delta=0.0, max_iter=3, tol=0)
    ours = model.fit_transform(v, W=w, H=h)
    for _ in range(3):
        w = w * (v @ h.T) / (w @ (h @ h.T))
        h = h * (w.T @ v) / (w.T @ w @ h)
    np.testing.assert_allclose(ours, w, rtol=1e-10)
    np.testing.assert_allclose(model.components_, h, rtol=1e-10)


@pytest.mark.parametrize("name", ["W", "H"])
@pytest.mark.parametrize(
    "kind", ["list", "csr_array", "npy", "zarr v3", "zarr array", "pandas", "dask frame"]
)
def test_the_rank_is_that_of_a_factor_in_any_form(
    name: str, kind: str, v: np.ndarray, tmp_path: Path
) -> None:
    factor = np.random.default_rng(1).random((120, 9) if name == "W" else (9, 30))
    make = {**SOURCES, **LIBRARIES, "list": lambda held, path: held.tolist()}[kind]
    model, other = (NMF(max_iter=2, tol=0) for _ in range(2))
    w = model.fit_transform(v, **{name: make(factor, tmp_path / "factor")})
    assert model.n_components_ == 9
    np.testing.assert_array_equal(w, other.fit_transform(v, **{name: factor}))


def test_every_setting_is_a_parameter() -> None:
    names = [field.name for field in fields(Settings)]
    assert [name for name in signature(NMF).parameters if name in names] == names
    defaults = {field.name: field.default for field in fields(Settings)}
    own = {"n_components": "auto", "random_state": None}
    assert {name: getattr(NMF(), name) for name in names} == {**defaults, **own}


@pytest.mark.parametrize(
    "kind", [np.asarray, lambda x: da.from_array(x, chunks=(50, 7))], ids=["numpy", "dask"]
)
def test_missing_entries(hidden: np.ndarray, kind: Callable[[Any], Any]) -> None:
    x = kind(hidden)
    with pytest.raises(ValueError, match="NaN"):
        NMF(3).fit(x)
    asked: dict[str, Any] = {"missing": "nan", "alpha_W": 0.01, "validation_fraction": 0.1, "tol": 1e-3}
    model = NMF(3, random_state=5, **asked)
    w = model.fit_transform(x)
    same = nmf(x, 3, random_state=5, **asked)
    np.testing.assert_array_equal(w, same.W)
    assert model.validation_error_ == same.validation_error
    rows = kind(hidden[:40])
    ours, theirs = (
        model.transform(rows),
        transform(rows, model.components_, missing="nan", alpha_W=0.01),
    )
    np.testing.assert_array_equal(ours, theirs)
    assert model.__sklearn_tags__().input_tags.allow_nan


BAD = {np.nan: 'missing="nan"', np.inf: "replace or drop", -np.inf: "replace or drop", -1.5: "shift or clip"}
HOLDERS: dict[str, Callable[[Any], Any]] = {
    "numpy": np.asarray,
    "list": np.ndarray.tolist,
    "sparse": scipy.sparse.csr_array,
    "frame": pd.DataFrame,
    "frame with NA": lambda x: pd.DataFrame(x).convert_dtypes(),
    "dask": lambda x: da.from_array(x, chunks=(50, 7)),
}


@pytest.mark.parametrize("value", BAD)
@pytest.mark.parametrize("kind", HOLDERS)
def test_a_bad_entry_is_named_with_its_cure(v: np.ndarray, kind: str, value: float) -> None:
    bad = v.copy()
    bad[77, 11] = value
    x, fitted = HOLDERS[kind](bad), NMF(3, tol=0.1).fit(v)
    for call in (NMF(3).fit, fitted.transform, NMF(3).partial_fit):
        with pytest.raises(ValueError, match=f"{value} at row 77, column 11; .*{BAD[value]}"):
            call(x)


def test_an_entry_that_is_no_number_is_refused(v: np.ndarray) -> None:
    x = pd.DataFrame(v).astype(object)
    x.iloc[3, 2] = pd.NA
    with pytest.raises(TypeError, match=r"no number .* give NaN for what is missing"):
        NMF(3).fit(x.to_numpy())
    with pytest.raises(ValueError, match=r"nan at row 3, column 2; .*missing=\"nan\""):
        NMF(3).fit(x)
    x.iloc[3, 2] = "many"
    with pytest.raises(ValueError, match=r"columns that hold no numbers: 2 \(object\)"):
        NMF(3).fit(x)


def test_what_a_sparse_x_does_not_store(hidden: np.ndarray) -> None:
    seen = ~np.isnan(hidden)
    stored = scipy.sparse.coo_array((hidden[seen], np.nonzero(seen)), shape=hidden.shape)
    ours = NMF(3, random_state=0, missing="unstored", tol=1e-3).fit_transform(stored)
    theirs = NMF(3, random_state=0, missing="nan", tol=1e-3).fit_transform(hidden)
    np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("kind", [np.asarray, scipy.sparse.csr_array, np.ndarray.tolist])
def test_weights_of_entries(v: np.ndarray, hidden: np.ndarray, kind: Callable[[Any], Any]) -> None:
    weights = (~np.isnan(hidden)).astype(float)
    ours = NMF(3, random_state=0, tol=1e-3).fit(v, weights=kind(weights))
    theirs = NMF(3, random_state=0, missing="nan", tol=1e-3).fit(hidden)
    np.testing.assert_allclose(ours.components_, theirs.components_, rtol=1e-6, atol=1e-9)


def test_penalties_are_scikit_learns(v: np.ndarray) -> None:
    penalty: dict[str, Any] = {"alpha_W": 0.02, "alpha_H": 0.05}
    theirs = SklearnNMF(4, random_state=0, max_iter=2000, tol=1e-6, **penalty).fit(v)
    ours = NMF(4, random_state=0, max_iter=500, tol=1e-7, **penalty).fit(v)
    assert ours.reconstruction_err_ == pytest.approx(theirs.reconstruction_err_, rel=2e-3)


def test_steps_are_seen(v: np.ndarray, capsys: pytest.CaptureFixture[str]) -> None:
    steps: list[Any] = []
    model = NMF(3, random_state=0, max_iter=4, tol=0, verbose=1, callback=steps.append).fit(v)
    assert [step.number for step in steps] == [1, 2, 3, 4]
    assert [step.relative_error for step in steps] == list(model.error_history_)
    assert len(capsys.readouterr().out.splitlines()) == 4


def test_stopping_short_warns(v: np.ndarray) -> None:
    with pytest.warns(ConvergenceWarning, match="max_iter = 2"):
        NMF(3, random_state=0, max_iter=2, tol=1e-9).fit(v)


def test_it_is_one_of_scikit_learns(v: np.ndarray) -> None:
    pipeline = make_pipeline(MinMaxScaler(), NMF(3, random_state=0, tol=1e-2)).set_output(transform="default")
    w = pipeline.fit_transform(v)
    again = pickle.loads(pickle.dumps(pipeline))
    np.testing.assert_allclose(again.transform(v), w, rtol=1e-6, atol=1e-8)
    assert list(pipeline[-1].get_feature_names_out()) == ["nmf0", "nmf1", "nmf2"]


def test_the_same_seed_is_the_same_as_nmf(v: np.ndarray) -> None:
    ours = NMF(3, random_state=5, tol=1e-3).fit_transform(v)
    np.testing.assert_array_equal(ours, nmf(v, 3, random_state=5, tol=1e-3).W.compute())


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"beta_loss": "kullback"}, "beta_loss"),
        ({"solver": "cd"}, "hals, mu, sgd"),
        ({"missing": "zeros"}, "nan, unstored"),
        ({"alpha_W": -1}, "alpha_W is -1"),
        ({"validation_fraction": 1.0}, "validation_fraction"),
        ({"batch_size": 2}, "batch_size belong to solver 'sgd'"),
        ({"init": "svd"}, "sample, random, nndsvd"),
        ({"n_components": 0}, "n_components is 0"),
        ({"n_components": 31, "init": "nndsvd"}, "at most 30"),
        ({"n_components": "mle"}, "n_components"),
        ({"init": "custom"}, "neither W nor H"),
        ({"delta": 1.0}, "delta"),
        ({"tol": -1}, "tol"),
        ({"max_iter": 0}, "max_iter"),
    ],
)
def test_a_bad_option_is_named(v: np.ndarray, options: dict[str, Any], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        NMF(**{"n_components": 3, **options}).fit(v)
