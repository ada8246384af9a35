"""Kernels against scipy's solver, formulas and direct sums."""

import tracemalloc
from typing import Any

import numpy as np
import pytest
import scipy.optimize
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st
from support.matrices import Array, low_rank, sparse

from dask_nmf.errors import InvalidEntryError
from dask_nmf.kernels import least_squares, row_sums
from dask_nmf.kernels.linalg.shared_gram import LANES
from dask_nmf.kernels.summary.block_summary import summarize_block
from dask_nmf.types import Orientation

TYPES = (np.float32, np.float64)


def problem(rows: int, k: int, seed: int = 0, dtype: Any = np.float64) -> tuple[Array, Array, Array]:
    """A start, ``num`` and ``gram`` of a non-negative least-squares problem with zeros in its answer."""
    random = np.random.default_rng(seed)
    h = random.random((k, k + 12)) * (random.random((k, k + 12)) < 0.6)
    v = random.normal(0.2, 1, (rows, k + 12))
    start = random.random((rows, k))
    return start.astype(dtype), (v @ h.T).astype(dtype), (h @ h.T).astype(dtype)


def objective(x: Array, num: Array, gram: Array) -> Array:
    x, num, gram = (part.astype(np.float64) for part in (x, num, gram))
    return 0.5 * np.einsum("ij,jk,ik->i", x, gram, x) - np.einsum("ij,ij->i", x, num)


@pytest.mark.parametrize("make", ["dense", "csr"])
@pytest.mark.parametrize(("dtype", "rounding"), [(np.float64, 1e-8), (np.float32, 1e-3)])
@pytest.mark.parametrize(("rows", "k"), [(1, 1), (5, 3), (LANES, 7), (2 * LANES + 9, 12)])
def test_weights_are_those_of_scipy(rows: int, k: int, dtype: Any, rounding: float, make: str) -> None:
    v = sparse(rows, k + 12, density=0.6, dtype=dtype)
    h = np.random.default_rng(3).random((k, k + 12)).astype(dtype)
    w = least_squares.solve_w(scipy.sparse.csr_array(v) if make == "csr" else v, h, 1e-12)
    expected = [scipy.optimize.nnls(h.T.astype(np.float64), row.astype(np.float64))[0] for row in v]
    assert w.dtype == dtype
    np.testing.assert_allclose(w, expected, atol=rounding * np.max(expected))


@given(
    rows=st.integers(1, 2 * LANES + 1), k=st.integers(1, 6), sweeps=st.integers(1, 5), seed=st.integers(0, 99)
)
def test_refit_never_raises_the_objective(rows: int, k: int, sweeps: int, seed: int) -> None:
    start, num, gram = problem(rows, k, seed)
    x = least_squares.refit(start, num, gram, 1e-2, sweeps)
    assert x.min() >= 0
    before = objective(start, num, gram)
    assert np.all(objective(x, num, gram) <= before + 1e-12 * (1 + np.abs(before)))


@pytest.mark.parametrize("dtype", TYPES)
@given(seed=st.integers(0, 99), rows=st.integers(1, 3 * LANES), cut=st.integers(0, 3 * LANES))
def test_a_row_does_not_see_its_neighbours(dtype: Any, seed: int, rows: int, cut: int) -> None:
    parts = problem(rows, 5, seed, dtype)
    start, num, gram = parts
    whole = least_squares.refit(start, num, gram, 1e-3)
    pieces = [least_squares.refit(start[a], num[a], gram, 1e-3) for a in (slice(cut), slice(cut, None))]
    np.testing.assert_array_equal(np.concatenate(pieces), whole)
    order = np.random.default_rng(seed).permutation(rows)
    np.testing.assert_array_equal(least_squares.refit(start[order], num[order], gram, 1e-3), whole[order])


@pytest.mark.parametrize("dtype", TYPES)
def test_a_dead_component_is_left_alone(dtype: Any) -> None:
    start, num, gram = problem(50, 4, dtype=dtype)
    gram[2], gram[:, 2], num[:, 2] = 0, 0, 0
    x = least_squares.refit(start, num, gram, 1e-4)
    np.testing.assert_array_equal(x[:, 2], start[:, 2])
    rest = [0, 1, 3]
    np.testing.assert_allclose(
        x[:, rest],
        least_squares.refit(start[:, rest], num[:, rest], gram[np.ix_(rest, rest)], 1e-4),
        rtol=1e-2,
        atol=1e-4,
    )


@pytest.mark.parametrize("dtype", TYPES)
def test_equal_components_share_what_one_would_have(dtype: Any) -> None:
    h = np.ones((3, 8), dtype)
    v = np.arange(16, dtype=dtype).reshape(2, 8)
    w = least_squares.solve_w(v, h, 1e-6)
    np.testing.assert_allclose(w.sum(axis=1), v.mean(axis=1), rtol=1e-5)


@pytest.mark.parametrize(
    ("scale", "dtype"),
    [(0, np.float32), (1e-12, np.float32), (1e12, np.float32), (0, np.float64), (1e-100, np.float64)],
)
def test_any_scale_of_h_is_solved(scale: float, dtype: Any) -> None:
    v, h = low_rank(20, 15, 3, dtype=dtype), low_rank(3, 15, 3, dtype=dtype)
    w = least_squares.solve_w(v, h * dtype(scale), 1e-6)
    assert np.isfinite(w).all()
    np.testing.assert_allclose(
        w * dtype(scale), (scale > 0) * least_squares.solve_w(v, h, 1e-6), rtol=1e-2, atol=1e-3
    )


def test_start_is_not_changed() -> None:
    start, num, gram = problem(5, 3)
    before = start.copy()
    least_squares.refit(start, num, gram, 1e-4)
    np.testing.assert_array_equal(start, before)


@pytest.mark.parametrize("dtype", TYPES)
def test_multiply_is_lee_and_seung(dtype: Any) -> None:
    x, num, gram = (np.abs(part) for part in problem(7, 3, dtype=dtype))
    once = x * num / (x @ gram + dtype(0.1))
    np.testing.assert_allclose(least_squares.mu_update(x, num, gram, 0.1, 1), once, rtol=1e-6)
    twice = once * num / (once @ gram + dtype(0.1))
    np.testing.assert_allclose(least_squares.mu_update(x, num, gram, 0.1, 2), twice, rtol=1e-6)
    assert least_squares.mu_update(x, num, gram, 0.1, 2).dtype == dtype


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("make", [np.asarray, np.asfortranarray, scipy.sparse.csr_array])
def test_sums_are_the_direct_ones(make: Any, dtype: Any) -> None:
    v, w, h = sparse(600, 9, dtype=dtype), low_rank(600, 3, 2, dtype=dtype), low_rank(3, 9, 2, dtype=dtype)
    totals = row_sums.block_sums(make(v), w, h)
    wide = [part.astype(np.float64) for part in (v, w, h)]
    expected = float(np.sum((wide[0] - wide[1] @ wide[2]) ** 2))
    rounding = 1e-4 if dtype == np.float32 else 1e-10
    assert totals.num.dtype == totals.gram.dtype == np.float64
    np.testing.assert_allclose(totals.num, wide[1].T @ wide[0], rtol=rounding)
    np.testing.assert_allclose(totals.gram, wide[1].T @ wide[1], rtol=1e-10)
    assert totals.residual == pytest.approx(expected, rel=rounding)
    sumsq = float(np.sum(wide[0] ** 2))
    assert row_sums.expanded_loss(sumsq, totals, h) == pytest.approx(expected, rel=rounding)
    assert np.isnan(row_sums.block_sums(make(v), w).residual)


def test_sums_add_over_rows() -> None:
    v, w, h = sparse(30, 9), low_rank(30, 3, 2), low_rank(3, 9, 2)
    added = row_sums.block_sums(v[:11], w[:11], h) + row_sums.block_sums(v[11:], w[11:], h)
    for one, other in zip(added, row_sums.block_sums(v, w, h), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12)


def test_residual_of_an_exact_product_does_not_cancel() -> None:
    w, h = low_rank(300, 4, 2, dtype=np.float32), low_rank(4, 50, 2, dtype=np.float32)
    v = w @ h
    assert row_sums.residual(v, w, h) <= 1e-12 * float(np.sum(v.astype(np.float64) ** 2))


BLOCKS = {
    "C": np.ascontiguousarray,
    "F": np.asfortranarray,
    "strided": lambda v: np.repeat(v, 2, axis=1)[:, ::2],
    "csr": scipy.sparse.csr_array,
}
blocks = pytest.mark.parametrize("make", BLOCKS.values(), ids=BLOCKS)


@blocks
@pytest.mark.parametrize("dtype", TYPES)
def test_measures_of_a_block(dtype: Any, make: Any) -> None:
    v = sparse(40, 11, dtype=dtype)
    v[7] = 0
    found = summarize_block(make(v))
    wide = v.astype(np.float64)
    assert found.total == pytest.approx(wide.sum())
    np.testing.assert_allclose(found.row_norms, (wide**2).sum(axis=1))
    assert found.stored == (np.count_nonzero(v) if make is scipy.sparse.csr_array else v.size)
    assert found.invalid is None


@blocks
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, -1e-30])
@pytest.mark.parametrize("at", [(0, 0), (6, 10), (39, 3)])
def test_the_first_bad_entry_is_found(at: tuple[int, int], value: float, make: Any) -> None:
    v = sparse(40, 11)
    v[at] = value
    v[-1, -1] = -5
    bad = summarize_block(make(v)).invalid
    assert bad is not None
    np.testing.assert_equal((bad.row, bad.column, bad.value), (*at, value))


@blocks
def test_negative_zero_is_zero(make: Any) -> None:
    v = np.full((3, 4), -0.0)
    v[0, 0] = 1
    assert summarize_block(make(v)).invalid is None


def test_a_block_of_no_entries_is_measured() -> None:
    found = summarize_block(scipy.sparse.csr_array((5, 4)))
    assert (found.total, found.stored, found.invalid) == (0, 0, None)
    np.testing.assert_array_equal(found.row_norms, np.zeros(5))


def test_a_bad_entry_names_position_value_and_cure() -> None:
    negative = "Negative values in data: V has"  # as scikit-learn's own checks ask
    assert (
        str(InvalidEntryError(3, 4, -0.5))
        == f"{negative} -0.5 at row 3, column 4; NMF takes entries >= 0: shift or clip V"
    )
    assert "replace or drop" in str(InvalidEntryError(3, 4, np.nan))
    assert str(InvalidEntryError(3, 4, -1).at(10)).startswith(f"{negative} -1 at row 13, column 4")
    assert str(InvalidEntryError(3, 4, -1).at(10).turned(Orientation.COLUMNS)).startswith(
        f"{negative} -1 at row 4, column 13"
    )


@pytest.mark.parametrize(
    "make", [np.asarray, np.asfortranarray, scipy.sparse.csr_array], ids=["C", "F", "csr"]
)
@pytest.mark.parametrize("what", ["constant", "random"])
def test_sums_down_long_columns_are_those_of_float64(what: str, make: Any) -> None:
    rows = 400_000
    random = np.random.default_rng(0)
    v, w = (
        np.full((rows, 2), size, np.float32) if what == "constant" else random.random((rows, 2), np.float32)
        for size in (0.1, 0.3)
    )
    h = np.full((2, 2), 0.2, np.float32)
    totals = row_sums.block_sums(make(v), w, h)
    wide = [part.astype(np.float64) for part in (v, w, h)]
    np.testing.assert_allclose(totals.num, wide[1].T @ wide[0], rtol=1e-5)
    np.testing.assert_allclose(row_sums.block_sums(make(v), w).num, totals.num, rtol=1e-5)
    assert totals.residual == pytest.approx(float(np.sum((wide[0] - wide[1] @ wide[2]) ** 2)), rel=1e-5)


def test_the_residual_of_a_wide_row_is_added_up_in_float64() -> None:
    v, w, h = np.full((1, 2_000_000), 0.1, np.float32), np.zeros((1, 1), np.float32), np.zeros((1, 2_000_000))
    expected = 2_000_000 * float(np.float32(0.1)) ** 2
    assert row_sums.residual(v, w, h.astype(np.float32)) == pytest.approx(expected, rel=1e-9)


def test_the_residual_of_csr_copies_no_panel() -> None:
    v = scipy.sparse.random_array((20_000, 500), density=0.1, format="csr", dtype=np.float32, rng=0)
    w, h = np.ones((20_000, 2), np.float32), np.full((2, 500), 0.05, np.float32)
    row_sums.residual(v, w, h)
    tracemalloc.start()
    found = row_sums.residual(v, w, h)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < v.data.nbytes / 4
    assert found == pytest.approx(float(np.sum((v.toarray().astype(float) - 0.1) ** 2)), rel=1e-6)
