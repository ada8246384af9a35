"""The attributes that a fit gives to `NMF`, and its warnings."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from dask_nmf.fitting.result import Result
from dask_nmf.iteration.outcome import Outcome
from dask_nmf.kernels.summary.means import Means


def attributes_of(result: Result, stored: bool) -> dict[str, Any]:
    """Return the attributes of an estimator that has this result; ``stored`` leaves the row means on disk."""
    means = result.means
    if means is not None:
        rows = means.rows if stored else np.asarray(means.rows)
        means = Means(rows, np.asarray(means.columns), means.overall)
    return {
        "components_": np.asarray(result.H.compute()),
        "n_components_": result.H.shape[0],
        "reconstruction_err_": result.reconstruction_err,
        "validation_error_": result.validation_error,
        "n_iter_": result.n_iter,
        "error_history_": result.error_history,
        "objectives_": result.objectives,
        "outcome_": result.outcome,
        "message_": result.message,
        "_means": means,
    }


def attributes_without_data(shape: tuple[int, int], dtype: Any) -> dict[str, Any]:
    """Return the attributes of an estimator that has seen rows, but no entry of them: H is 0, (k, n)."""
    return {
        "components_": np.zeros(shape, dtype),
        "reconstruction_err_": float("nan"),
        "validation_error_": float("nan"),
        "n_iter_": 0,
        "error_history_": np.empty(0),
        "objectives_": None,
        "outcome_": Outcome.UNOBSERVED,
        "message_": "nothing was observed",
        "_means": None,
    }


def warn_unless_converged(result: Result, max_iter: int, tol: float) -> None:
    """Warn about a fit that ended before it converged."""
    at_end = result.outcome in (Outcome.MAX_ITER, Outcome.NOT_CONVERGED)
    if result.n_iter == max_iter and tol > 0 and at_end:
        warnings.warn(f"{result.message}; raise max_iter or tol", ConvergenceWarning, stacklevel=4)
    elif not result.outcome.converged and result.outcome is not Outcome.MAX_ITER:
        warnings.warn(result.message, ConvergenceWarning, stacklevel=4)
