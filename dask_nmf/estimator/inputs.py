"""X and W of `NMF`, in the forms in which scikit-learn's users give and expect them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import dask.array as da
import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_array, validate_data

from dask_nmf.inference.factors import open_factor
from dask_nmf.sources.matrix import Matrix
from dask_nmf.sources.registry import in_memory_form, open_matrix
from dask_nmf.storage.locations import located
from dask_nmf.types import Array


def open_input(
    estimator: BaseEstimator, X: Any, reset: bool, opening: Callable[[Any], Matrix] = open_matrix
) -> Matrix:
    """Open X, and check its features as scikit-learn does.

    An X in memory passes through scikit-learn's checks of arrays; any other X is read panel by panel.

    Parameters
    ----------
    reset : whether the estimator takes the number and the names of the features from X, or checks them.
    opening : function that opens the checked X.
    """
    source = located(X)
    in_memory = in_memory_form(source, "X")
    matrix = opening(source if in_memory is None else _checked_array(estimator, in_memory))
    named = X if in_memory is not None else getattr(X, "_meta", None)  # a Dask DataFrame has columns too
    if not hasattr(named, "columns"):
        named = np.broadcast_to(0.0, matrix.shape)
    validate_data(estimator, named, reset=reset, skip_check_array=True)
    return matrix


def _checked_array(estimator: BaseEstimator, array: Any) -> Any:
    """Return an array or sparse matrix with integers as float64; the first read checks the entries."""
    try:
        return check_array(
            array,
            accept_sparse=True,
            dtype=[np.float64, np.float32],
            ensure_all_finite=False,
            estimator=estimator,
            input_name="X",
        )
    except TypeError as error:
        raise TypeError(
            f"X has an entry that is no number ({error}); give NaN for what is missing"
        ) from error


def in_form_of_input(matrix: Matrix, W: da.Array) -> Array | da.Array:
    """Return W as NumPy if X was in memory, else as a Dask array, chunked like the rows of a Dask X."""
    if matrix.in_memory:
        return np.asarray(W.compute())
    array = matrix.reader.dask_array
    if array is None:
        return W
    heights, _ = matrix.orientation.turn((array.chunks[0], array.chunks[1]))
    return W.rechunk((heights, W.shape[1]))


def open_factor_w(X: Any, n_components: int) -> Any:
    """Return a W with a column for each component, as an array or a Dask array.

    Raises
    ------
    ValueError
        If its shape is another.
    """
    W = open_factor(X, "X")
    if len(W.shape) != 2 or W.shape[1] != n_components:
        raise ValueError(
            f"X has shape {W.shape} and there are {n_components} components; give a W with a column for "
            "each, as transform does"
        )
    return W if isinstance(W, np.ndarray | da.Array) else da.from_array(W, name=False)
