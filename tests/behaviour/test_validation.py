"""Entries held out: which they are, that a fit learns nothing from them, and when it stops for them."""

from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.grids import pairwise
from support.matrices import Array, low_rank
from support.observed import HOLDERS, held_out_entries, how, ratings
from support.runs import Crash, assert_same_bits, crash_after
from support.strategies import chunkings, few

from dask_nmf import Result, Run, nmf
from dask_nmf.iteration.loop import PATIENCE, Step

SHAPES = {"tall": (60, 25), "wide": (25, 60)}
RANK = 3
SHARE = 0.2
SEED = 3

pytestmark = pytest.mark.usefixtures("several_panels")
shapes = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
solvers = pytest.mark.parametrize("solver", ["hals", "mu"])


def held_out(shape: tuple[int, int], share: float = SHARE) -> Array:
    """Which entries are, by hashes of the seed with the row and with the column of V."""
    return held_out_entries(shape, SEED, share)


def fit(v: Any, rank: int = RANK, **options: Any) -> Result:
    return nmf(v, rank, **{"random_state": SEED, "validation_fraction": SHARE, **options})


def root_mean_square(v: Array, result: Result, weights: Array | float = 1.0) -> float:
    """Of the error at the entries held out."""
    w, h = dask.compute(result.W, result.H)
    weights = np.where(held_out(v.shape) & ~np.isnan(v), weights, 0)
    return float(np.sqrt(np.nansum(weights * (v - w @ h) ** 2) / weights.sum()))


@pairwise(
    {
        "kind, solver": [
            ("numpy", "hals"),
            ("numpy", "mu"),
            ("dask", "hals"),
            ("csr_array", "mu"),
            ("csr in zarr", "hals"),
            ("csc in zarr", "mu"),
        ],
        "weighted": [False, True],
        "shape": SHAPES,
    }
)
def test_the_error_is_that_of_the_entries_of_v_held_out(
    solver: str, shape: tuple[int, int], weighted: bool, kind: str, tmp_path: Path
) -> None:
    v = ratings(shape)
    weights = np.random.default_rng(2).random(shape) if weighted else None
    result = fit(
        HOLDERS[kind](v, tmp_path / "v"), solver=solver, missing=how(kind), weights=weights, max_iter=4
    )
    expected = root_mean_square(v, result, 1.0 if weights is None else weights)
    assert result.validation_error == pytest.approx(expected, rel=1e-9)


@solvers
@shapes
@few
@given(data=st.data())
def test_any_chunking_holds_out_the_same(solver: str, shape: tuple[int, int], data: st.DataObject) -> None:
    v = low_rank(*shape, RANK, noise=1)
    result = fit(da.from_array(v, chunks=data.draw(chunkings(shape))), solver=solver, max_iter=2)
    assert result.validation_error == pytest.approx(root_mean_square(v, result), rel=1e-9)


@shapes
@solvers
def test_nothing_is_learnt_from_them(solver: str, shape: tuple[int, int]) -> None:
    v = ratings(shape)
    other = np.where(held_out(shape), 7 * v + 1, v)
    asked: dict[str, Any] = {"solver": solver, "init": "random", "missing": "nan", "tol": 0}
    one, two = (fit(data, max_iter=1, **asked) for data in (v, other))
    for mine, theirs in zip(dask.compute(one.W, one.H), dask.compute(two.W, two.H), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert one.reconstruction_err == two.reconstruction_err
    assert two.validation_error > one.validation_error
    histories = [fit(data, max_iter=6, **asked).error_history for data in (v, other)]
    shorter = min(map(len, histories))  # what they say is which pass is the best, and the last
    np.testing.assert_array_equal(histories[0][:shorter], histories[1][:shorter])


@shapes
@solvers
def test_the_answer_is_of_the_best_pass(solver: str, shape: tuple[int, int]) -> None:
    v = low_rank(*shape, RANK, noise=3)
    steps: list[Step] = []
    asked: dict[str, Any] = {"rank": 9, "solver": solver, "init": "random", "tol": 0, "alpha_W": 1e-4}
    asked["random_state"] = 5
    result = fit(v, max_iter=150, callback=steps.append, **asked)
    held = np.array([step.validation_error for step in steps])
    best = int(held.argmin()) + 1
    assert f"did not fall in the last {PATIENCE} passes" in result.message
    assert result.n_iter == len(steps) < 150
    assert 1 < best <= result.n_iter - PATIENCE
    short = fit(v, max_iter=best, **asked)
    np.testing.assert_array_equal(short.H, result.H)
    np.testing.assert_array_equal(short.W, result.W)
    if solver == "mu":
        assert result.validation_error == pytest.approx(held.min(), rel=1e-9)


@shapes
def test_a_sampled_start_has_not_learnt_too_much(shape: tuple[int, int]) -> None:
    v = low_rank(*shape, RANK, noise=3)
    sampled, random = (fit(v, rank=9, init=init).validation_error for init in ("sample", "random"))
    assert sampled < 1.1 * random


def test_nothing_held_out_has_no_error() -> None:
    assert np.isnan(fit(low_rank(60, 25, RANK), validation_fraction=0.0, max_iter=1).validation_error)


@pytest.mark.parametrize(
    ("solver", "shape", "kind"),
    [
        ("hals", SHAPES["tall"], "csr in zarr"),
        ("hals", SHAPES["wide"], "numpy"),
        ("mu", SHAPES["tall"], "numpy"),
        ("mu", SHAPES["wide"], "csr in zarr"),
    ],
)
def test_a_resumed_run_gives_the_same_bits(
    solver: str, shape: tuple[int, int], kind: str, tmp_path: Path
) -> None:
    v = HOLDERS[kind](ratings(shape), tmp_path / "v")
    weights = np.random.default_rng(2).random(shape)
    asked: dict[str, Any] = {"rank": 9, "solver": solver, "missing": how(kind), "alpha_W": 1e-4}
    asked |= {"weights": weights, "init": "random", "max_iter": 12, "tol": 0}
    whole = fit(v, store=tmp_path / "whole.zarr", **asked)
    for number in range(1, whole.n_iter + 1):
        with pytest.raises(Crash):
            fit(v, store=tmp_path / "run.zarr", callback=crash_after(number), **asked)
    again = fit(v, store=tmp_path / "run.zarr", **asked)
    assert_same_bits(again, whole)
    assert again.validation_error == whole.validation_error
    assert Run.load(tmp_path / "run.zarr").summary()["validation_error"] == whole.validation_error


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"weights": np.full((60, 25), 2.0)}, "weights is"),
        ({"missing": None}, "missing is None, the run has 'nan'"),
        ({"alpha_H": 0.5}, "alpha_H is 0.5"),
        ({"validation_fraction": 0.5}, "validation_fraction is 0.5"),
    ],
)
def test_a_run_of_another_fit_is_named(changed: dict[str, Any], named: str, tmp_path: Path) -> None:
    v, asked = low_rank(60, 25, RANK), {"missing": "nan", "store": tmp_path / "run.zarr", "max_iter": 1}
    fit(v, **asked)
    with pytest.raises(ValueError, match=named):
        fit(v, **{**asked, **changed})
