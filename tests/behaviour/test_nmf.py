"""The contract of `nmf`: every solver, start and kind of source."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st
from sklearn.decomposition import NMF
from support.grids import pairwise
from support.matrices import SOURCES, Array, low_rank
from support.strategies import chunkings, few

from dask_nmf import Outcome, Result, nmf
from dask_nmf.options import settings

SHAPES = {"tall": (60, 25), "wide": (25, 60)}
TYPES = (np.float32, np.float64)
RANK = 3
pytestmark = pytest.mark.usefixtures("several_panels")
shapes = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
solvers = pytest.mark.parametrize("solver", settings.SOLVERS)
quiet = pytest.mark.filterwarnings("ignore:solver 'mu' cannot move the zeros")


def factors(shape: tuple[int, int], rank: int = RANK, seed: int = 1) -> dict[str, Array]:
    random = np.random.default_rng(seed)
    return {"W": random.random((shape[0], rank)) + 0.1, "H": random.random((rank, shape[1])) + 0.1}


def arrays(result: Result) -> tuple[Array, Array]:
    return dask.compute(result.W, result.H)


def direct_error(v: Array, w: Array, h: Array) -> float:
    wide = v.astype(np.float64)
    return float(np.linalg.norm(wide - w.astype(np.float64) @ h) / np.linalg.norm(wide))


@quiet
@pairwise(
    {
        "solver": list(settings.SOLVERS),
        "kind, dtype, init": [
            ("numpy", np.float32, "sample"),
            ("numpy", np.float64, "random"),
            ("numpy", np.float64, "custom"),
            ("dask", np.float32, "random"),
            ("csr_array", np.float64, "sample"),
            ("csr_array", np.float32, "custom"),
            ("csr in zarr", np.float32, "random"),
            ("csr in zarr", np.float64, "custom"),
            ("zarr v3", np.float64, "sample"),
        ],
        "shape": SHAPES,
    }
)
def test_contract(
    solver: str, init: str, kind: str, shape: tuple[int, int], dtype: Any, tmp_path: Path
) -> None:
    v = low_rank(*shape, RANK, noise=0.5, dtype=dtype)
    custom = factors(shape) if init == "custom" else {}
    result = nmf(SOURCES[kind](v, tmp_path / "v"), RANK, solver=solver, init=init, max_iter=4, **custom)
    w, h = arrays(result)
    rounding = 1e-4 if dtype == np.float32 else 1e-9
    assert (w.shape, h.shape) == ((shape[0], RANK), (RANK, shape[1]))
    assert w.dtype == h.dtype == result.W.dtype == result.H.dtype == dtype
    assert np.isfinite(w).all()
    assert np.isfinite(h).all()
    assert min(w.min(), h.min()) >= 0
    assert result.relative_error == pytest.approx(direct_error(v, w, h), rel=rounding)
    assert result.reconstruction_err == pytest.approx(result.relative_error * np.linalg.norm(v), rel=1e-5)
    assert len(result.error_history) == result.n_iter <= 4
    rise = 0.05 if solver == "sgd" else rounding  # its losses are met on the way
    assert np.all(np.diff(result.error_history) <= rise * result.error_history[0])
    assert result.relative_error <= result.error_history[-1] * (1 + rise)


def sklearn_error(v: Array, rank: int) -> float:
    model = NMF(rank, init="nndsvda", max_iter=400, tol=1e-6)
    return float(model.fit(v).reconstruction_err_ / np.linalg.norm(v))


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@shapes
@pytest.mark.parametrize(
    ("solver", "init", "passes"),
    [
        ("hals", "sample", 5),
        ("hals", "random", 60),
        ("mu", "sample", 15),
        ("hals", "nndsvd", 15),
        ("mu", "nndsvda", 30),
    ],
)
def test_as_good_as_sklearn(solver: str, init: str, passes: int, shape: tuple[int, int]) -> None:
    v = low_rank(*shape, RANK, noise=1)
    result = nmf(v, RANK, solver=solver, init=init, max_iter=passes, tol=1e-6)
    assert result.relative_error <= 1.02 * sklearn_error(v, RANK)


def lee_seung(v: Array, w: Array, h: Array, passes: int, inner: int, delta: float) -> tuple[Array, Array]:
    for _ in range(passes):
        num, gram = v @ h.T, h @ h.T
        for _ in range(inner):
            w = w * num / (w @ gram + delta)
        num, gram = w.T @ v, w.T @ w
        for _ in range(inner):
            h = h * num / (gram @ h + delta)
    return w, h


@pytest.mark.parametrize("inner", [1, 3])
@shapes
@few
@given(data=st.data())
def test_mu_follows_lee_and_seung_under_any_chunking(
    shape: tuple[int, int], inner: int, data: st.DataObject
) -> None:
    v, start = low_rank(*shape, RANK), factors(shape)
    chunks = data.draw(chunkings(shape))
    result = nmf(
        da.from_array(v, chunks=chunks),
        RANK,
        solver="mu",
        init="custom",
        delta=1e-3,
        inner_iter=inner,
        max_iter=3,
        tol=0,
        **start,
    )
    expected = lee_seung(
        v, **{key.lower(): value for key, value in start.items()}, passes=3, inner=inner, delta=1e-3
    )
    for mine, theirs in zip(arrays(result), expected, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-10)


@cache
def whole_fit(solver: str, shape: tuple[int, int]) -> Result:
    return nmf(low_rank(*shape, RANK, noise=1), RANK, solver=solver, max_iter=3, random_state=5)


@shapes
@solvers
@few
@given(data=st.data())
def test_result_does_not_depend_on_chunking(solver: str, shape: tuple[int, int], data: st.DataObject) -> None:
    v, whole = low_rank(*shape, RANK, noise=1), whole_fit(solver, shape)
    cut = nmf(
        da.from_array(v, chunks=data.draw(chunkings(shape))), RANK, solver=solver, max_iter=3, random_state=5
    )
    if solver == "sgd":  # its order of minibatches is that of the blocks
        assert cut.relative_error == pytest.approx(whole.relative_error, rel=0.05)
        return
    for one, other in zip(arrays(whole), arrays(cut), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-9)


@solvers
def test_result_does_not_depend_on_the_scheduler(solver: str, request: pytest.FixtureRequest) -> None:
    v = low_rank(60, 25, RANK)
    with dask.config.set(scheduler="synchronous"):
        here = arrays(nmf(v, RANK, solver=solver, max_iter=4))
    threads = arrays(nmf(v, RANK, solver=solver, max_iter=4))
    request.getfixturevalue("client")
    cluster = arrays(nmf(v, RANK, solver=solver, max_iter=4))
    others = [threads, cluster]
    if solver != "sgd":  # whose blocks would be others
        others.append(arrays(nmf(da.from_array(v, chunks=(7, 9)), RANK, solver=solver, max_iter=4)))
    for other in others:
        for mine, theirs in zip(here, other, strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=1e-7, atol=1e-12)


def test_seed_is_the_only_source_of_chance() -> None:
    v = low_rank(60, 25, RANK, noise=1)
    one, same, another = (nmf(v, RANK, init="random", max_iter=2, random_state=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.H, same.H)
    assert not np.allclose(one.H, another.H)


@pairwise({"solver": list(settings.SOLVERS), "dtype": TYPES, "shape": SHAPES})
def test_scale_of_v_is_only_a_scale(solver: str, dtype: Any, shape: tuple[int, int]) -> None:
    v = low_rank(*shape, RANK, noise=1, dtype=dtype)
    one = nmf(v, RANK, solver=solver, max_iter=4)
    for factor in (2.0**-20, 2.0**20):
        scaled = nmf(v * dtype(factor), RANK, solver=solver, max_iter=4)
        np.testing.assert_allclose(scaled.error_history, one.error_history, rtol=1e-4)
        products = [w @ h for w, h in (arrays(one), arrays(scaled))]
        np.testing.assert_allclose(products[1] / factor, products[0], rtol=1e-2, atol=1e-3 * v.max())


@pairwise({"solver": list(settings.SOLVERS), "make": [np.asarray, scipy.sparse.csr_array], "shape": SHAPES})
def test_zero_rows_and_columns_give_zero_factors(
    solver: str, shape: tuple[int, int], make: Callable[[Array], Any]
) -> None:
    v = low_rank(*shape, RANK)
    v[3], v[-1], v[:, 5], v[:, -2] = 0, 0, 0, 0
    w, h = arrays(nmf(make(v), RANK, solver=solver, max_iter=10))
    product = w @ h
    assert np.abs(product[[3, -1]]).max() < 1e-6 * v.max()
    assert np.abs(product[:, [5, -2]]).max() < 1e-6 * v.max()


@quiet
@pairwise({"solver": list(settings.SOLVERS), "init": settings.INITS, "shape": SHAPES})
def test_zero_v_gives_zero_product(solver: str, init: str, shape: tuple[int, int]) -> None:
    custom = factors(shape) if init == "custom" else {}
    result = nmf(np.zeros(shape), RANK, solver=solver, init=init, **custom)
    w, h = arrays(result)
    assert np.abs(w @ h).max() == 0
    assert (result.relative_error, result.reconstruction_err) == (0, 0)
    assert result.outcome is Outcome.ZERO
    assert "zero" in result.message


@pairwise(
    {
        "solver": list(settings.SOLVERS),
        "shape": [(9, 6), (6, 9), (6, 6), (1, 5), (5, 1), (1, 1)],
        "dtype": TYPES,
    }
)
def test_every_rank_up_to_the_smaller_side(solver: str, shape: tuple[int, int], dtype: Any) -> None:
    v = np.random.default_rng(0).random(shape).astype(dtype)
    for rank in {1, min(shape)}:
        result = nmf(v, rank, solver=solver, max_iter=5)
        w, h = arrays(result)
        assert result.relative_error == pytest.approx(direct_error(v, w, h), rel=1e-3, abs=1e-6)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("rank", [1, 4])
@solvers
def test_constant_v_is_found_exactly(solver: str, rank: int, dtype: Any) -> None:
    result = nmf(np.full((30, 20), 7, dtype), rank, solver=solver, max_iter=30)
    w, h = arrays(result)
    assert result.relative_error < 1e-2
    assert direct_error(np.full((30, 20), 7.0), w, h) == pytest.approx(result.relative_error, abs=1e-6)


def test_outcomes_are_sentences() -> None:
    v = low_rank(60, 25, RANK, noise=1)
    assert "converged" in nmf(v, RANK, tol=1e-2).message
    short = nmf(v, RANK, tol=0, max_iter=2)
    assert "max_iter = 2" in short.message
    assert short.n_iter == 2
    timed = nmf(v, RANK, tol=0, time_limit=0)
    assert "time limit" in timed.message
    assert timed.n_iter == 1


@pytest.mark.parametrize("seconds", [-1, float("nan"), "5", True])
def test_a_time_limit_is_a_number_that_is_not_negative_or_there_is_none(seconds: Any) -> None:
    v = low_rank(60, 25, RANK)
    with pytest.raises(ValueError, match=r"time_limit is .*; it must be .*a number ≥ 0"):
        nmf(v, RANK, time_limit=seconds)
    for unlimited in (None, float("inf"), np.float32(1e6)):
        assert nmf(v, RANK, time_limit=unlimited, max_iter=1).n_iter == 1


def test_callback_sees_every_pass() -> None:
    steps: list[Any] = []
    result = nmf(low_rank(60, 25, RANK), RANK, max_iter=3, tol=0, callback=steps.append)
    assert [step.number for step in steps] == [1, 2, 3]
    np.testing.assert_array_equal([step.relative_error for step in steps], result.error_history)
    assert [step.outcome is None for step in steps] == [True, True, False]


@pairwise({"solver": list(settings.SOLVERS), "given_factor": ["W", "H"], "shape": SHAPES})
def test_one_given_factor_is_enough(solver: str, given_factor: str, shape: tuple[int, int]) -> None:
    random = np.random.default_rng(0)
    true = {"W": random.random((shape[0], RANK)), "H": random.random((RANK, shape[1]))}
    v = true["W"] @ true["H"]
    start = {given_factor: true[given_factor]}
    result = nmf(v, RANK, solver=solver, init="custom", max_iter=2, **start)
    assert result.relative_error < 1e-2


def test_v_is_left_as_it_was() -> None:
    v = low_rank(60, 25, RANK)
    before = v.copy()
    v.flags.writeable = False
    nmf(v, RANK, max_iter=2)
    np.testing.assert_array_equal(v, before)
