"""Rows drawn for bootstrap samples, and the spread of what is fitted to them."""

import numpy as np

from dask_nmf.kernels.blocks.resampling import Resample, Spread
from dask_nmf.types import Orientation


def test_the_draws_of_rows_are_poisson_numbers_of_mean_1_and_do_not_depend_on_the_cut() -> None:
    sample = Resample(5, Orientation.ROWS)
    rows = sample.rows(0, 100_000)
    np.testing.assert_array_equal(np.concatenate([sample.rows(0, 37), sample.rows(37, 100_000)]), rows)
    draws = np.bincount(np.bincount(rows, minlength=100_000))
    expected = np.exp(-1) / np.cumprod([1, 1, 2, 3, 4]) * 100_000
    np.testing.assert_allclose(draws[:5], expected, rtol=0.05)


def test_the_spread_is_the_standard_deviation() -> None:
    samples = 1e6 + np.random.default_rng(0).random((6, 3, 2))
    spread = Spread()
    for sample in samples:
        spread = spread.with_sample(sample)
    np.testing.assert_allclose(spread.deviation, samples.std(axis=0, ddof=1), rtol=1e-9)
