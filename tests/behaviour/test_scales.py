"""V of any size: a fit of V · 2^s is that of V, bit for bit; and it tells the error that NumPy finds."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st
from support.matrices import Array, low_rank

from dask_nmf import NMF, nmf, transform
from dask_nmf.errors import DataError
from dask_nmf.kernels import row_sums
from dask_nmf.kernels.blocks import scaling
from dask_nmf.kernels.blocks.scaling import ScaledBlock

V = low_rank(40, 25, 3, noise=0.5) + 0.05
V /= V.mean()
ENDS = {
    np.float32: [-38, -36, -25, -20.5, -15, -8, 8, 13, 17, 20, 25, 34, 36],
    np.float64: [-140, -110, -71, -50, 50, 71, 97, 140],
}
WAYS = [
    ("hals", 2.0),
    ("hals", 1.0),
    ("sgd", 2.0),
    *(("mu", beta) for beta in (2.0, 1.0, 0.0, 0.5, 3.0, 4.0, -1.0)),
]
dtypes = pytest.mark.parametrize("dtype", list(ENDS))
ways = pytest.mark.parametrize(("solver", "beta"), WAYS)
exponents = st.integers(-120, 120)
ROWS, COLUMNS = np.indices((20, 9))
SMALL = np.round(1 + 50 * np.abs(np.sin(3 * ROWS + 7 * COLUMNS + ROWS * COLUMNS))) / 8  # a few bits an entry


def relative(v: Array, y: Array, beta: float) -> float:
    """√(D(v | y) / D(v | its mean)), or ‖v − y‖ / ‖v‖."""

    def apart(y: Array) -> float:
        if beta == 2:
            return float(np.sum((v - y) ** 2))
        if beta == 1:
            return float(np.sum(v * np.log(v / y) - v + y))
        if beta == 0:
            return float(np.sum(v / y - np.log(v / y) - 1))
        whole = v**beta + (beta - 1) * y**beta - beta * v * y ** (beta - 1)
        return float(np.sum(whole) / (beta * (beta - 1)))

    return float(np.sqrt(apart(y) / apart(np.full_like(v, v.mean() if beta != 2 else 0))))


def at(v: Any, exponent: int) -> Any:
    """V · 2^exponent, dense or CSR."""
    if scipy.sparse.issparse(v):
        return scipy.sparse.csr_array((at(v.data, exponent), v.indices, v.indptr), v.shape)
    return np.ldexp(v, exponent).astype(v.dtype)


def same_bits(some: Array, other: Array, exponent: int) -> None:
    np.testing.assert_array_equal(at(np.asarray(some), exponent), np.asarray(other))


@dtypes
@ways
@settings(max_examples=3)
@given(exponent=exponents, sparse=st.booleans(), seed=st.integers(0, 9))
def test_a_fit_of_v_at_another_scale_is_the_same(
    solver: str, beta: float, dtype: Any, exponent: int, sparse: bool, seed: int
) -> None:
    v = (SMALL if beta <= 0 else np.where(SMALL < 2, 0, SMALL)).astype(dtype)
    v = scipy.sparse.csr_array(v) if sparse and beta > 0 else v
    options: dict[str, Any] = {
        "solver": solver,
        "beta_loss": beta,
        "max_iter": 3,
        "tol": 1e-9,
        "random_state": seed,
    }
    some, other = nmf(v, 2, **options), nmf(at(v, exponent), 2, **options)
    assert some.relative_error == other.relative_error
    np.testing.assert_array_equal(some.error_history, other.error_history)
    (W, H), (W2, H2) = (tuple(map(np.asarray, result)) for result in (some, other))
    root = 2.0 ** (exponent / 2)
    for part, other_part in ((W, W2), (H, H2)):
        if exponent % 2 == 0:
            same_bits(part, other_part, exponent // 2)
        np.testing.assert_allclose(other_part / root, part, rtol=4 * np.finfo(dtype).eps)
    by = 2.0 ** (exponent * beta / 2)
    assert other.reconstruction_err == pytest.approx(by * some.reconstruction_err, rel=1e-12)
    weighed = transform(v, H, beta_loss=beta), transform(at(v, exponent), H, beta_loss=beta)
    same_bits(*weighed, exponent)


@pytest.mark.parametrize("loss", [2.0, 1.0])
@settings(max_examples=2)
@given(half=st.integers(-60, 60), sparse=st.booleans())
def test_a_stream_of_v_at_another_scale_is_the_same(loss: float, half: int, sparse: bool) -> None:
    exponent, v = 2 * half, SMALL.astype(np.float32)
    models = [NMF(2, beta_loss=loss, random_state=0, max_iter=3) for _ in range(2)]
    for rows in (slice(0, 8), slice(8, 20)):
        for model, power in zip(models, (0, exponent), strict=True):
            batch = at(v[rows], power)
            model.partial_fit(scipy.sparse.csr_array(batch) if sparse else batch)
    first, second = (model.components_ for model in models)
    same_bits(first, second, half)
    same_bits(models[0].transform(v), models[1].transform(at(v, exponent)), half)


@settings(max_examples=4)
@given(
    power=st.integers(-60, 60), l1_ratio=st.sampled_from([0.0, 1.0, 0.5]), beta=st.sampled_from([2.0, 1.0])
)
def test_penalties_grow_with_the_scale_as_the_loss_does(power: int, l1_ratio: float, beta: float) -> None:
    """W and H get √s each, so that an L2 penalty is to be s^(β − 1) times as large, and L1 s^(β − ½)."""
    v, exponent = SMALL.astype(np.float32), 2 * power
    by = 2.0 ** (exponent * (beta - 1))
    if l1_ratio:
        by, l1_ratio = 2.0 ** (exponent * (beta - 0.5)), 1.0
    options: dict[str, Any] = {"beta_loss": beta, "l1_ratio": l1_ratio, "max_iter": 3, "tol": 0}
    some = nmf(v, 2, alpha_W=0.125, alpha_H=0.25, **options)
    other = nmf(at(v, exponent), 2, alpha_W=0.125 * by, alpha_H=0.25 * by, **options)
    assert some.relative_error == other.relative_error
    same_bits(some.W, other.W, power)
    same_bits(some.H, other.H, power)


LEFT = (np.arange(1.0, 41).reshape(20, 2) % 7 + 1) * 2.0**9
RIGHT = (np.arange(1.0, 19).reshape(2, 9) % 5 + 1) * 2.0**7


def test_given_factors_and_delta_are_in_the_users_units() -> None:
    v, delta = at(SMALL, 20), 2.0**30
    asked: dict[str, Any] = {"W": LEFT, "H": RIGHT, "max_iter": 1, "tol": 0}
    result = nmf(v, 2, solver="mu", delta=delta, **asked)
    w = LEFT * (v @ RIGHT.T) / (LEFT @ (RIGHT @ RIGHT.T) + delta)
    h = RIGHT * (w.T @ v) / (w.T @ w @ RIGHT + delta)
    np.testing.assert_allclose(result.W, w, rtol=1e-12)
    np.testing.assert_allclose(result.H, h, rtol=1e-12)


def test_given_factors_and_a_learning_rate_are_in_the_users_units() -> None:
    v, rate = at(SMALL, 20), 2.0**-32
    asked: dict[str, Any] = {"W": LEFT, "H": RIGHT, "max_iter": 1, "tol": 0, "batch_size": 20}
    result = nmf(v, 2, solver="sgd", schedule="constant", learning_rate=rate, alpha_W=2.0**12, **asked)
    rest = v - LEFT @ RIGHT
    w = np.maximum(LEFT + rate * (rest @ RIGHT.T - 9 * 2.0**12 * LEFT), 0)
    h = np.maximum(RIGHT + rate * (LEFT.T @ rest - 20 * 2.0**12 * RIGHT), 0)
    np.testing.assert_allclose(result.W, w, rtol=1e-12)
    np.testing.assert_allclose(result.H, h, rtol=1e-12)


@pytest.mark.parametrize("exponent", [-120, 101])
@pytest.mark.parametrize("solver", ["hals", "mu", "sgd"])
def test_a_fit_that_is_resumed_is_at_the_same_scale(solver: str, exponent: int, tmp_path: Path) -> None:
    v, path = at(SMALL.astype(np.float32), exponent), tmp_path / "run.zarr"
    whole = nmf(v, 2, solver=solver, max_iter=4, tol=0)

    class Stopped(Exception):
        pass

    def stop(step: Any) -> None:
        if step.number == 2:
            raise Stopped

    with pytest.raises(Stopped):
        nmf(v, 2, solver=solver, max_iter=4, tol=0, store=path, callback=stop)
    resumed = nmf(v, 2, solver=solver, max_iter=4, tol=0, store=path)
    np.testing.assert_array_equal(resumed.W, whole.W)
    np.testing.assert_array_equal(resumed.H, whole.H)
    assert resumed.reconstruction_err == whole.reconstruction_err
    loaded = NMF.load(path)
    same_bits(loaded.transform(v), loaded.transform(at(v, 3)), 3)


def test_numbers_in_the_units_of_v_are_told_in_them() -> None:
    v = at(SMALL, 40)
    held: list[float] = []
    result = nmf(v, 2, validation_fraction=0.25, callback=lambda step: held.append(step.validation_error))
    plain = nmf(SMALL, 2, validation_fraction=0.25)
    assert result.validation_error == at(np.array(plain.validation_error), 40)
    assert min(held) == pytest.approx(result.validation_error)
    enough = 1.05 * nmf(SMALL, 2).reconstruction_err
    stopped = nmf(v, 2, stop_below=enough * 2.0**40)
    assert stopped.message == f"stopped: ‖V − W H‖ is below {enough * 2.0**40:g}"
    assert stopped.reconstruction_err < enough * 2.0**40
    fixed = nmf(v, 2, fixed_H=np.asarray(plain.H)).W
    same_bits(nmf(SMALL, 2, fixed_H=np.asarray(plain.H)).W, fixed, 40)


@dtypes
@ways
def test_the_error_told_is_right(solver: str, beta: float, dtype: Any) -> None:
    errors = []
    for power in ENDS[dtype][:: 2 if solver == "mu" else 1]:
        v = (V * 10.0**power).astype(dtype)
        result = nmf(v, 3, solver=solver, beta_loss=beta, max_iter=6, tol=0)
        scale = float(v.mean(dtype=np.float64))
        w, h = (np.asarray(factor, np.float64) / np.sqrt(scale) for factor in (result.W, result.H))
        right = relative(v.astype(np.float64) / scale, w @ h, beta)
        assert result.relative_error == pytest.approx(right, rel=1e-3)
        errors.append(right)
    assert max(errors) < 1.01 * min(errors)  # it is fitted as well, too


@pytest.mark.parametrize("power", [-300, 160])
def test_squares_beyond_float64_are_refused_with_the_cure(power: int) -> None:
    with pytest.raises(DataError, match="multiply V by a number that brings its mean near 1"):
        nmf(V * 10.0**power, 3)
    assert nmf(V * 10.0**power, 3, beta_loss="kullback-leibler", max_iter=2).relative_error < 1


def test_squares_below_the_range_of_float32_count() -> None:
    x = np.full((300, 7), 1e-22, np.float32)
    assert row_sums.sum_of_squares(x) == pytest.approx(2100e-44, rel=1e-6)
    assert row_sums.sum_of_squares(np.full((2, 2), 1e25, np.float32)) == pytest.approx(4e50, rel=1e-6)


@dtypes
@pytest.mark.parametrize("beta", [2.0, 1.0, 0.0, 3.0])
@pytest.mark.parametrize("stored", [np.asarray, scipy.sparse.csc_array], ids=["rows", "columns"])
def test_w_of_a_v_of_another_size_is_that_w_times_it(beta: float, dtype: Any, stored: Any) -> None:
    if beta == 0 and stored is not np.asarray:
        return
    h = (NMF(3, random_state=0, max_iter=3).fit(V).components_ + 0.01).astype(dtype)
    expected = np.asarray(transform(stored(V[:9].astype(dtype)), h, beta_loss=beta), np.float64)
    for power in ENDS[dtype]:
        w = transform(stored((V[:9] * 10.0**power).astype(dtype)), h, beta_loss=beta)
        scaled = np.asarray(w, np.longdouble) / np.longdouble(10) ** power
        np.testing.assert_allclose((scaled @ h).astype(float), expected @ h, rtol=2e-3, atol=1e-4)


def test_rows_of_one_v_may_be_of_any_size() -> None:
    """A floor of the size of V would make zeros of its faint rows."""
    h = (NMF(3, random_state=0, max_iter=3).fit(V).components_ + 0.01).astype(np.float32)
    v = V[:9].astype(np.float32)
    sizes = 2.0 ** np.array([0, -60, 20, -100, -40, 3, -12, 9, -80])
    for beta in (2.0, 1.0):
        expected = np.asarray(transform(v, h, beta_loss=beta))
        found = np.asarray(transform((v * sizes[:, None]).astype(np.float32), h, beta_loss=beta))
        np.testing.assert_allclose(found / sizes[:, None], expected, rtol=1e-4, atol=1e-6)


def test_a_w_that_its_dtype_does_not_hold_is_refused() -> None:
    with pytest.raises(DataError, match="W for this V and H is beyond float32"):
        transform(np.full((3, 4), 1e30, np.float32), np.full((2, 4), 1e-20, np.float32))


@pytest.mark.parametrize("loss", ["frobenius", "kullback-leibler"])
@pytest.mark.parametrize("sizes", [(1, 1e-30, 1e-12, 1), (1e-30, 1, 1), (0, 1e-30, 1e-30)], ids=str)
def test_a_faint_batch_of_a_stream_changes_nothing(loss: str, sizes: tuple[float, ...]) -> None:
    models = [NMF(3, beta_loss=loss, random_state=0) for _ in range(2)]
    for size in sizes:
        models[0].partial_fit((V[:20] * size).astype(np.float32))
        models[1].partial_fit((V[:20] * (size if size == max(sizes) else 0)).astype(np.float32))
    first, second = (model.components_ for model in models)
    assert second.any()
    for parts in (first, second):
        parts /= np.linalg.norm(parts)
    y, z = (NMF(3, max_iter=1, tol=0).fit(V[:20], H=parts).reconstruction_err_ for parts in (first, second))
    assert y == pytest.approx(z, rel=0.02)


@given(exponent=st.integers(-140, 140), halves=st.booleans())
def test_the_scale_is_a_power_of_two_that_brings_the_mean_near_1(exponent: int, halves: bool) -> None:
    mean = (1.5 if halves else 1.25) * 2.0**exponent
    scale = scaling.scale_of(mean, np.dtype(np.float64))
    assert np.frexp(scale)[0] == 0.5
    assert 0.7 < scale * mean < 1.42
    assert scaling.scale_of(0.0, np.dtype(np.float32)) == 1
    left, right = scaling.split_power(scale)
    assert left * right == scale
    assert left in (right, 2 * right)


@pytest.mark.parametrize("exponent", [-125, 0, 121])
@pytest.mark.parametrize("kind", [np.asarray, scipy.sparse.csr_array], ids=["dense", "csr"])
def test_products_with_a_scaled_block_are_those_with_the_block_scaled(exponent: int, kind: Any) -> None:
    v, h = SMALL.astype(np.float32), SMALL[:3].astype(np.float32)
    block = scaling.with_scale(kind(at(v, -exponent)), 2.0**exponent)
    assert isinstance(block, ScaledBlock) == (exponent != 0)
    np.testing.assert_array_equal(scaling.matmul(block, h.T), scaling.matmul(kind(v), h.T))
    np.testing.assert_array_equal(scaling.rmatmul(v[:, :2].T, block), scaling.rmatmul(v[:, :2].T, kind(v)))
    np.testing.assert_array_equal(scaling.dense_rows(block, [3, 1]), v[[3, 1]])
    assert row_sums.residual(block, v[:, :2], v[:2]) == row_sums.residual(kind(v), v[:, :2], v[:2])
