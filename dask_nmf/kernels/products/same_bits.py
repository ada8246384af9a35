"""Whether products that BLAS takes together have the bits that each has alone.

BLAS works on tiles. A column of a product has the same bits wherever it stands if all kinds of tiles, also
those at the edges, add in one order. OpenBLAS has such tiles for some processors, dtypes and orders, and not
for others, and no BLAS promises anything: this module tries. What is said holds for products like those that
are tried, see `is_tried`: small products take other routines, and in wide ones the order of additions
changes (in OpenBLAS's float64 beyond 192 columns, on processors with AVX-512).
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dask_nmf.types import Array

SMALL = 10**6  # multiplications: up to here, OpenBLAS may use routines for small matrices
TRIALS = 12
MOST = 128  # components of a stack; with more, a product costs hardly less for each
MOST_RANK = 64  # components of a model that is stacked
LEAST_SIDE = 30  # rows and columns of a block
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
        ranks = _random_ranks(random)
        edges = np.cumsum(ranks)[:-1]
        h, w = (random.random((ranks.sum(), side), dtype) for side in v.shape[::-1])
        right = right and _equal(v @ h.T, [v @ part.T for part in np.split(h, edges)], edges, 1)
        w = np.ascontiguousarray(w.T)
        alone = [np.ascontiguousarray(part).T @ v for part in np.split(w, edges, axis=1)] if left else []
        left = left and _equal(w.T @ v, alone, edges, 0)
        if not (right or left):
            break
    return SameBits(right, left)


def is_tried(rows: int, columns: int, rank: int) -> bool:
    """Return whether `same_bits` holds for products of a block of this shape with factors of a rank."""
    return (
        min(rows, columns) >= LEAST_SIDE and 1 < rank <= MOST_RANK and rows * columns * rank > SMALL
    )  # of rank 1: there is a routine for vectors


def _random_ranks(random: np.random.Generator) -> NDArray[np.int64]:
    """Return random ranks that add up to `MOST`."""
    edges = np.cumsum(random.integers(2, MOST_RANK + 1, MOST))
    return np.diff([0, *edges[edges <= MOST - 2], MOST])


def _random_block(
    random: np.random.Generator, trial: int, dtype: np.dtype[np.floating], by_column: bool
) -> Array:
    """Return a random block of any form, wide and tall by turns."""
    few = int(np.exp(random.uniform(*np.log((LEAST_SIDE, 1000)))))
    shape = (few, int(ENTRIES / few) + int(random.integers(1, 50)))
    shape = shape[::-1] if trial % 2 else shape
    return random.random(shape[::-1], dtype).T if by_column else random.random(shape, dtype)


def _equal(together: Array, alone: list[Array], edges: NDArray[np.int64], axis: int) -> bool:
    parts = np.split(together, edges, axis=axis)
    return all(np.array_equal(part, one) for part, one in zip(parts, alone, strict=True))
