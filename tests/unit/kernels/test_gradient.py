"""Gradient steps on a block, against loops in plain NumPy."""

from typing import Any

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st
from support.matrices import Array
from support.strategies import seeds

from dask_nmf.kernels import gradient
from dask_nmf.kernels.blocks.masked import Cells
from dask_nmf.kernels.gradient import SGDOptions


def stepped(factor: Array, slope: Array, how: SGDOptions, tilt: float) -> Array:
    """Rows of an extended factor after a step, by the formula."""
    factor = factor.copy()
    rate: Any = how.rate * tilt
    if how.adaptive:
        factor[:, -1] += np.mean((slope / how.unit**1.5) ** 2, axis=1)
        rate = how.rate * tilt / how.unit / np.sqrt(factor[:, -1:])
    factor[:, :-1] = np.maximum(factor[:, :-1] + rate * slope, 0)
    return factor


def by_loop(v: Array, w: Array, h: Array, batches: list[list[tuple[int, int]]], how: SGDOptions) -> float:
    """Minibatches of cells of v, all slopes of a batch from the values before it."""
    total = 0.0
    for batch in batches:
        slopes = np.zeros_like(w[:, :-1]), np.zeros_like(h[:, :-1])
        for i, j in batch:
            rest = v[i, j] - w[i, :-1] @ h[j, :-1]
            total += rest**2
            slopes[0][i] += rest * h[j, :-1] - how.w_l2 * w[i, :-1] - how.w_l1
            slopes[1][j] += rest * w[i, :-1] - how.h_l2 * h[j, :-1] - how.h_l1
        rows, columns = sorted({i for i, _ in batch}), sorted({j for _, j in batch})
        w[rows], h[columns] = (
            stepped(w[rows], slopes[0][rows], how, how.tilt),
            stepped(h[columns], slopes[1][columns], how, 1 / how.tilt),
        )
    return total


def factors(seed: int, dtype: Any = np.float64) -> tuple[Array, Array, Array]:
    random = np.random.default_rng(seed)
    v = random.random((9, 5)) * 3
    return v.astype(dtype), *(
        gradient.with_accumulator(random.random((size, 3)).astype(dtype)) for size in (9, 5)
    )


hows = st.builds(
    SGDOptions,
    rate=st.sampled_from([0.01, 0.1]),
    adaptive=st.booleans(),
    unit=st.sampled_from([0.5, 2.0]),
    w_l2=st.sampled_from([0.0, 0.1]),
    h_l2=st.sampled_from([0.0, 0.2]),
    w_l1=st.sampled_from([0.0, 0.05]),
    h_l1=st.sampled_from([0.0, 0.03]),
    batch=st.sampled_from([1, 2, 4, 100]),
    tilt=st.sampled_from([1.0, 0.5, 4.0]),
)


@given(seed=seeds, how=hows)
def test_batches_of_rows_are_those_of_the_formula(seed: int, how: SGDOptions) -> None:
    v, w, h = factors(seed)
    order = np.random.default_rng(seed).permutation(9)
    batches = [
        [(int(i), j) for i in order[a : a + how.batch] for j in range(5)] for a in range(0, 9, how.batch)
    ]
    expected = w.copy(), h.copy()
    total = by_loop(v, *expected, batches, how)
    for block in (v, scipy.sparse.csr_array(v)):
        found = w.copy(), h.copy()
        assert gradient.descend_rows(block, *found, order, how) == pytest.approx(total)
        for ours, theirs in zip(found, expected, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-10)


@given(seed=seeds, how=hows, share=st.sampled_from([0.0, 0.3, 1.0]))
def test_batches_of_cells_are_those_of_the_formula(seed: int, how: SGDOptions, share: float) -> None:
    v, w, h = factors(seed)
    random = np.random.default_rng(seed)
    kept = scipy.sparse.csr_array(v * (random.random(v.shape) < share))
    order = random.permutation(9)
    met = [(int(i), int(j)) for i in order for j in kept.indices[kept.indptr[i] : kept.indptr[i + 1]]]
    expected = w.copy(), h.copy()
    total = by_loop(v, *expected, [met[a : a + how.batch] for a in range(0, len(met), how.batch)], how)
    cells = Cells(kept.data, kept.data[:0], kept.indices, kept.indptr, 5)
    assert gradient.descend_cells(cells, w, h, order, how) == pytest.approx(total)
    for ours, theirs in zip((w, h), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-10)


@pytest.mark.parametrize("batch", [1, 3])
def test_float32_stays_float32(batch: int) -> None:
    v, w, h = factors(0, np.float32)
    how = SGDOptions(0.1, True, 1.0, 0.1, 0.1, 0.0, 0.0, batch)
    dense = scipy.sparse.csr_array(v)
    cells = Cells(dense.data, dense.data[:0], dense.indices, dense.indptr, 5)
    gradient.descend_rows(v, w, h, np.arange(9), how)
    gradient.descend_cells(cells, w, h, np.arange(9), how)
    assert w.dtype == h.dtype == np.float32
    assert np.isfinite(w).all()
    assert np.isfinite(h).all()
