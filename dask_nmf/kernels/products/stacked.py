"""Products of a block with the factors of several models, ``V [H₁; H₂; …]ᵀ`` and ``[W₁ W₂ …]ᵀ V``.

Together they cost less than one by one, since each walk over V is shared. Each has the bits that it has
alone: factors are stacked only where that is so.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse

from dask_nmf.kernels.blocks import scaling
from dask_nmf.kernels.linalg import csr_products
from dask_nmf.kernels.products.same_bits import MOST, is_tried, same_bits
from dask_nmf.types import Array, Block

CACHED = 4 * 2**20  # bytes of the factors of a stack from which entries of a CSR block take rows at random

TALL = 1024  # rows whose products BLAS may add up in float32


@dataclass(frozen=True)
class Multiplied:
    """A block of which one product is known."""

    block: Block
    factor: Array  # H, (k, n), or W, (r, k)
    product: Array  # V Hᵀ, (r, k), or WᵀV, (k, n), float64

    @property
    def shape(self) -> tuple[int, int]:
        rows, columns = self.block.shape
        return rows, columns


def known_product(v: Block, factor: Array | None = None) -> tuple[Block, Array | None]:
    """Return a block without its known product, and that product, or None if it is not with ``factor``."""
    if not isinstance(v, Multiplied):
        return v, None
    return v.block, v.product if v.factor is factor else None


def right_products(v: Block, factors: Sequence[Array]) -> list[Array]:
    """Return V Hᵀ, (r, k), for each H, (k, n); v is dense or CSR, and may be a `ScaledBlock`."""
    found: list[Any] = [None] * len(factors)
    for some in _stacks(v, [len(h) for h in factors], factors):
        if len(some) == 1:
            found[some[0]] = scaling.matmul(v, factors[some[0]].T)
            continue
        stack = np.concatenate([factors[number] for number in some])
        edges = np.cumsum([len(factors[number]) for number in some])[:-1]
        for number, part in zip(some, np.split(scaling.matmul(v, stack.T), edges, axis=1), strict=True):
            found[number] = np.ascontiguousarray(part)
    return found


def left_products(v: Block, factors: Sequence[Array]) -> list[Array]:
    """Return WᵀV, (k, n), float64, for each W, (r, k); v is dense or CSR, and may be a `ScaledBlock`."""
    block, by = scaling.unwrap(v)
    if scipy.sparse.issparse(block):
        return _left_products_of_csr(block, by, factors)
    ranks = [w.shape[1] for w in factors]
    found = [np.zeros((rank, v.shape[1])) for rank in ranks]
    for first in range(0, v.shape[0], TALL):
        strip = scaling.with_scale(block[first : first + TALL], by)
        own = [w[first : first + TALL] for w in factors]
        for some in _stacks(strip, ranks, factors, left=True):
            product = scaling.rmatmul(_side_by_side([own[number] for number in some]).T, strip)
            edges = np.cumsum([ranks[number] for number in some])[:-1]
            for number, part in zip(some, np.split(product, edges), strict=True):
                found[number] += part
    return found


def _left_products_of_csr(block: Any, by: float, factors: Sequence[Array]) -> list[Array]:
    found: list[Any] = [None] * len(factors)
    ranks = [w.shape[1] for w in factors]
    for some in _stacks(block, ranks, factors, left=True):
        w = _side_by_side([factors[number] for number in some])
        first, second = (1.0, by) if scaling.squares_fit(by, w.dtype) else scaling.split_power(by)
        num, _ = csr_products.transposed_product(block, scaling.multiply(w, first), None)
        edges = np.cumsum([ranks[number] for number in some])[:-1]
        for number, part in zip(some, np.split(num, edges, axis=1), strict=True):
            found[number] = part.T * second
    return found


def _side_by_side(factors: Sequence[Array]) -> Array:
    return factors[0] if len(factors) == 1 else np.concatenate(factors, axis=1)


def _stacks(
    v: Block, ranks: Sequence[int], factors: Sequence[Array], left: bool = False
) -> Iterator[list[int]]:
    """Yield the numbers of factors whose products with v are taken together."""
    if len(factors) == 1:
        yield [0]
        return
    block, _ = scaling.unwrap(v)
    able = [_keeps_bits(block, rank, factor, left) for rank, factor in zip(ranks, factors, strict=True)]
    yield from ([number] for number, may in enumerate(able) if not may)
    most = min(MOST, CACHED // (8 * block.shape[1])) if scipy.sparse.issparse(block) else MOST
    some: list[int] = []
    for number in np.flatnonzero(able).tolist():
        if some and sum(ranks[other] for other in some) + ranks[number] > most:
            yield some
            some = []
        some.append(number)
    if some:
        yield some


def _keeps_bits(block: Block, rank: int, factor: Array, left: bool) -> bool:
    """Return whether a product has the same bits in a stack, and wherever it stands in it."""
    if factor.dtype != block.dtype:
        return False
    if scipy.sparse.issparse(block):  # entry by entry, whatever the number of components
        return rank > 1
    rows, columns = block.shape
    return is_tried(rows, columns, rank) and same_bits(block.dtype, block.strides[0] < block.strides[1])[left]
