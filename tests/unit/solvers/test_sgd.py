"""Solver sgd, end to end: the tutorial's rule, every input, divergence, early stopping, resuming."""

import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse
from distributed import LocalCluster
from support.grids import pairwise
from support.matrices import SOURCES, Array, low_rank

from dask_nmf import Outcome, nmf, transform
from dask_nmf.iteration.loop import Step
from dask_nmf.planning import row_panels

EXAMPLE = Path(__file__).resolve().parents[3] / "examples" / "tutorial.py"
TUTORIAL: Array = runpy.run_path(str(EXAMPLE))["V"]
RULE: dict[str, Any] = {"solver": "sgd", "schedule": "constant", "learning_rate": 1e-3, "batch_size": 6}


def tutorial_loop(v: Array, w: Array, h: Array, steps: int) -> tuple[Array, Array]:
    """The tutorial's gradient steps, kept ≥ 0."""
    for _ in range(steps):
        rest = v - w @ h
        w, h = (
            np.maximum(w + 1e-3 * (rest @ h.T - 0.01 * w), 0),
            np.maximum(h + 1e-3 * (w.T @ rest - 0.01 * h), 0),
        )
    return w, h


@pytest.mark.parametrize("turned", [False, True])
def test_the_rule_of_the_tutorial_step_for_step(turned: bool) -> None:
    v = TUTORIAL.T if turned else TUTORIAL
    m, n = v.shape
    random = np.random.default_rng(0)
    w, h = random.random((m, 5)), random.random((5, n))
    given: dict[str, Any] = {"init": "custom", "W": w, "H": h, "alpha_W": 0.01 / n, "alpha_H": 0.01 / m}
    result = nmf(v, 5, max_iter=300, tol=0, **RULE, **given)
    for ours, theirs in zip((result.W, result.H), tutorial_loop(v, w, h, 300), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-10)


def test_it_gets_below_the_error_of_the_tutorial() -> None:
    result = nmf(TUTORIAL, 5, solver="sgd", schedule="bold-driver", stop_below=0.01, tol=0, max_iter=5000)
    assert "below 0.01" in result.message
    assert result.reconstruction_err < 0.01
    for factor in (result.W.compute(), result.H.compute()):
        assert factor.min() >= 0


@pytest.fixture
def grid(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small matrices are cut into about 4 x 2 blocks."""
    monkeypatch.setattr(row_panels, "SMALLEST", 1)
    monkeypatch.setattr(row_panels, "PANELS", 4)
    monkeypatch.setattr(row_panels, "BLOCK", 500)


@pytest.mark.parametrize(
    ("name", "shape"),
    [(name, ((120, 24), (24, 120))[number % 2]) for number, name in enumerate(SOURCES)],
)
def test_every_input_is_factorised(name: str, shape: tuple[int, int], tmp_path: Path, grid: None) -> None:
    v = low_rank(*shape, 3, noise=0.2)
    result = nmf(SOURCES[name](v, tmp_path / "V"), 3, solver="sgd", max_iter=6, tol=0)
    w, h = result.W.compute(), result.H.compute()
    assert np.linalg.norm(v - w @ h) == pytest.approx(result.reconstruction_err, rel=1e-6)
    assert result.relative_error < 1.2 * nmf(v, 3).relative_error


@pytest.mark.parametrize("schedule", ["adagrad", "bold-driver", "constant", "inverse-time"])
@pytest.mark.parametrize("missing", [None, "nan"])
def test_the_scale_of_v_is_that_of_the_answer(schedule: str, missing: str | None) -> None:
    v = low_rank(80, 20, 3, noise=0.2)
    if missing:
        v = np.where(np.random.default_rng(0).random(v.shape) < 0.5, np.nan, v)
    asked: dict[str, Any] = {
        "solver": "sgd",
        "schedule": schedule,
        "missing": missing,
        "max_iter": 5,
        "tol": 0,
    }
    alone = nmf(v, 3, **asked)
    for scale in (1e-4, 1e4):
        scaled = nmf(scale * v, 3, **asked)
        np.testing.assert_allclose(scaled.W / scale**0.5, alone.W, rtol=1e-6, atol=1e-9)
        np.testing.assert_allclose(scaled.error_history, alone.error_history, rtol=1e-6)


@pytest.mark.parametrize("schedule", ["constant", "bold-driver", "adagrad"])
@pytest.mark.parametrize("missing", [None, "nan"])
def test_steps_that_are_too_long_are_cured(schedule: str, missing: str | None) -> None:
    v = low_rank(80, 20, 3, noise=0.2)
    asked: dict[str, Any] = {"solver": "sgd", "schedule": schedule, "missing": missing, "max_iter": 150}
    result = nmf(v, 3, learning_rate=1e3, init="random", **asked)
    assert np.isfinite(result.error_history[20:]).all()
    assert result.relative_error < 0.5
    for factor in (result.W.compute(), result.H.compute()):
        assert np.isfinite(factor).all()
        assert factor.min() >= 0


def test_a_step_that_no_halving_cures_is_said() -> None:
    result = nmf(TUTORIAL, 2, solver="sgd", schedule="constant", learning_rate=1e30, init="random")
    assert result.outcome is Outcome.DIVERGED
    assert np.isfinite(result.relative_error)


def test_fits_stop_where_what_is_held_out_is_best() -> None:
    random = np.random.default_rng(0)
    v = low_rank(60, 30, 2) + 2 * random.random((60, 30))
    steps: list[Step] = []
    asked: dict[str, Any] = {"solver": "sgd", "init": "random", "validation_fraction": 0.3, "max_iter": 300}
    result = nmf(v, 15, tol=0, callback=steps.append, **asked)
    assert "held out did not fall" in result.message
    assert result.validation_error <= 1.05 * min(step.validation_error for step in steps)


def test_new_rows_are_transformed() -> None:
    v = low_rank(80, 20, 3, noise=0.1)
    result = nmf(v, 3, solver="sgd", max_iter=30)
    w = transform(v, result.H.compute())
    assert w is not None
    assert np.linalg.norm(v - w @ result.H) <= result.reconstruction_err * (1 + 1e-9)


@pytest.mark.parametrize("solver", ["sgd"])
def test_a_run_that_was_stopped_goes_on_bit_for_bit(solver: str, tmp_path: Path, grid: None) -> None:
    kept = np.random.default_rng(0).random((120, 24)) < 0.6
    v = scipy.sparse.csr_array(low_rank(120, 24, 3, noise=0.2) * kept)
    asked: dict[str, Any] = {"missing": "unstored", "validation_fraction": 0.1, "tol": 0, "max_iter": 9}
    whole = nmf(v, 3, solver=solver, store=tmp_path / "whole.zarr", **asked)

    class Stopped(Exception):
        pass

    def stop(step: Step) -> None:
        if step.number in (1, 3):
            raise Stopped

    for _ in range(2):
        with pytest.raises(Stopped):
            nmf(v, 3, solver=solver, store=tmp_path / "stopped.zarr", callback=stop, **asked)
    resumed = nmf(v, 3, solver=solver, store=tmp_path / "stopped.zarr", **asked)
    np.testing.assert_array_equal(resumed.W, whole.W)
    np.testing.assert_array_equal(resumed.H, whole.H)
    np.testing.assert_array_equal(resumed.error_history, whole.error_history)


def test_four_workers_give_the_bits_of_one(tmp_path: Path, grid: None) -> None:
    path = SOURCES["zarr v3"](low_rank(120, 24, 3, noise=0.2), tmp_path / "V")
    answers = []
    for workers in (1, 4):
        with (
            LocalCluster(
                n_workers=workers,
                threads_per_worker=1,
                processes=False,
                dashboard_address="127.0.0.1:0",
                memory_limit=0,
            ) as cluster,
            cluster.get_client(),
        ):
            result = nmf(path, 3, solver="sgd", max_iter=4, tol=0, store=tmp_path / f"{workers}.zarr")
            answers.append((result.W.compute(), result.H.compute()))
    for ours, theirs in zip(*answers, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_weights_are_refused() -> None:
    with pytest.raises(ValueError, match="solvers 'hals' and 'mu' take them"):
        nmf(TUTORIAL, 2, solver="sgd", weights=np.ones_like(TUTORIAL))


@pairwise(
    {
        "schedule": ["adagrad", "bold-driver", "constant"],
        "alpha": [10.0, 100.0],
        "options": [{}, {"l1_ratio": 1.0}, {"missing": "nan"}],
    }
)
def test_penalties_so_strong_that_zeros_are_best_give_zeros(
    schedule: str, alpha: float, options: dict[str, Any]
) -> None:
    v = np.random.default_rng(0).random((30, 20))
    result = nmf(v, 2, solver="sgd", schedule=schedule, alpha_W=alpha, max_iter=300, **options)
    assert result.outcome is not Outcome.DIVERGED
    assert float((result.W @ result.H).max()) < 1e-3
    assert result.relative_error == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("alpha", [0.1, 0.5])
def test_penalties_that_leave_something_are_not_taken_for_those_that_leave_nothing(alpha: float) -> None:
    """Steps that are far too long lead to zeros, which a constant W H beats."""
    v = 0.8 + 0.2 * np.random.default_rng(0).random((30, 20))
    asked: dict[str, Any] = {"solver": "sgd", "schedule": "constant", "alpha_W": alpha, "max_iter": 300}
    expected = nmf(v, 2, alpha_W=alpha)
    result = nmf(v, 2, learning_rate=100.0, **asked)
    np.testing.assert_allclose(result.W @ result.H, expected.W @ expected.H, atol=0.05)
