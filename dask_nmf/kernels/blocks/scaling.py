"""The scale of V: a fit works on V times a power of two that brings its mean near 1.

No product, square or power then leaves the range of the dtype, whatever the units of V. Multiplication by a
power of two rounds nothing: all results for V · 2^s are those for V, times the power of two that belongs to
them. V itself is not changed: the scale is applied to its products, or to a factor that it is multiplied by.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse

from dask_nmf.types import Array

HALF = math.sqrt(0.5)


@dataclass(frozen=True)
class ScaledBlock:
    """Rows of V, (r, n), dense or CSR, that represent themselves times a power of two."""

    block: Any
    by: float  # the power of two

    @property
    def shape(self) -> tuple[int, int]:
        rows, columns = self.block.shape
        return rows, columns

    @property
    def dtype(self) -> np.dtype[Any]:
        dtype: np.dtype[Any] = self.block.dtype
        return dtype

    def dense(self, rows: Any) -> Array:
        """Return some of the rows as a dense array, multiplied by the scale."""
        return multiply(dense_rows(self.block, rows), self.by)


def scale_of(mean: float, dtype: np.dtype[Any]) -> float:
    """Return the power of two that brings a mean to between √½ and √2, as far as the dtype allows."""
    if not 0 < mean < math.inf:
        return 1.0
    mantissa, exponent = math.frexp(mean)
    most = np.finfo(dtype).maxexp - 2
    return math.ldexp(1.0, min(max((mantissa < HALF) - exponent, -most), most))


def unit_of(factor: Array) -> float:
    """Return the power of two next to the size of a factor, (rows, k) or (k, rows); 1 if it is 0."""
    size = float(factor.mean(dtype=np.float64)) * math.sqrt(min(factor.shape))
    return 1 / scale_of(size, np.dtype(np.float64))


def split_power(by: float) -> tuple[float, float]:
    """Return two powers of two, as nearly equal as possible, whose product is ``by``."""
    exponent = round(math.log2(by))
    half = exponent // 2
    return math.ldexp(1.0, exponent - half), math.ldexp(1.0, half)


def power(scale: float, exponent: float) -> float:
    """Return ``scale ** exponent``; ∞ or 0 if float64 has no such number."""
    by = exponent * math.log2(scale)
    return math.inf if by >= 1024 else float(2.0**by)


def fits(by: float, dtype: np.dtype[Any]) -> bool:
    """Return whether a number is in the range of a dtype."""
    limits = np.finfo(dtype)
    return bool(limits.minexp <= math.frexp(by)[1] < limits.maxexp)


def multiply(array: Array, by: float) -> Array:
    """Return an array times a number that may lie outside the range of its dtype."""
    if by == 1:
        return array
    if fits(by, array.dtype):
        with np.errstate(over="ignore", under="ignore"):
            return np.asarray(array * array.dtype.type(by))
    mantissa, exponent = math.frexp(by)
    with np.errstate(over="ignore", under="ignore"):
        return np.asarray(np.ldexp(array * array.dtype.type(mantissa), exponent))


def with_scale(block: Any, by: float) -> Any:
    """Return rows of V, dense or CSR, as a `ScaledBlock`; unchanged if ``by`` is 1."""
    return block if by == 1 else ScaledBlock(block, by)


def scaled_copy(block: Any, by: float) -> Any:
    """Return rows of V, dense or CSR, multiplied by a power of two."""
    if not scipy.sparse.issparse(block):
        return multiply(block, by)
    return (
        block
        if by == 1
        else scipy.sparse.csr_array((multiply(block.data, by), block.indices, block.indptr), block.shape)
    )


def unwrap(block: Any) -> tuple[Any, float]:
    """Return rows of V as they are in memory, and the number that they are to be multiplied by."""
    return (block.block, block.by) if isinstance(block, ScaledBlock) else (block, 1.0)


def squares_fit(by: float, dtype: np.dtype[Any]) -> bool:
    """Return whether squares of v and of the scaled v are both far from the limits of the dtype."""
    return abs(math.log2(by)) <= np.finfo(dtype).maxexp // 5


def matmul(block: Any, right: Array) -> Array:
    """Return ``v right``, (r, k), of rows v (r, n) of V that may be a `ScaledBlock`.

    The factor is scaled, because it is smaller than the product. Where that could leave the range of the
    dtype, half of the scale goes to each.
    """
    v, by = unwrap(block)
    first, second = (by, 1.0) if squares_fit(by, v.dtype) else split_power(by)
    return multiply(np.asarray(v @ multiply(right, first)), second)


def rmatmul(left: Array, block: Any) -> Array:
    """Return ``left v``, (k, n), of rows v (r, n) of V, float64 if they are a `ScaledBlock`; left is (k, r).

    The product is scaled. Where that could leave the range of the dtype, half of the scale goes to each.
    """
    v, by = unwrap(block)
    first, second = (1.0, by) if squares_fit(by, v.dtype) else split_power(by)
    product = np.asarray(multiply(left, first) @ v)
    return product if by == 1 else np.multiply(product, second, dtype=np.float64)


def dense_rows(block: Any, rows: Any) -> Array:
    """Return some rows of V as a dense array, scaled if V is a `ScaledBlock`."""
    if isinstance(block, ScaledBlock):
        return block.dense(rows)
    return np.asarray(block[rows].toarray() if scipy.sparse.issparse(block) else block[rows])
