"""Means of the entries that a fit observed, as predictions where a model knows nothing.

A row or a column is cold if no entry of it counted in the fit. Its factor is then zero, and so is W H. A
factor may also be zero for another reason, such as a penalty: then 0 is the prediction of the model.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

SOURCES = np.array(["model", "row_mean", "column_mean", "overall_mean"])  # the origins of a value
MODEL, ROW_MEAN, COLUMN_MEAN, OVERALL_MEAN = range(4)


class Means(NamedTuple):
    """Means of the entries of V that counted in a fit, each with its weight; NaN where there were none.

    Attributes
    ----------
    rows : (m,), of each row of V: a NumPy, Dask or Zarr array
    columns : (n,), of each column
    overall : of all entries

    Examples
    --------
    >>> import numpy as np
    >>> from dask_nmf import nmf
    >>> means = nmf([[1.0, 3.0], [2.0, np.nan]], 1, missing="nan").means
    >>> np.asarray(means.rows), means.overall
    (array([2., 2.]), 2.0)
    """

    rows: Any
    columns: Any
    overall: float


def safe_divide(total: NDArray[Any], mass: NDArray[Any]) -> NDArray[np.float64]:
    """Return means from sums and their weights; NaN where the weight is 0."""
    means = np.full(len(total), np.nan)
    np.divide(total, mass, out=means, where=mass > 0)
    return means


def fill_with_means(
    values: NDArray[Any], rows: NDArray[Any], columns: NDArray[Any], overall: float
) -> tuple[NDArray[Any], NDArray[np.intp]]:
    """Return values of W H with means in the place of those that the model does not know.

    The value is the mean of the column if the row is cold, the mean of the row if the column is cold, and the
    overall mean if both are.

    Parameters
    ----------
    values, rows, columns : (cells,), W H and the means of the cell's row and column; NaN if that is cold.
    overall : the mean of all entries.

    Returns
    -------
    The values, of the same dtype, and for each its index in `SOURCES`.
    """
    cold_row, cold_column = np.isnan(rows), np.isnan(columns)
    of_row = np.where(cold_column, ROW_MEAN, MODEL)
    sources = np.where(cold_row, np.where(cold_column, OVERALL_MEAN, COLUMN_MEAN), of_row)
    return np.choose(sources, [values, rows, columns, overall]).astype(values.dtype), sources
