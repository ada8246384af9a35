"""X and W as users give them to `NMF`, opened, with scikit-learn's checks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from typing import Any, NamedTuple

import dask.array as da
import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_array, validate_data

from dask_nmf.inference.factors import open_factor
from dask_nmf.runs.stored_result import StoredResult
from dask_nmf.sources.labelled.arrays import ArrayForm
from dask_nmf.sources.labelled.form import Form
from dask_nmf.sources.labelled.registry import form_of
from dask_nmf.sources.labelled.tables import PlainTable
from dask_nmf.sources.labels.names import fitting
from dask_nmf.sources.matrix import Matrix
from dask_nmf.sources.registry import in_memory_form, open_matrix
from dask_nmf.storage.locations import located


class OpenedInput(NamedTuple):
    """X, opened and checked."""

    matrix: Matrix
    form: Form | None  # its labels
    source: Any  # as it was given


def open_input(
    estimator: Any, X: Any, reset: bool, opening: Callable[[Any], Matrix] = open_matrix
) -> OpenedInput:
    """Open X, and check its features as scikit-learn does.

    An X in memory passes through scikit-learn's checks of arrays; any other X is read panel by panel.

    Parameters
    ----------
    reset : whether the estimator takes the number and the names of the features from X, or checks them.
    opening : function that opens the checked X.
    """
    source, form = form_of(located(X), estimator.sample_dims, "X")
    in_memory = in_memory_form(source, "X")
    matrix = opening(source if in_memory is None else _checked_array(estimator, in_memory))
    known = None if reset else getattr(estimator, "feature_names_in_", None)
    named = X if isinstance(form, PlainTable) else _named(matrix, form, known)
    validate_data(estimator, named, reset=reset, skip_check_array=True)
    features = form.features if isinstance(form, ArrayForm) else None
    if reset:
        estimator._features = features
        if form is not None and estimator.store is not None:
            matrix = replace(matrix, labels=fitting(form.labels, matrix.shape))
    elif features is not None and estimator._features is not None:
        estimator._features.check_same(features)
    return OpenedInput(matrix, form, X)


def features_of(stored: StoredResult) -> dict[str, Any]:
    """Return the attributes of an estimator about the features of a run: their number, and any names."""
    number, names = int(stored.record["matrix"]["shape"][1]), stored.column_names
    named = {} if names is None else {"feature_names_in_": np.asarray(names[:]).astype(object)}
    return {"n_features_in_": number, **named}


def _named(matrix: Matrix, form: Form | None, known: Any) -> Any:
    """Return something with the shape and the column names of X, for scikit-learn's checks of features.

    Labels that are no texts, such as years, have the names that a run keeps of them if these are known.

    Parameters
    ----------
    known : the names of the features of the fit; None without names
    """
    columns = matrix.labels.columns if form is None else form.labels.columns
    names = None if form is None else form.column_names
    if columns is not None:
        texts = columns.read(0, len(columns)).astype(object)
        names = texts if form is None or (known is not None and np.array_equal(texts, known)) else names
    if names is None:
        return np.broadcast_to(0.0, matrix.shape)
    pandas: Any = import_module("pandas")
    return pandas.DataFrame(columns=names)


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
