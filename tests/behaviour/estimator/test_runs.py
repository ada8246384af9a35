"""The estimator and runs: fitted in one, resumed, loaded, and fitted further."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from support.runs import Crash, crash_after

from dask_nmf import NMF, nmf

FITS: dict[str, dict[str, Any]] = {
    "hals": {},
    "kl": {"beta_loss": "kullback-leibler"},
    "mu": {"solver": "mu", "inner_iter": 2, "alpha_W": 0.01, "beta_loss": 1.5},
    "sgd": {"solver": "sgd", "init": "random", "normalize": "l1"},
    "missing": {"missing": "nan", "alpha_W": 0.02, "alpha_H": 0.01, "l1_ratio": 0.5},
}


@pytest.mark.parametrize("fit", FITS)
def test_an_estimator_comes_back_from_its_run(
    fit: str, v: np.ndarray, hidden: np.ndarray, tmp_path: Path
) -> None:
    x = hidden if fit == "missing" else v
    model = NMF(3, store=tmp_path / "run.zarr", max_iter=4, tol=0.0, random_state=7, **FITS[fit]).fit(x)
    back = NMF.load(tmp_path / "run.zarr")
    assert back.get_params() == model.get_params()
    for name in (name for name in vars(model) if name.endswith("_")):
        np.testing.assert_array_equal(getattr(back, name), getattr(model, name), err_msg=name)
    rows = x[:40]
    np.testing.assert_array_equal(back.transform(rows), model.transform(rows))
    np.testing.assert_array_equal(back.inverse_transform(v[:, :3]), model.inverse_transform(v[:, :3]))
    if model.solver == "hals":
        assert back.partial_fit(rows).n_steps_ == 1
        np.testing.assert_array_equal(back.components_, model.partial_fit(rows).components_)
    again = pickle.loads(pickle.dumps(clone(back)))
    np.testing.assert_array_equal(again.fit(x).components_, NMF.load(tmp_path / "run.zarr").components_)
    with pytest.raises(ValueError, match="20 features, but NMF is expecting 30"):
        NMF.load(tmp_path / "run.zarr").transform(v[:, :20])


@pytest.mark.parametrize(
    ("stored", "penalty"), [(False, {}), (True, {"alpha_W": 0.01, "alpha_H": 0.02, "l1_ratio": 0.5})]
)
def test_a_batch_after_a_fit_counts_as_its_rows(
    v: np.ndarray, tmp_path: Path, stored: bool, penalty: dict[str, float]
) -> None:
    store = tmp_path / "run.zarr" if stored else None
    model = NMF(3, random_state=0, tol=1e-7, store=store, **penalty).fit(v)
    fitted, batch = model.components_, v[::-1][:12]
    model = NMF.load(tmp_path / "run.zarr") if stored else model
    whole = np.linalg.norm(v - model.transform(v) @ fitted)
    model.partial_fit(batch)
    after = np.linalg.norm(v - model.transform(v) @ model.components_)
    assert after < 1.01 * whole  # rows of V again: little is to learn, and nothing to forget
    alone = NMF(3, random_state=0, **penalty).partial_fit(batch, H=fitted)
    assert np.linalg.norm(v - alone.transform(v) @ alone.components_) > 1.03 * whole


def test_a_fit_of_an_estimator_is_resumed(v: np.ndarray, tmp_path: Path) -> None:
    asked: dict[str, Any] = {"init": "random", "max_iter": 5, "tol": 0.0}
    with pytest.raises(Crash):
        NMF(3, store=tmp_path / "run.zarr", callback=crash_after(3), **asked).fit(v)
    with pytest.raises(ValueError, match="has no W and H yet; finish it"):
        NMF.load(tmp_path / "run.zarr")
    steps: list[Any] = []
    model = NMF(3, store=tmp_path / "run.zarr", callback=steps.append, **asked)
    w = model.fit_transform(v)
    assert [step.number for step in steps] == [4, 5]
    whole = NMF(3, random_state=0, **asked)
    np.testing.assert_array_equal(w, whole.fit_transform(v))
    np.testing.assert_array_equal(model.components_, whole.components_)
    with pytest.raises(ValueError, match="holds another fit"):
        model.fit(v + 1)
    model.set_params(overwrite=True).fit(v + 1)
    assert NMF.load(tmp_path / "run.zarr").reconstruction_err_ == model.reconstruction_err_


def test_a_run_of_nmf_is_loaded_and_one_that_time_stopped(v: np.ndarray, tmp_path: Path) -> None:
    result = nmf(v, 3, store=tmp_path / "run.zarr", max_iter=2)
    np.testing.assert_array_equal(NMF.load(str(tmp_path / "run.zarr")).components_, result.H)
    with pytest.warns(ConvergenceWarning, match="time limit"):
        NMF(3, store=tmp_path / "short.zarr", init="random", time_limit=0.0, tol=0).fit(v)
    assert NMF.load(tmp_path / "short.zarr").n_iter_ == 1
    with pytest.raises(FileNotFoundError, match="there is no run"):
        NMF.load(tmp_path / "none.zarr")
