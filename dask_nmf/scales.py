"""Which sizes of entries a fit takes: those whose squares and powers are numbers of the dtype."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from dask_nmf.errors import DataError

# The mean of V and its norm, or its sum where the loss is a divergence: between these the products with the
# factors, the squares of their steps and the residual are numbers. By itemsize, found by fits at all scales.
FITTED = {4: (1e-20, 1e17), 8: (1e-70, 1e70)}
LEAST = 1e-140  # that a divergence divides by, in float64: a number over the square of it is one
SMALLEST = 1e10 * LEAST  # mean of rows that are far above that
LARGEST = 280  # power of 10, of v^β: a sum of many is a number
WIDE = np.dtype(np.float64)


def check(mean: float, size: float, power: float, beta: float, dtype: np.dtype[Any]) -> None:
    """Refuse a V at whose scale the loss, or products with the factors, would overflow or vanish.

    Parameters
    ----------
    mean : of the entries that count.
    size : ‖V‖, or Σ V where the loss is a divergence.
    power : Σ f(V), see `dask_nmf.measures.Measure`.

    Raises
    ------
    DataError
        With the cure.
    """
    if mean == 0 or fits(mean, size, power, beta, dtype):
        return
    wider = ", or compute in float64" if dtype != WIDE and fits(mean, size, power, beta, WIDE) else ""
    name = "norm" if beta == 2 else "sum"
    what = "squares" if beta in (0, 1, 2) else f"powers for beta_loss {beta:g}"
    raise DataError(
        f"V has mean {mean:.3g} and {name} {size:.3g}: {what} do not fit {dtype}; "
        f"multiply V by a number that brings its mean near 1{wider}"
    )


def fits(mean: float, size: float, power: float, beta: float, dtype: np.dtype[Any]) -> bool:
    """Return whether a fit in this dtype finds and tells what it would for a V of mean 1."""
    least, most = FITTED[dtype.itemsize]
    if not (least < mean and size < most):
        return False
    if beta in (0, 1, 2):
        return True
    mean_fits = _in_range(mean, beta - 1, dtype) and _in_range(mean, beta, dtype)
    return mean_fits and _sums(mean, power, beta, dtype)


def check_rows(mean: float, beta: float) -> None:
    """Refuse rows that are too small or large for a divergence from the W H of an H that is given.

    Raises
    ------
    DataError
        With the cure.
    """
    if beta != 2 and mean > 0 and not (mean > SMALLEST and beta * math.log10(mean) < LARGEST):
        raise DataError(
            f"V has rows of mean {mean:.3g}, whose powers for beta_loss {beta:g} do not fit float64; "
            "multiply V by a number that brings it near the V that H is of"
        )


def _in_range(mean: float, exponent: float, dtype: np.dtype[Any]) -> bool:
    """Return whether a power of V's entries is a number, and those much smaller or larger are."""
    limits = np.finfo(dtype)
    spare = -math.log10(limits.eps)
    about = exponent * math.log10(mean)
    return math.log10(limits.tiny) + spare < about < math.log10(limits.max) - spare


def _sums(mean: float, power: float, beta: float, dtype: np.dtype[Any]) -> bool:
    """Return whether Σ v^β is a number, and y^(β−2) where y is as small as is divided by (in float64)."""
    limits = np.finfo(dtype)
    least = math.log10(limits.eps) + math.log10(mean)
    return power < limits.eps * limits.max and (beta - 2) * least < math.log10(np.finfo(np.float64).max) - 16
