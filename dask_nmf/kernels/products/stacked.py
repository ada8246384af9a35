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
from dask_nmf.kernels.blocks.holes.cleared import ClearedRows
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


class RightFactors:
    """The H of several models, by which blocks of one width are multiplied."""

    def __init__(self, factors: Sequence[Array]) -> None:
        """Take each H, (k, n)."""
        self.factors = factors
        self._stacks: list[tuple[list[int], Array]] = []  # for blocks of the last shape
        self._shape = (-1, -1)

    def multiply(self, v: Block) -> Iterator[tuple[int, Array]]:
        """Yield the number of each H, and V Hᵀ, (r, k); v is dense or CSR, and may be a `ScaledBlock`."""
        if v.shape != self._shape:
            self._shape, self._stacks = v.shape, [*self._stacked(v)]
        for some, stack in self._stacks:
            product, first = scaling.matmul(v, stack.T), 0
            for number in some:
                last = first + len(self.factors[number])
                yield number, product[:, first:last]
                first = last

    def multiply_strips(self, rows: int, strips: Iterator[tuple[slice, Array]]) -> list[Array]:
        """Return V Hᵀ, (rows, k), for each H, of V in strips of rows."""
        found = [np.empty((rows, len(h)), h.dtype) for h in self.factors]
        for some, strip in strips:
            for number, product in self.multiply(strip):
                found[number][some] = product
        return found

    def _stacked(self, v: Block) -> Iterator[tuple[list[int], Array]]:
        for some in _stacks(v, [len(h) for h in self.factors], self.factors):
            one = self.factors[some[0]]
            yield some, one if len(some) == 1 else np.concatenate([self.factors[number] for number in some])


def right_products(v: Block, factors: Sequence[Array]) -> list[Array]:
    """Return V Hᵀ, (r, k), for each H, (k, n).

    v is dense or CSR, and may be a `ScaledBlock`, or is `ClearedRows`.
    """
    own = RightFactors(factors)
    if isinstance(v, ClearedRows):
        return own.multiply_strips(v.shape[0], v.strips())
    found = {number: np.ascontiguousarray(product) for number, product in own.multiply(v)}
    return [found[number] for number in range(len(factors))]


def left_products(v: Block, factors: Sequence[Array]) -> list[Array]:
    """Return WᵀV, (k, n), float64, for each W, (r, k).

    v is dense or CSR, and may be a `ScaledBlock`, or is `ClearedRows`.
    """
    block, by = scaling.unwrap(v)
    if scipy.sparse.issparse(block):
        return _left_products_of_csr(block, by, factors)
    ranks, edge = [w.shape[1] for w in factors], 0
    found = [np.zeros((rank, v.shape[1])) for rank in ranks]
    parts: list[Any] = [None] * len(factors)  # sums over at most `TALL` rows, in the dtype of products
    for rows, strip in _strips(v):
        if rows.stop - edge > TALL:
            _add_parts(found, parts)
            edge = rows.start
        own = [w[rows] for w in factors]
        for some in _stacks(strip, ranks, factors, left=True):
            product = scaling.rmatmul(_side_by_side([own[number] for number in some]).T, strip)
            edges = np.cumsum([ranks[number] for number in some])[:-1]
            for number, part in zip(some, np.split(product, edges), strict=True):
                parts[number] = part if parts[number] is None else np.add(parts[number], part, parts[number])
    _add_parts(found, parts)
    return found


def _add_parts(found: list[Array], parts: list[Any]) -> None:
    """Add each part to its sum, and forget it."""
    for number, part in enumerate(parts):
        if part is not None:
            np.add(found[number], part, out=found[number])  # float32 is not copied to float64 first
        parts[number] = None


def _strips(v: Block) -> Iterator[tuple[slice, Block]]:
    """Yield ranges of `TALL` rows at most of a dense block, or of `ClearedRows`."""
    if isinstance(v, ClearedRows):
        yield from v.strips(TALL)
        return
    block, by = scaling.unwrap(v)
    for first in range(0, v.shape[0], TALL):
        rows = slice(first, min(first + TALL, v.shape[0]))
        yield rows, scaling.with_scale(block[rows], by)


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
