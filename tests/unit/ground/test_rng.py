"""Random numbers that belong to an entry."""

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from support.strategies import cuts, seeds

from dask_nmf import rng

ROWS = np.arange(5000)


@given(edges=cuts(200), seed=seeds, columns=st.integers(1, 5))
def test_any_cut_of_the_rows_gives_the_same_numbers(edges: tuple[int, ...], seed: int, columns: int) -> None:
    rows = np.arange(200)
    for numbers in (rng.uniform, rng.half_normal):
        parts = [numbers(seed, 1, part, columns) for part in np.split(rows, edges[1:-1])]
        np.testing.assert_array_equal(np.concatenate(parts), numbers(seed, 1, rows, columns))


@given(seed=seeds)
def test_more_columns_do_not_change_the_first(seed: int) -> None:
    rows = np.arange(10)
    np.testing.assert_array_equal(rng.uniform(seed, 0, rows, 3), rng.uniform(seed, 0, rows, 7)[:, :3])


@pytest.mark.parametrize("seed", [0, 1, -1, 2**63, 2**64 - 1])
def test_numbers_are_uniform(seed: int) -> None:
    numbers = rng.uniform(seed, 0, ROWS, 4)
    assert numbers.min() > 0
    assert numbers.max() < 1
    assert scipy.stats.kstest(numbers.ravel(), "uniform").pvalue > 1e-3
    assert np.abs(np.corrcoef(numbers.T) - np.eye(4)).max() < 0.05
    assert abs(np.corrcoef(numbers[1:, 0], numbers[:-1, 0])[0, 1]) < 0.05


def test_half_normal_numbers_are_half_normal() -> None:
    numbers = rng.half_normal(3, 2, ROWS, 2)
    assert numbers.min() > 0
    assert scipy.stats.kstest(numbers.ravel(), "halfnorm").pvalue > 1e-3


def test_seeds_and_streams_differ() -> None:
    kinds = [rng.uniform(seed, stream, ROWS)[:, 0] for seed in (0, 1, 2) for stream in range(4)]
    assert np.abs(np.corrcoef(kinds) - np.eye(len(kinds))).max() < 0.06
