"""Bootstrap samples of the rows of V, drawn by a hash of the number of each row, and spreads over samples."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dask_nmf import rng
from dask_nmf.kernels.blocks.masking import MaskedBlock
from dask_nmf.types import Array, Block, Orientation

BATCH = 512 * 1024  # entries of a block that are copied at once
BATCH_ROWS = 256  # the fewest rows of a batch


class Resample(NamedTuple):
    """A bootstrap sample of the rows of V, whose numbers of draws are Poisson numbers of mean 1.

    In place of as many draws from all rows as V has, no row needs to know of another one (Oza & Russell
    2001). The rows of V are those of blocks, or their columns.
    """

    seed: int
    orientation: Orientation

    def rows(self, first: int, last: int) -> NDArray[np.int64]:
        """Return the numbers of the rows of V in [first, last) that the sample has, as often as it does."""
        rows = np.arange(first, last)
        return np.repeat(rows, rng.poisson(self.seed, rng.Stream.BOOTSTRAP, rows))

    def is_empty(self, rows: int) -> bool:
        """Return whether the sample has none of the first ``rows`` rows."""
        return len(self.rows(0, rows)) == 0

    def of_block(self, block: Block, first: int) -> Block:
        """Return a copy of the sampled part of a block; ``first`` is the global number of its first row."""
        if not self.orientation.by_columns:
            return block[self.rows(first, first + block.shape[0]) - first]
        columns = self.rows(0, block.shape[1])
        if isinstance(block, MaskedBlock):
            return replace(block, v=block.v[:, columns])
        return block[:, columns]

    def of_factor(self, h: Array) -> Array:
        """Return the sampled part of the factor (k, columns) that blocks are given."""
        return h[:, self.rows(0, h.shape[1])] if self.orientation.by_columns else h


class Spread(NamedTuple):
    """The running spread of arrays of one shape, one for each bootstrap sample (Welford 1962)."""

    samples: int = 0
    mean: Array | float = 0.0
    squares: Array | float = 0.0  # Σ (x - mean)²

    def with_sample(self, x: Array) -> Spread:
        """Return the spread with one more array."""
        samples = self.samples + 1
        step = x - self.mean
        mean = self.mean + step / samples
        return Spread(samples, mean, self.squares + step * (x - mean))

    def merged(self, other: Spread) -> Spread:
        """Return the spread of both sets of arrays (Chan, Golub & LeVeque 1979)."""
        if not self.samples:
            return other
        samples, step = self.samples + other.samples, other.mean - self.mean
        mean = self.mean + step * (other.samples / samples)
        squares = self.squares + other.squares + step * step * (self.samples * other.samples / samples)
        return Spread(samples, mean, squares)

    @property
    def deviation(self) -> Array:
        """The standard deviation of each entry, float64; NaN for a single array."""
        return np.sqrt(np.asarray(self.squares, np.float64) / (self.samples - 1 or np.nan))


def iter_batches(block: Block) -> Iterator[slice]:
    """Yield the ranges of rows of a block that are copied at once."""
    rows, columns = block.shape
    step = max(BATCH_ROWS, BATCH // max(columns, 1))
    for first in range(0, rows, step):
        yield slice(first, min(first + step, rows))
