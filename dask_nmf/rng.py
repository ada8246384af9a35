"""Random numbers that belong to an entry, not to a block: a hash of (seed, stream, row, column).

An entry gets the same number under any chunking, order and number of workers.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

Numbers = NDArray[np.float64]


class Stream(IntEnum):
    """The streams of random numbers, one for each use, so that no two uses share numbers."""

    UNIFORM_ROWS = 0  # rows of a sample, drawn uniformly
    WEIGHTED_ROWS = 1  # rows of a sample, drawn by their norms
    W_FACTOR = 2
    H_FACTOR = 3
    HELD_OUT = 4  # entries that are held out
    STRATA = 5  # the order of the blocks of a sweep
    ROW_ORDER = 6  # the order of the rows in a block of a sweep
    DIRECTIONS = 7  # directions of the singular vectors of a start
    UNIFORM_COLUMNS = 8  # columns of a sample, drawn uniformly
    EXCHANGES = 9  # components that are exchanged in the search for a start
    CONSENSUS_ROWS = 10  # rows on which fits are compared
    BOOTSTRAP = 11  # how often a row belongs to a bootstrap sample


# P(x ≤ 0), P(x ≤ 1), … of a Poisson number x of mean 1; P(x > 18) is below 2⁻⁵³
_POISSON = np.exp(-1) * np.cumsum(1 / np.cumprod([1.0, *range(1, 19)]))
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Hash integers by the finaliser of splitmix64, an avalanching bijection (Steele, Lea & Flood 2014)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def uniform_at(seed: int, stream: int, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> Numbers:
    """Return uniform random numbers in (0, 1) for entries of a matrix, float64.

    Parameters
    ----------
    seed : any integer; its lower 64 bits are used.
    stream : a `Stream`.
    rows, columns : global indices that broadcast; the result has their common shape.
    """
    key = np.asarray([seed & 0xFFFFFFFFFFFFFFFF], np.uint64)
    key = _mix(_mix(key + _GOLDEN) + np.uint64(stream))
    by_row = _mix(key + rows.astype(np.uint64) * _GOLDEN)
    by_entry = _mix(by_row + (columns.astype(np.uint64) + np.uint64(1)) * _GOLDEN)
    return ((by_entry >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53


def uniform(seed: int, stream: int, rows: NDArray[np.int64], columns: int = 1) -> Numbers:
    """Return uniform numbers in (0, 1), (rows, columns), for global row indices and the first columns."""
    return uniform_at(seed, stream, rows[:, None], np.arange(columns))


def poisson(seed: int, stream: int, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return Poisson numbers of mean 1, (rows,), for global row indices."""
    return np.searchsorted(_POISSON, uniform(seed, stream, rows)[:, 0], side="right")


def normal(seed: int, stream: int, rows: NDArray[np.int64], columns: int) -> Numbers:
    """Return N(0, 1) numbers, (rows, columns), for global row indices and the first columns."""
    return np.asarray(ndtri(uniform(seed, stream, rows, columns)))


def half_normal(seed: int, stream: int, rows: NDArray[np.int64], columns: int) -> Numbers:
    """Return |N(0, 1)| numbers, (rows, columns), for global row indices and the first columns."""
    return np.asarray(ndtri(0.5 + 0.5 * uniform(seed, stream, rows, columns)))
