"""W as `NMF` returns it: in the container that `set_output` chooses, or as X came."""

from __future__ import annotations

from typing import Any

import dask.array as da
import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils._set_output import _get_output_config, _wrap_data_with_container

from dask_nmf.estimator.inputs import OpenedInput, open_factor_w
from dask_nmf.sources.labelled.arrays import ArrayForm, Side
from dask_nmf.sources.labelled.registry import factor_form_of
from dask_nmf.sources.labelled.tables import DaskTable, dask_table
from dask_nmf.sources.matrix import Matrix
from dask_nmf.types import Array


def w_in_container(estimator: BaseEstimator, opened: OpenedInput, W: Any, X: Any) -> Any:
    """Return W (m, k) in the container that was set by `set_output`, or else that X has.

    Parameters
    ----------
    W : as a Dask array.
    X : the input as the user gave it.
    """
    form, array = opened.form, _in_form_of_input(opened.matrix, W)
    container = _get_output_config("transform", estimator)["dense"]
    if container == "default":
        return form.left(array) if isinstance(form, ArrayForm) else array
    if container == "pandas" and isinstance(array, da.Array):
        names = estimator.get_feature_names_out()
        if isinstance(form, DaskTable):
            return form.rows(array, names)
        if form is None or form.index is None:
            return dask_table(array, None, None, names)
    table = _wrap_data_with_container("transform", np.asarray(array), X, estimator)
    if container == "pandas" and form is not None and form.index is not None:
        table.index = form.index
    return table


def _in_form_of_input(matrix: Matrix, W: da.Array) -> Array | da.Array:
    """Return W as NumPy if X was in memory, else as a Dask array, chunked like the rows of a Dask X."""
    if matrix.in_memory:
        return np.asarray(W.compute())
    array = matrix.reader.dask_array
    if array is None:
        return W
    heights, _ = matrix.orientation.turn((array.chunks[0], array.chunks[1]))
    return W.rechunk((heights, W.shape[1]))


def rows_in_form(W: Any, H: Array, features: Side | None, names: Any) -> Any:
    """Return the rows (m, n) that a W stands for, in the form of W.

    Parameters
    ----------
    W : in any form that `open_matrix` accepts.
    H : (k, n).
    features : the dimensions of the columns, if the fit was of a `DataArray`.
    names : of the columns, or None.
    """
    matrix, form = factor_form_of(W)
    rows = open_factor_w(matrix, len(H)) @ H
    if form is None:
        return rows
    if isinstance(form, ArrayForm) and features is not None:
        return form.unstacked(rows, features)
    return form.rows(rows, names)
