"""Several starts of a fit: they share reads of V, the best is kept, and it is that of a fit by itself."""

import logging
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import zarr
from sklearn.base import clone
from support.cuts import cut_both_ways
from support.matrices import low_rank
from support.reads import READS, counted_matrix
from support.runs import assert_same_bits
from support.starts import OPTIONS, STARTS, V, fit

from dask_nmf import NMF, Result, nmf
from dask_nmf.execution import partition
from dask_nmf.execution.partition import Resources
from dask_nmf.planning import row_panels, worker_memory
from dask_nmf.planning.worker_memory import MIB
from dask_nmf.sources.registry import open_matrix

KL = "kullback-leibler"
HOLES = np.where(np.random.default_rng(1).random(V.shape) < 0.1, np.nan, V)
FITS: dict[str, tuple[Any, dict[str, Any]]] = {
    "tall": (V, {}),
    "sampled": (low_rank(3000, 50, 5, noise=0.5), {"max_iter": 2}),
    "wide": (np.ascontiguousarray(V.T), {"init": "random"}),
    "float32": (V.astype(np.float32), {"init": "random"}),
    "csr": (scipy.sparse.csr_array(np.where(np.median(V) < V, V, 0)), {}),
    "kl": (V, {"beta_loss": KL}),
    "kl csr": (scipy.sparse.csr_array(np.where(np.median(V) < V, V, 0)), {"beta_loss": KL, "init": "random"}),
    "mu": (V, {"solver": "mu", "init": "random"}),
    "mu kl": (np.ascontiguousarray(V.T), {"solver": "mu", "beta_loss": KL}),
    "missing": (HOLES, {"missing": "nan", "init": "random"}),
    "weights": (V, {"weights": np.arange(1, 21.0) * np.ones((60, 1)), "init": "random"}),
    "lasso": (V, {"alpha_W": 0.01, "l1_ratio": 0.7, "init": "random"}),
    "nndsvdar": (V, {"init": "nndsvdar"}),
}
fits = pytest.mark.parametrize(("v", "more"), FITS.values(), ids=FITS)


def alone(v: Any, **more: Any) -> list[Result]:
    """Return the fits by themselves that several starts are made of."""
    seeds = [OPTIONS["random_state"] + (number << 32) for number in range(STARTS)]
    return [nmf(v, **{**OPTIONS, **more, "random_state": seed}) for seed in seeds]


def kept_alone(found: Result, v: Any, **more: Any) -> Result:
    """Return the fit by itself that the best of several starts is."""
    assert found.objectives is not None
    seed = OPTIONS["random_state"] + (int(np.argmin(found.objectives)) << 32)
    return nmf(v, **{**OPTIONS, **more, "random_state": seed})


@fits
def test_the_best_of_several_starts_is_the_best_of_the_fits_alone(v: Any, more: dict[str, Any]) -> None:
    found, singles = fit(v, **more), alone(v, **more)
    assert found.n_init == STARTS
    assert found.objectives is not None
    assert_same_bits(found, singles[int(np.argmin(found.objectives))])
    if "alpha_W" not in more:
        assert found.relative_error <= min(single.relative_error for single in singles) * (1 + 1e-3)
        last = [single.error_history[-1] for single in singles]
        ratio = found.reconstruction_err / found.relative_error
        np.testing.assert_allclose(found.objectives, np.multiply(last, ratio), rtol=1e-5)


def test_of_exact_fits_the_first_start_is_kept_whatever_holds_v() -> None:
    """Which one has the least objective is rounding, which differs between forms of V."""
    v = np.random.default_rng(0).random((10, 10))
    v[:, 1::2] = 0
    for form in (np.asarray, scipy.sparse.csr_array):
        single = nmf(form(v), 5)
        found = nmf(form(v), 5, n_init=4)
        assert found.objectives is not None
        assert found.objectives[0] < 1e-6
        np.testing.assert_array_equal(found.H, single.H)


def test_one_start_is_the_default_and_has_no_objectives() -> None:
    found = nmf(V, **OPTIONS)
    assert (found.n_init, found.objectives) == (1, None)
    assert_same_bits(found, fit(V, n_init=1))


def test_starts_of_a_v_that_is_cut_both_ways(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    v, options = str(tmp_path / "v.zarr"), {"max_iter": 2, "tol": 0}
    zarr.create_array(v, data=V, chunks=(30, 10))
    cut_both_ways(monkeypatch, (0, 30, 60), (0, 10, 20), 1)
    found = fit(v, **options, n_init=2, store=tmp_path / "run.zarr")
    assert_same_bits(found, kept_alone(found, v, **options))


@pytest.mark.parametrize(("init", "more"), [("random", 0), ("sample", 1)])
def test_a_read_of_v_serves_all_starts(init: str, more: int) -> None:
    nmf(counted_matrix(), 3, init=init, max_iter=4, tol=0, cache="off")
    once = dict(READS)
    nmf(counted_matrix(), 3, init=init, max_iter=4, tol=0, n_init=STARTS, cache="off")
    assert dict(READS) == {panel: times + more for panel, times in once.items()}


def least_limit(v: Any, rank: int) -> int:
    """Return the least memory limit of a worker, about, for which there is a plan of one model."""
    layout = open_matrix(v).layout
    for limit in count(int(worker_memory.PROGRAM / worker_memory.USABLE), MIB // 4):
        with suppress(MemoryError):
            row_panels.plan_panels(layout, rank, limit, 1)
            return limit
    raise AssertionError


def test_starts_that_do_not_fit_a_worker_together_take_more_reads(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    v, options = low_rank(300, 200, 3), {"n_components": 40, "init": "random", "max_iter": 1}
    monkeypatch.setattr(partition, "resources", lambda: Resources(least_limit(v, 40), 1, 1))
    with caplog.at_level(logging.INFO, "dask_nmf"):
        found = fit(v, **options)
    assert "a pass of 3 models reads V 3 times" in caplog.text
    assert_same_bits(found, kept_alone(found, v, **options))


H = np.ones((3, 20))
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no number": ({"n_init": 0}, "n_init is 0; it must be an integer ≥ 1"),
    "many": ({"n_init": 10**9}, "n_init is 1000000000; give at most 100000 starts"),
    "nndsvd": ({"init": "nndsvd"}, "n_init is 3 and init is 'nndsvd', so that every start would be the same"),
    "H": ({"H": H}, "H to begin with and n_init = 3 are given, so that every start would be the same"),
    "fixed": ({"fixed_H": H}, "a factor is fixed and n_init is 3, so that every start would be the same"),
    "sgd": ({"solver": "sgd"}, "they cannot share a read; leave n_init out, or give another solver"),
}


@pytest.mark.parametrize(("more", "text"), REFUSED.values(), ids=REFUSED)
def test_starts_that_cannot_be_several_are_refused(more: dict[str, Any], text: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=text) as refusal:
        fit(V, **more, store=tmp_path / "run.zarr")
    assert "\n" not in str(refusal.value)
    assert not (tmp_path / "run.zarr").exists()


def test_the_estimator_takes_several_starts() -> None:
    model = clone(NMF(3, n_init=STARTS, init="random", random_state=5))
    assert model.get_params()["n_init"] == STARTS
    found = fit(V, init="random", max_iter=200)
    W = model.fit_transform(V)
    np.testing.assert_array_equal(W, found.W.compute())
    np.testing.assert_array_equal(model.objectives_, found.objectives)
    assert NMF(3).fit(V).objectives_ is None
