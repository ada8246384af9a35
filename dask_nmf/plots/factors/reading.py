"""The values and names in W and H, whatever form they have."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from dask_nmf.sources.labelled.registry import factor_form_of, labels_of
from dask_nmf.sources.labels.names import gather
from dask_nmf.types import Array


class Components(NamedTuple):
    """H with what is known of its columns.

    Attributes
    ----------
    values : (k, n).
    names : of the columns; None without names.
    places : (n,) increasing numbers that are the labels of the columns, such as wavelengths, or None.
    image_shape : height and width, if columns are the pixels of images, or None.
    """

    values: Array
    names: list[str] | None = None
    places: Array | None = None
    image_shape: tuple[int, int] | None = None


class Rows(NamedTuple):
    """Some rows of W: their numbers, their values (rows, k), and their names or None."""

    numbers: Array
    values: Array
    names: list[str] | None


def components_of(H: Any) -> Components:
    """Return the components in an H: an array, a table with a column for each of V, or a `DataArray`."""
    values = np.asarray(H)
    if values.ndim == 3:
        return Components(values.reshape(len(values), -1), image_shape=values.shape[1:])
    values = values.reshape(len(values), -1)
    labels = _labels_of_columns(H)
    return Components(values) if labels is None else labelled_components(values, np.asarray(labels))


def labelled_components(values: Array, labels: Array) -> Components:
    """Return components whose columns have labels; labels that only count 0, 1, 2 and so on say nothing."""
    if labels.dtype.kind in "iuf":
        if np.array_equal(labels, np.arange(len(labels))):
            return Components(values)
        if (np.diff(labels) > 0).all():
            return Components(values, places=labels)
    return Components(values, [str(label) for label in labels.tolist()])


def sampled_rows(W: Any, rows: int, most: int) -> Rows:
    """Return at most ``most`` of the rows of W, evenly spaced; only these are kept in memory.

    Parameters
    ----------
    rows : the number of rows of W.
    """
    matrix, form = factor_form_of(W)
    numbers = np.unique(np.linspace(0, rows - 1, min(rows, most)).round().astype(np.int64))
    matrix = matrix.data if hasattr(matrix, "dims") else matrix
    values = matrix[numbers].compute() if hasattr(matrix, "compute") else np.asarray(matrix)[numbers]
    names = labels_of(form).rows if form is not None and rows <= most else None
    return Rows(numbers, values, None if names is None else [str(name) for name in gather(names, numbers)])


def _labels_of_columns(H: Any) -> Any | None:
    """Return the labels that the columns of H have, if any."""
    if hasattr(H, "dims"):  # a DataArray
        last = H.dims[-1]
        return H.coords[last].values if H.ndim == 2 and last in H.coords else None
    names = getattr(H, "column_names", None)  # pyarrow
    return getattr(H, "columns", None) if names is None else names
