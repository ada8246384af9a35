"""Fits with the other losses: one contract for every solver, loss and kind of source."""

from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st
from support.grids import pairwise
from support.losses import LOSSES, RANK, SHAPES, WAYS, counts, divergence, matrix, positive, ways
from support.matrices import SOURCES, Array
from support.strategies import chunkings, few

from dask_nmf import nmf
from dask_nmf.errors import InvalidEntryError

pytestmark = pytest.mark.usefixtures("several_panels")
shapes = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
kl = pytest.mark.parametrize("solver", ["hals", "mu"])


@pairwise(
    {
        "solver, loss": WAYS,
        "kind": ["numpy", "csr_array", "dask csr_array", "csr in zarr", "zarr v3"],
        "shape": SHAPES,
    }
)
def test_contract(solver: str, loss: Any, kind: str, shape: tuple[int, int], tmp_path: Path) -> None:
    v = matrix(loss, shape)
    result = nmf(SOURCES[kind](v, tmp_path / "v"), RANK, solver=solver, beta_loss=loss, max_iter=6, tol=0)
    w, h = dask.compute(result.W, result.H)
    assert min(w.min(), h.min()) >= 0
    reached = divergence(v, w, h, loss)
    assert result.reconstruction_err**2 / 2 == pytest.approx(reached, rel=1e-9)
    flat = divergence(v, np.full((shape[0], 1), v.mean()), np.ones((1, shape[1])), loss)
    assert result.relative_error == pytest.approx(np.sqrt(reached / flat))
    assert np.all(np.diff(result.error_history) <= 1e-9)
    assert result.relative_error <= result.error_history[-1] * (1 + 1e-9)


@shapes
@kl
def test_sparse_dense_and_any_chunking_are_the_same(solver: str, shape: tuple[int, int]) -> None:
    v = counts(shape)
    options: dict[str, Any] = {"solver": solver, "beta_loss": 1, "max_iter": 5, "tol": 0}
    expected = dask.compute(*nmf(v, RANK, **options))

    @few
    @given(chunks=chunkings(shape), make=st.sampled_from([np.asarray, scipy.sparse.csr_array]))
    def check(chunks: Any, make: Any) -> None:
        source = da.from_array(v, chunks=chunks).map_blocks(make, dtype=v.dtype, meta=make(np.empty((0, 0))))
        for ours, theirs in zip(dask.compute(*nmf(source, RANK, **options)), expected, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-9)

    check()


@shapes
@pytest.mark.parametrize("loss", LOSSES)
def test_mu_follows_the_formula(loss: Any, shape: tuple[int, int]) -> None:
    v, beta = positive(shape), LOSSES[loss]
    gamma = {0.5: 1 / 1.5, 0.0: 0.5, 3.0: 0.5}.get(beta, 1.0)
    random = np.random.default_rng(1)
    w, h = random.random((shape[0], RANK)) + 0.1, random.random((RANK, shape[1])) + 0.1
    given_w, given_h, on_w, on_h = w, h, 0.02 * shape[1], 0.01 * shape[0]
    for _ in range(3):
        y = w @ h
        w = w * (v * y ** (beta - 2) @ h.T / (y ** (beta - 1) @ h.T + on_w * (0.3 + 0.7 * w))) ** gamma
        y = w @ h
        h = h * (w.T @ (v * y ** (beta - 2)) / (w.T @ y ** (beta - 1) + on_h * (0.3 + 0.7 * h))) ** gamma
    start: dict[str, Any] = {"init": "custom", "W": given_w, "H": given_h, "max_iter": 3, "tol": 0}
    result = nmf(v, RANK, solver="mu", beta_loss=loss, alpha_W=0.02, alpha_H=0.01, l1_ratio=0.3, **start)
    for ours, theirs in zip(dask.compute(result.W, result.H), (w, h), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-10)


@shapes
@pytest.mark.parametrize("penalty", [{}, {"alpha_W": 0.05, "alpha_H": 0.01, "l1_ratio": 0.5}], ids=str)
def test_a_converged_fit_fulfils_the_conditions_of_a_minimum(
    penalty: dict[str, float], shape: tuple[int, int]
) -> None:
    v = counts(shape)
    result = nmf(v, RANK, beta_loss=1, tol=1e-12, max_iter=1000, **penalty)
    w, h = dask.compute(result.W, result.H)
    ratio = 1 - np.where(v > 0, v / np.maximum(w @ h, 1e-300), 0)
    on_w, l1 = penalty.get("alpha_W", 0), penalty.get("l1_ratio", 0)
    on_h = penalty.get("alpha_H", on_w)
    slopes = (
        ratio @ h.T + shape[1] * on_w * (l1 + (1 - l1) * w),
        w.T @ ratio + shape[0] * on_h * (l1 + (1 - l1) * h),
    )
    for factor, slope in zip((w, h), slopes, strict=True):
        assert np.abs(np.minimum(factor, slope / v.sum() * factor.sum())).max() < 2e-3


@shapes
def test_what_explains_no_entry_goes_to_zero(shape: tuple[int, int]) -> None:
    """A step of Newton's has no curvature there; left alone, such entries made a loss that never ended."""
    rng = np.random.default_rng(0)
    v = rng.poisson(0.003 * (rng.gamma(0.5, size=(100, 6)) @ rng.gamma(0.5, size=(6, 900)))).astype(float)
    v = v if shape[0] < shape[1] else v.T
    result = nmf(scipy.sparse.csr_array(v), 12, beta_loss=1, random_state=0)
    w, h = dask.compute(result.W, result.H)
    there = (v > 0).astype(float)
    assert not w[(there @ (h > 0).T) == 0].any()
    assert not h[((w > 0).T @ there) == 0].any()


@shapes
@ways
def test_missing_entries_and_weights(solver: str, loss: Any, shape: tuple[int, int]) -> None:
    v, seen = positive(shape), np.random.default_rng(0).random(shape) < 0.8
    holes, few = np.where(seen, v, np.nan), scipy.sparse.csr_array(np.where(seen, v, 0))
    options: dict[str, Any] = {"solver": solver, "beta_loss": loss, "max_iter": 4, "tol": 0}
    results = [
        nmf(holes, RANK, missing="nan", **options),
        nmf(few, RANK, missing="unstored", **options),
        nmf(v, RANK, weights=seen.astype(float), **options),
    ]
    w, h = dask.compute(results[0].W, results[0].H)
    for other in results[1:]:
        np.testing.assert_allclose(other.W.compute() @ other.H.compute(), w @ h, rtol=1e-6)
    terms = sum(
        divergence(v[i : i + 1, j : j + 1], w[i : i + 1], h[:, j : j + 1], loss) for i, j in np.argwhere(seen)
    )
    assert results[0].reconstruction_err ** 2 / 2 == pytest.approx(terms, rel=1e-8)


@kl
def test_float32_stays_float32_and_is_close(solver: str) -> None:
    v = counts((60, 25), np.float32)
    options: dict[str, Any] = {"solver": solver, "beta_loss": 1, "max_iter": 5, "tol": 0}
    result, wide = nmf(v, RANK, **options), nmf(v.astype(np.float64), RANK, **options)
    assert result.W.dtype == result.H.dtype == np.float32
    assert result.reconstruction_err == pytest.approx(wide.reconstruction_err, rel=1e-3)


@kl
@pytest.mark.parametrize("factor", [1e-4, 1e4])
def test_scale_of_v_is_only_a_scale(factor: float, solver: str) -> None:
    v = counts((60, 25))
    one, other = (nmf(c * v, RANK, solver=solver, beta_loss=1, max_iter=5, tol=0) for c in (1, factor))
    assert other.relative_error == pytest.approx(one.relative_error, rel=1e-6)
    np.testing.assert_allclose(other.W @ other.H, factor * (one.W @ one.H), rtol=1e-5)


@kl
def test_empty_rows_columns_and_matrices(solver: str) -> None:
    v = counts((60, 25))
    v[[0, 30]], v[:, [4, 24]] = 0, 0
    result = nmf(v, RANK, solver=solver, beta_loss=1, max_iter=20)
    w, h = dask.compute(result.W, result.H)
    assert not w[[0, 30]].any()
    assert (w @ h)[:, [4, 24]].max() < 1e-4
    nothing = nmf(np.zeros((20, 10)), 2, solver=solver, beta_loss=1)
    assert nothing.relative_error == 0
    assert nmf(np.full((20, 10), 3.0), 2, solver=solver, beta_loss=1).reconstruction_err < 1e-3


@shapes
@kl
def test_a_run_goes_on_bit_for_bit(solver: str, shape: tuple[int, int], tmp_path: Path) -> None:
    v = counts(shape)
    options: dict[str, Any] = {"solver": solver, "beta_loss": 1, "tol": 0}
    whole = nmf(v, RANK, max_iter=8, store=tmp_path / "whole.zarr", **options)

    def stop(step: Any) -> None:
        if step.number == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        nmf(v, RANK, max_iter=8, store=tmp_path / "part.zarr", callback=stop, **options)
    again = nmf(v, RANK, max_iter=8, store=tmp_path / "part.zarr", **options)
    for ours, theirs in zip(dask.compute(*again), dask.compute(*whole), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(("solver", "shape"), [("hals", SHAPES["tall"]), ("mu", SHAPES["wide"])])
def test_a_cluster_gives_the_same(
    solver: str, shape: tuple[int, int], request: pytest.FixtureRequest
) -> None:
    v = counts(shape)
    options: dict[str, Any] = {"solver": solver, "beta_loss": 1, "max_iter": 4, "tol": 0}
    here = dask.compute(*nmf(v, RANK, **options))
    request.getfixturevalue("client")
    there = dask.compute(*nmf(v, RANK, **options))
    for ours, theirs in zip(here, there, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12)


@kl
def test_held_out_entries_end_the_fit(solver: str) -> None:
    v = counts((200, 40))
    options: dict[str, Any] = {"solver": solver, "beta_loss": 1, "validation_fraction": 0.2}
    result = nmf(v, 15, max_iter=200, **options)
    assert "held out" in result.message
    assert 0 < result.validation_error < np.inf


@pytest.mark.parametrize(
    ("v", "options", "words"),
    [
        (counts((20, 10)), {"solver": "mu", "beta_loss": "itakura-saito"}, "β ≤ 0 takes entries > 0"),
        (counts((20, 10)), {"beta_loss": 0.5}, "take solver 'mu'"),
        (counts((20, 10)), {"solver": "sgd", "beta_loss": 1}, "take solver 'mu'"),
        (counts((20, 10)), {"solver": "mu", "beta_loss": 1, "delta": 1.0}, "delta"),
        (counts((20, 10)), {"beta_loss": "poisson"}, "frobenius, kullback-leibler, itakura-saito"),
        (counts((20, 10)), {"l1_ratio": 2}, "l1_ratio"),
        (counts((20, 10)) - 1, {"beta_loss": 1}, "NMF takes entries >= 0"),
        (np.where(counts((20, 10)) > 2, np.nan, 1.0), {"beta_loss": 1}, "nan"),
    ],
)
def test_what_makes_no_sense_is_refused(v: Array, options: dict[str, Any], words: str) -> None:
    with pytest.raises((ValueError, InvalidEntryError), match=words):
        nmf(v, RANK, **options)
