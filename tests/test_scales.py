"""V of any size: a fit tells the error that NumPy finds in float64, or is refused with the cure."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.sparse
from sources import Array, low_rank

from dask_nmf import NMF, kernels, nmf, transform
from dask_nmf.errors import DataError

V = low_rank(40, 25, 3, noise=0.5) + 0.05
V /= V.mean()
ENDS = {
    np.float32: [-36, -25, -22, -20.5, -19.8, -18, -15, -12, -8, 8, 13, 15, 16, 18, 20, 25, 34],
    np.float64: [-300, -160, -150, -110, -97, -71, -69, -50, 50, 66, 69, 71, 97, 140, 160, 300],
}
WAYS = [("hals", 2.0), ("hals", 1.0), ("sgd", 2.0), *(("mu", beta) for beta in (2.0, 1.0, 0.0, 3.0, -1.0))]
dtypes = pytest.mark.parametrize("dtype", list(ENDS))


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


def unless_refused(cure: str, call: Callable[[], Any]) -> Any:
    """What a call returns, or None if it is refused with the cure."""
    try:
        return call()
    except DataError as error:
        if cure not in str(error):
            raise
        return None


@dtypes
@pytest.mark.parametrize(("solver", "beta"), WAYS)
def test_the_error_told_is_right_or_v_is_refused(solver: str, beta: float, dtype: Any) -> None:
    fitted = []
    for power in ENDS[dtype]:
        v = (V * 10.0**power).astype(dtype)
        result = unless_refused(
            "multiply V by a number that brings its mean near 1",
            lambda v=v: nmf(v, 3, solver=solver, beta_loss=beta, max_iter=6, tol=0),
        )
        if result is None:
            continue
        scale = float(v.mean(dtype=np.float64))
        w, h = (np.asarray(factor, np.float64) / np.sqrt(scale) for factor in (result.W, result.H))
        right = relative(v.astype(np.float64) / scale, w @ h, beta)
        assert result.relative_error == pytest.approx(right, rel=1e-3)
        fitted.append((power, right))
    powers, errors = zip(*fitted, strict=True)
    assert min(powers) < 0 < max(powers)
    assert max(errors) < 1.2 * min(errors)  # it is fitted as well, too


@pytest.mark.parametrize("kind", [np.asarray, scipy.sparse.csr_array], ids=["dense", "csr"])
@pytest.mark.parametrize("weighted", [False, True], ids=["", "weights"])
def test_a_faint_v_is_told_as_any_other_and_a_fainter_one_refused(weighted: bool, kind: Any) -> None:
    weights = np.ones(V.shape) if weighted else None
    expected = nmf(kind(V.astype(np.float32)), 3, seed=1, weights=weights, max_iter=6, tol=0).relative_error
    for size in (1.7e-20, 3e-19, 1e-15):
        v = kind((V * size).astype(np.float32))
        told = nmf(v, 3, seed=1, weights=weights, max_iter=6, tol=0).relative_error
        assert told == pytest.approx(expected, rel=2e-3)
    with pytest.raises(DataError, match="or compute in float64"):
        nmf(kind((V * 1e-22).astype(np.float32)), 3, weights=weights)
    assert nmf(kind(V * 1e-22), 3, dtype="float64", max_iter=1).relative_error < 1


def test_squares_below_the_range_of_float32_count() -> None:
    x = np.full((300, 7), 1e-22, np.float32)
    assert kernels.squares(x) == pytest.approx(2100e-44, rel=1e-6)
    assert kernels.squares(np.full((2, 2), 1e25, np.float32)) == pytest.approx(4e50, rel=1e-6)


@dtypes
@pytest.mark.parametrize("beta", [2.0, 1.0, 0.0, 3.0])
def test_w_of_a_v_of_another_size_is_that_w_times_it(beta: float, dtype: Any) -> None:
    h = (NMF(3, random_state=0, max_iter=3).fit(V).components_ + 0.01).astype(dtype)
    expected = np.asarray(transform(V[:9].astype(dtype), h, beta_loss=beta), np.float64)
    for power in ENDS[dtype]:
        v = (V[:9] * 10.0**power).astype(dtype)
        w = unless_refused(
            "multiply V by a number that brings it near the V that H is of",
            lambda v=v: transform(v, h, beta_loss=beta),
        )
        if w is None:
            assert abs(power) > 17
            continue
        scaled = np.asarray(w, np.longdouble) / np.longdouble(10) ** power
        np.testing.assert_allclose((scaled @ h).astype(float), expected @ h, rtol=2e-3, atol=1e-4)


@pytest.mark.parametrize("loss", ["frobenius", "kullback-leibler"])
def test_a_faint_batch_of_a_stream_changes_nothing(loss: str) -> None:
    models = [NMF(3, beta_loss=loss, random_state=0) for _ in range(2)]
    for size in (1, 1e-30, 1e-12, 1):
        models[0].partial_fit((V[:20] * size).astype(np.float32))
        models[1].partial_fit((V[:20] * (size if size == 1 else 0)).astype(np.float32))
    first, second = (model.components_ for model in models)
    np.testing.assert_allclose(first, second, rtol=1e-2, atol=1e-3)
