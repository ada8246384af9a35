"""Whether products that BLAS takes together have the bits that each has alone.

BLAS works on tiles. A column of a product has the same bits wherever it stands if all kinds of tiles, also
those at the edges, add in one order. OpenBLAS has such tiles for some processors, dtypes and orders, and not
for others, and no BLAS promises anything: this module tries. Small products take other routines, so nothing
is said of them.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dask_nmf.types import Array

SMALL = 10**6  # multiplications: up to here, OpenBLAS may use routines for small matrices
TRIALS = 12
RANKS = 8  # factors of a trial, with 2 to `MOST_RANK` components each
MOST_RANK = 32
ENTRIES = 1.05 * SMALL / 2  # of a trial's block, the least for which a product of rank 2 is not small


class SameBits(NamedTuple):
    """Whether the products of several factors have the bits that each has alone."""

    right: bool  # V Hᵀ
    left: bool  # WᵀV


@cache
def same_bits(dtype: np.dtype[np.floating], by_column: bool) -> SameBits:
    """Return what `SameBits` says in this process of blocks of a dtype, stored by rows or by columns.

    Products of random blocks are compared: with so many of them, of all kinds of shapes, a difference cannot
    hide. It takes about 0.1 s.
    """
    random, right, left = np.random.default_rng(0), True, True
    for trial in range(TRIALS):
        v = _random_block(random, trial, dtype, by_column)
        ranks = random.integers(2, MOST_RANK, RANKS)
        edges = np.cumsum(ranks)[:-1]
        h, w = (random.random((ranks.sum(), side), dtype) for side in v.shape[::-1])
        right = right and _equal(v @ h.T, [v @ part.T for part in np.split(h, edges)], edges, 1)
        w = np.ascontiguousarray(w.T)
        alone = [np.ascontiguousarray(part).T @ v for part in np.split(w, edges, axis=1)] if left else []
        left = left and _equal(w.T @ v, alone, edges, 0)
        if not (right or left):
            break
    return SameBits(right, left)


def _random_block(
    random: np.random.Generator, trial: int, dtype: np.dtype[np.floating], by_column: bool
) -> Array:
    """Return a random block of any form, wide and tall by turns."""
    few = int(np.exp(random.uniform(*np.log((30, 1000)))))
    shape = (few, int(ENTRIES / few) + int(random.integers(1, 50)))
    shape = shape[::-1] if trial % 2 else shape
    return random.random(shape[::-1], dtype).T if by_column else random.random(shape, dtype)


def _equal(together: Array, alone: list[Array], edges: NDArray[np.int64], axis: int) -> bool:
    parts = np.split(together, edges, axis=axis)
    return all(np.array_equal(part, one) for part, one in zip(parts, alone, strict=True))
