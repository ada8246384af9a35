"""The consensus of clusters of several runs, compared with closed forms and simulations."""

from __future__ import annotations

import itertools
from math import isnan

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.cluster.hierarchy import average, cophenet, is_valid_linkage
from scipy.spatial.distance import squareform

from dask_nmf.quality import (
    agreement,
    ambiguous_share,
    consensus_matrix,
    cophenetic_correlation,
    dispersion,
    sample_rows,
)

random = np.random.default_rng(0)


def test_a_consensus_in_closed_form() -> None:
    """Three rows: the first two are together in all runs, the third one joins them in one of four."""
    matrix = consensus_matrix(np.array([[0, 0, 1], [1, 1, 0], [0, 0, 0], [2, 2, 5]]))
    np.testing.assert_array_equal(matrix, [[1, 1, 0.25], [1, 1, 0.25], [0.25, 0.25, 1]])
    assert dispersion(matrix) == pytest.approx((5 * 1 + 4 * 0.25) / 9)
    assert ambiguous_share(matrix) == pytest.approx(2 / 3)
    assert cophenetic_correlation(matrix) == pytest.approx(1)


def test_many_equal_distances_have_a_valid_tree() -> None:
    """Five runs on 51 rows, for which SciPy's tree has a cluster of 97."""
    runs = (
        *("hwttttttttttttttttttttttttttttthutrttttttttttttpttt", f"an{'i' * 29}asiw{'i' * 16}"),
        *(f"jn{'n' * 49}", f"gj{'j' * 49}", f"wc{'c' * 49}"),
    )
    labels = [np.array([ord(letter) for letter in run]) for run in runs]
    found = agreement(labels)
    distances = squareform(1 - found.matrix, checks=False)
    whole = average(np.rint(5 * distances))  # of whole numbers, the tree is valid
    assert not is_valid_linkage(average(distances))
    assert is_valid_linkage(whole)
    assert found.cophenetic == pytest.approx(cophenet(whole, distances)[0])
    assert sorted(found.order) == list(range(51))


def test_the_cophenetic_correlation_of_four_rows() -> None:
    """Average linkage joins rows 0 and 1 at .1, rows 2 and 3 at .3, and the pairs at .7, the mean."""
    distances = np.array([0.1, 0.4, 0.6, 0.8, 1.0, 0.3])  # 01 02 03 12 13 23
    expected = np.corrcoef(distances, [0.1, 0.7, 0.7, 0.7, 0.7, 0.3])[0, 1]
    assert cophenetic_correlation(1 - squareform(distances)) == pytest.approx(expected)


def test_runs_that_agree_are_stable_whatever_the_numbers_of_their_clusters() -> None:
    clusters = random.integers(0, 4, 60)
    renamed = [np.array(names)[clusters] for names in itertools.permutations(range(4))]
    found = agreement(renamed)
    assert found[2:5] == (1, 1, 0)
    assert found.relative_ambiguous == 0
    assert np.count_nonzero(np.diff(clusters[found.order])) == 3  # each cluster is in one piece


def test_unrelated_runs_are_as_ambiguous_as_chance() -> None:
    unrelated = [random.permutation(np.repeat(np.arange(3), (100, 60, 40))) for _ in range(10)]
    found = agreement(unrelated)
    assert found.relative_ambiguous == pytest.approx(1, abs=0.05)
    assert found.cophenetic < 0.6
    half = agreement([*unrelated[:2], *8 * [unrelated[0]]])
    assert half.relative_ambiguous < 0.7
    assert half.dispersion > found.dispersion


def test_ambiguous_is_above_the_lower_bound_and_up_to_the_upper_one() -> None:
    """F(.9) - F(.1): of ten runs, together in 0, 1, 5, 9 and 10 of them."""
    values = squareform(np.array([0, 1, 5, 9, 10, 0]) / 10) + np.eye(4)
    assert ambiguous_share(values) == pytest.approx(2 / 6)
    assert ambiguous_share(values, (0, 0.95)) == pytest.approx(3 / 6)


def test_nothing_can_be_said_of_one_run_or_one_row() -> None:
    for clusters in ([np.array([0, 1, 1])], [np.array([0]), np.array([1])]):
        assert all(isnan(value) for value in agreement(clusters)[2:])
    everything = agreement([np.zeros(5, int)] * 3)  # rank 1
    assert everything[2:5] == (1, 1, 0)
    assert isnan(everything.relative_ambiguous)


def test_runs_of_different_rows_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\[\(3,\), \(4,\)\]; give one cluster a row"):
        consensus_matrix([np.zeros(3), np.zeros(4)])
    with pytest.raises(ValueError, match="at least one run"):
        consensus_matrix([])


@given(st.lists(st.lists(st.integers(0, 3), min_size=6, max_size=6), min_size=2, max_size=6))
def test_the_agreement_of_any_runs(runs: list[list[int]]) -> None:
    found = agreement([np.array(run) for run in runs])
    expected = np.mean([[[a == b for b in run] for a in run] for run in runs], axis=0)
    np.testing.assert_allclose(found.matrix, expected)
    distances = squareform(1 - expected)
    if np.ptp(distances) > 0:
        assert found.cophenetic == pytest.approx(cophenet(average(distances), distances)[0])
    assert 0 <= found.dispersion <= 1
    assert sorted(found.order) == list(range(6))


@given(st.integers(1, 10**12), st.integers(0, 2**63), st.integers(1, 50))
def test_a_sample_has_distinct_rows_from_all_of_v(n_rows: int, seed: int, size: int) -> None:
    rows = sample_rows(n_rows, seed, size)
    assert len(rows) == min(n_rows, size)
    assert (np.diff(rows) > 0).all()
    assert 0 <= rows[0] <= rows[-1] < n_rows
    np.testing.assert_array_equal(rows, sample_rows(n_rows, seed, size))


def test_every_row_is_as_likely_in_a_sample() -> None:
    counts = np.bincount(np.concatenate([sample_rows(40, seed, 10) for seed in range(2000)]), minlength=40)
    assert abs(counts - 500).max() < 5 * np.sqrt(2000 * 0.25 * 0.75)
    assert not np.array_equal(sample_rows(10**6, 0), sample_rows(10**6, 1))
