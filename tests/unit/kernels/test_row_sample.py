"""The first read: measures and a sample of rows that do not depend on the cut, and no bias."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st
from support.matrices import Array, sparse
from support.strategies import cuts, seeds

from dask_nmf.kernels.summary import row_sample
from dask_nmf.kernels.summary.row_sample import SHARE, STRATA, Candidates, SampleSpec, Summary

ROWS = 300


def heavy_tailed(rows: int = ROWS, ordered: bool = False, seed: int = 0) -> Array:
    """Rows of very unequal norms, some of them zero."""
    random = np.random.default_rng(seed)
    scale = random.pareto(1.1, rows) + 1e-3
    scale[::17] = 0
    v = random.random((rows, 6)) * (np.sort(scale) if ordered else scale)[:, None]
    return v / np.sqrt((v**2).sum())


def read(v: Any, edges: tuple[int, ...], draw: SampleSpec) -> Summary:
    return row_sample.merge_summaries(
        [row_sample.summarize_panel(v[a:b], a, draw) for a, b in pairwise(edges)], draw
    )


def dense(block: Any) -> Array:
    return block.toarray() if scipy.sparse.issparse(block) else block


@pytest.mark.parametrize("make", [np.asarray, scipy.sparse.csr_array], ids=["dense", "csr"])
@given(edges=cuts(ROWS), seed=seeds, size=st.sampled_from([0, 1, 20, 150, 299, 300, 1000]))
def test_any_cut_gives_the_same_sample(make: Any, edges: tuple[int, ...], seed: int, size: int) -> None:
    v, draw = make(heavy_tailed()), SampleSpec(ROWS, size, seed)
    whole, cut = row_sample.summarize_panel(v, 0, draw), read(v, edges, draw)
    np.testing.assert_array_equal(cut.candidates.rows, whole.candidates.rows)
    np.testing.assert_array_equal(cut.candidates.keys, whole.candidates.keys)
    np.testing.assert_array_equal(
        dense(row_sample.draw_sample(cut.candidates, draw)),
        dense(row_sample.draw_sample(whole.candidates, draw)),
    )
    assert (cut.stored, cut.empty_rows, cut.invalid) == (whole.stored, whole.empty_rows, None)
    assert (cut.total, cut.sumsq) == pytest.approx((whole.total, whole.sumsq), rel=1e-12)


@given(edges=cuts(ROWS))
def test_merging_merged_parts_is_merging_all(edges: tuple[int, ...]) -> None:
    v, draw = heavy_tailed(), SampleSpec(ROWS, 40, 3)
    halves = [read(v, tuple(e for e in edges if e <= 150) + ((150,) if 150 not in edges else ()), draw)]
    halves.append(row_sample.merge_summaries([row_sample.summarize_panel(v[150:], 150, draw)], draw))
    np.testing.assert_array_equal(
        row_sample.merge_summaries(halves, draw).candidates.rows,
        row_sample.summarize_panel(v, 0, draw).candidates.rows,
    )


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("size", [8, 40])
def test_sample_is_unbiased(size: int, ordered: bool) -> None:
    v = heavy_tailed(ordered=ordered)
    seen = np.asarray([second_moment(v, size, seed) for seed in range(600)])
    error = seen.std(axis=0) / np.sqrt(len(seen))
    assert np.all(np.abs(seen.mean(axis=0) - v.T @ v) < 4.5 * error + 1e-12)


def second_moment(v: Array, size: int, seed: int) -> Array:
    draw = SampleSpec(len(v), size, seed)
    sample = row_sample.draw_sample(row_sample.summarize_panel(v, 0, draw).candidates, draw)
    return sample.T @ sample


@settings(max_examples=60)
@given(data=st.data(), rows=st.integers(2, 200), seed=st.integers(0, 99))
def test_threshold_of_a_row_is_set_by_the_other_rows(data: st.DataObject, rows: int, seed: int) -> None:
    draw = SampleSpec(rows, data.draw(st.integers(0, rows - 1)), 0)
    keys = np.random.default_rng(seed).exponential(size=rows)
    row = data.draw(st.integers(0, rows - 1))
    thresholds = []
    for key in (keys[row], 0.0, 1e9, data.draw(st.floats(1e-3, 4))):
        keys[row] = key
        drawn, threshold = row_sample._by_key(Candidates(np.arange(rows), keys, keys, keys), draw)
        thresholds.append(threshold[row])
        assert drawn[row] == (key < threshold[row])
    assert len(set(thresholds)) == 1


def test_half_by_norm_varies_less_than_uniform() -> None:
    v = heavy_tailed()
    trace = [np.trace(second_moment(v, 40, seed)) for seed in range(200)]
    uniform = [
        np.sum(v[np.random.default_rng(seed).random(ROWS) < 40 / ROWS] ** 2) * ROWS / 40
        for seed in range(200)
    ]
    assert np.std(trace) < 0.3 * np.std(uniform)


def test_sample_has_about_the_size_that_was_asked_for() -> None:
    v = heavy_tailed(20_000)
    sizes = []
    for seed in range(5):
        draw = SampleSpec(20_000, 1000, seed)
        sizes.append(len(row_sample.draw_sample(row_sample.summarize_panel(v, 0, draw).candidates, draw)))
    assert 700 < np.mean(sizes) < 1100


@pytest.mark.parametrize("size", [ROWS, 10 * ROWS])
@pytest.mark.parametrize("make", [np.asarray, scipy.sparse.csr_array])
def test_a_sample_of_all_rows_is_v(make: Any, size: int) -> None:
    v, draw = make(heavy_tailed()), SampleSpec(ROWS, size, 0)
    sample = row_sample.draw_sample(row_sample.summarize_panel(v, 0, draw).candidates, draw)
    np.testing.assert_array_equal(dense(sample), dense(v))


@pytest.mark.parametrize("make", [np.asarray, scipy.sparse.csr_array])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_zero_rows_are_no_trouble(dtype: Any, make: Any) -> None:
    v, draw = make(np.zeros((ROWS, 4), dtype)), SampleSpec(ROWS, 40, 0)
    summary = read(v, (0, 10, 200, ROWS), draw)
    assert (summary.sumsq, summary.empty_rows) == (0, ROWS)
    sample = row_sample.draw_sample(summary.candidates, draw)
    assert sample.dtype == dtype
    assert dense(sample).sum() == 0


def test_a_panel_hands_on_a_bounded_number_of_rows() -> None:
    v = heavy_tailed(20_000)
    draw = SampleSpec(20_000, 400, 0)
    most = STRATA * (draw.stratum_candidates + 1) + 2 * draw.size
    assert draw.stratum_candidates == -(-SHARE * 400 // (2 * STRATA))
    assert len(row_sample.summarize_panel(v, 0, draw).candidates.rows) <= most


def test_one_row_that_outweighs_all_others_is_drawn() -> None:
    v = np.full((ROWS, 3), 1e-6)
    v[123] = 1
    for seed in range(20):
        draw = SampleSpec(ROWS, 20, seed)
        sample = row_sample.draw_sample(row_sample.summarize_panel(v, 0, draw).candidates, draw)
        assert sample.max() == pytest.approx(1, rel=1e-3)


def test_measures_are_the_direct_ones() -> None:
    v = sparse(ROWS, 9)
    v[5] = 0
    summary = read(scipy.sparse.csr_array(v), (0, 100, ROWS), SampleSpec(ROWS, 10, 0))
    assert summary.total == pytest.approx(v.sum())
    assert summary.sumsq == pytest.approx((v**2).sum())
    assert summary.stored == np.count_nonzero(v)
    assert summary.empty_rows == np.count_nonzero(~v.any(axis=1))
