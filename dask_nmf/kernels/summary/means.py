"""Means of what a fit observed, and what they say where a model knows nothing.

A row or a column is cold if no entry of it counted in the fit. Its factor is zero then, and so is W H. A
factor may be zero for another reason, such as a penalty: then 0 is what the model says.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

SOURCES = np.array(["model", "row_mean", "column_mean", "overall_mean"])  # where a value comes from
MODEL, ROW_MEAN, COLUMN_MEAN, OVERALL_MEAN = range(4)


class Means(NamedTuple):
    """Means of the entries of V that counted in a fit, each with its weight; NaN where there were none."""

    rows: Any  # (m,), of each row of V: NumPy, Dask or Zarr
    columns: Any  # (n,)
    overall: float


def safe_divide(total: NDArray[Any], mass: NDArray[Any]) -> NDArray[np.float64]:
    """Return means from sums and from how much they are of; NaN where that is nothing."""
    means = np.full(len(total), np.nan)
    np.divide(total, mass, out=means, where=mass > 0)
    return means


def fill_with_means(
    values: NDArray[Any], rows: NDArray[Any], columns: NDArray[Any], overall: float
) -> tuple[NDArray[Any], NDArray[np.intp]]:
    """Return values of W H with means in the place of those that the model does not know.

    That is the mean of the column where the row is cold, that of the row where the column is, and that of
    everything where both are.

    Parameters
    ----------
    values, rows, columns : (cells,), W H and the means of the cell's row and of its column.

    Returns
    -------
    The values, of the same dtype, and for each its number in `SOURCES`.
    """
    cold_row, cold_column = np.isnan(rows), np.isnan(columns)
    of_row = np.where(cold_column, ROW_MEAN, MODEL)
    sources = np.where(cold_row, np.where(cold_column, OVERALL_MEAN, COLUMN_MEAN), of_row)
    return np.choose(sources, [values, rows, columns, overall]).astype(values.dtype), sources
