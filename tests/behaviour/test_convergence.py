"""What a fit calls converged: 300 iterations of scikit-learn get no lower from there."""

import numpy as np
import pytest
from run_convergence import LOSSES, cases, continued, loss_of

from dask_nmf import nmf, transform
from dask_nmf.kernels.row_sums import residual

ROUNDING = 1e-11  # of ‖V‖²: what float32 leaves of factors
CASES = list(cases(rows=80, columns=24))


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("number", range(len(CASES)), ids=[case.name for case in CASES])
def test_nothing_much_is_to_be_had_where_a_fit_has_converged(number: int, loss: str) -> None:
    dtype = ("float32", "float64")[(number + LOSSES.index(loss)) % 2]
    fit = continued(CASES[number], loss, dtype, 1e-4)
    if fit.result.message.startswith("converged"):
        assert fit.gain < 2e-3 or fit.gain_of_v < ROUNDING
    else:
        assert fit.result.message.startswith("stopped after max_iter")


@pytest.mark.parametrize("loss", LOSSES)
def test_nothing_above_rounding_is_to_be_had_in_float32_at_a_tight_tolerance(loss: str) -> None:
    """Losses of float32 equations are told too low; those of exact ones that came next could not be lower."""
    fit = continued(CASES[5], loss, "float32", 1e-9)
    assert fit.result.message.startswith("converged")
    assert fit.gain < 1e-6 or fit.gain_of_v < ROUNDING / 10


@pytest.mark.parametrize("alike", [1e-2, 1e-3])
def test_rows_of_w_are_solved_where_components_are_nearly_alike(alike: float) -> None:
    rng = np.random.default_rng(0)
    h = rng.gamma(0.5, size=(5, 24)) + 0.01
    v, mixed = rng.gamma(0.5, size=(80, 5)) @ h, rng.random((3, 5)) @ h
    h = np.concatenate([h, mixed * (1 + alike * rng.random(mixed.shape))])
    w = np.asarray(transform(v, h, beta_loss=1))
    assert loss_of(v, w, h, "kullback-leibler") < 2e-10 * v.sum()  # 0 is to be had; it was 1e-7


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("loss", LOSSES)
def test_a_given_w_brings_back_a_component_that_h_lacks(loss: str, wide: bool) -> None:
    rng = np.random.default_rng(0)
    v = rng.random((60, 3)) @ rng.random((3, 12)) + 1e-3 * rng.random((60, 12))
    w, h = rng.random((60, 3)), rng.random((3, 12))
    h[1] = 0
    if wide:
        v, w, h = v.T, h.T, w.T
    assert nmf(v, 3, W=w, H=h, beta_loss=loss, tol=1e-6).relative_error < 2e-3  # it was .09


@pytest.mark.parametrize("wide", [False, True])
def test_the_error_that_is_told_is_right_near_rounding(wide: bool) -> None:
    rng = np.random.default_rng(0)
    v = (rng.random((300, 4)) @ rng.random((4, 40))).astype(np.float32)
    result = nmf(v.T if wide else v, 4, tol=1e-9, max_iter=500)
    w, h = (factor.compute().astype(np.float64) for factor in result)
    right = np.sqrt(residual((v.T if wide else v).astype(np.float64), w, h))
    rounding = float(np.finfo(np.float32).eps * np.linalg.norm(v))
    assert result.reconstruction_err == pytest.approx(right, rel=0.03, abs=rounding)
