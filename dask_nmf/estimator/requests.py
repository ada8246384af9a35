"""The request for a fit that the parameters of `NMF` make."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from types import MappingProxyType
from typing import Any, NamedTuple

import dask.array as da
import numpy as np
from sklearn.utils import check_random_state

from dask_nmf.fitting.request import FitRequest
from dask_nmf.fitting.result import Result
from dask_nmf.options.algorithms import learns_online
from dask_nmf.options.option import plain
from dask_nmf.options.settings import LOSSES, Settings
from dask_nmf.sources.decoding.row_weights import read_row_weights, scale_rows, weights_of_rows
from dask_nmf.sources.factors_and_weights import read_factor
from dask_nmf.sources.matrix import Matrix
from dask_nmf.sources.registry import open_matrix
from dask_nmf.storage.locations import locate, located
from dask_nmf.types import Array, Orientation

OWN = ("n_components", "random_state")  # settings that are not simply the parameters
SAME = tuple(field.name for field in fields(Settings) if field.name not in OWN)


def learns_from_batches(model: Any) -> bool:
    """Return whether the sums of a pass are all that is needed to go on with other rows."""
    return learns_online(model.solver)


def request_of(
    parameters: Mapping[str, Any], matrix: Matrix, factors: tuple[Any, Any], weights: Any, stored: bool
) -> FitRequest:
    """Return the request to fit a matrix.

    Parameters
    ----------
    parameters : the parameters of the estimator.
    factors : the initial W and H, in any form that `open_matrix` accepts, or None.
    stored : whether the fit goes to the ``store`` of the parameters, if there is one.
    """
    W: Any
    H: Any
    W, H = (
        None if factor is None else open_matrix(factor, orientation=Orientation.ROWS, name=name)
        for factor, name in zip(factors, "WH", strict=True)
    )
    store = parameters["store"]
    return FitRequest(
        settings_of(parameters, number_of_components(parameters["n_components"], matrix, W, H)),
        W=W,
        H=H,
        weights=located(weights),
        store=locate(store) if stored and store is not None else None,
        overwrite=parameters["overwrite"],
        time_limit=parameters["time_limit"],
        callback=parameters["callback"],
    )


class Weighted(NamedTuple):
    """A fit with weights of samples, as a fit that `request_of` takes.

    Attributes
    ----------
    overrides : parameters of the estimator that are to be replaced.
    scales : numbers by which the rows of X, and so those of W, are multiplied, (m,); None: they are not.
    """

    matrix: Matrix
    W: Any
    weights: Any
    overrides: Mapping[str, Any] = MappingProxyType({})
    scales: Array | None = None

    def unscaled(self, result: Result) -> Result:
        """Return a result with the W, (m, k), of X as it was given; it is 0 in rows of weight 0."""
        if self.scales is None:
            return result
        W = result.W
        units = np.divide(1.0, self.scales, out=np.zeros_like(self.scales), where=self.scales > 0)
        column = da.from_array(units.astype(W.dtype)[:, None], chunks=(W.chunks[0], (1,)))
        return replace(result, W=W * column)


def weigh_samples(
    parameters: Mapping[str, Any], matrix: Matrix, W: Any, weights: Any, sample_weight: Any
) -> Weighted:
    """Return the fit in which sample i counts ``sample_weight[i]`` times.

    For the squared error that is the fit of √sample_weight · X, without weights, because then each row
    brings its part of the sums with its weight. Where more than these sums depends on the weights (another
    loss, missing or held-out entries, an L1 penalty on W, a run on disk), each entry has the weight of its
    row.

    Raises
    ------
    ValueError
        If a weight is negative or not finite, all are 0, or there is not one for each sample; if there are
        weights of entries too.
    """
    if sample_weight is None:
        return Weighted(matrix, W, weights)
    entries = weights_of_batch(matrix, weights, sample_weight)
    lasso = parameters["alpha_W"] and parameters["l1_ratio"]
    plain_loss = LOSSES.get(parameters["beta_loss"], parameters["beta_loss"]) == 2
    gaps = parameters["missing"] is not None or parameters["validation_fraction"]
    if lasso or not plain_loss or gaps or parameters["store"] is not None:
        return Weighted(matrix, W, entries)
    rows = _checked_sample_weight(sample_weight, matrix.shape[0])
    scales = np.sqrt(rows)
    alpha = parameters["alpha_W"] if parameters["alpha_H"] == "same" else parameters["alpha_H"]
    if W is not None:
        W = scales[:, None] * read_factor(W, "W")
    return Weighted(scale_rows(matrix, scales), W, None, {"alpha_H": alpha * rows.mean()}, scales)


def weights_of_batch(matrix: Matrix, weights: Any, sample_weight: Any) -> Any:
    """Return the weights of the entries of a batch; ``sample_weight`` gives one to each of its rows.

    Raises
    ------
    ValueError
        As `weigh_samples` does.
    """
    if sample_weight is None:
        return weights
    if weights is not None:
        raise ValueError("sample_weight and weights are given; multiply them, and give weights")
    return weights_of_rows(matrix, _checked_sample_weight(sample_weight, matrix.shape[0]))


def _checked_sample_weight(sample_weight: Any, samples: int) -> Array:
    """Return weights of samples as an array, (m,) float64."""
    rows = read_row_weights(sample_weight, samples, ("sample_weight", "X"))
    if not rows.any():
        raise ValueError("sample_weight is zero for all rows; at least one weight must be > 0")
    return rows


def settings_of(parameters: Mapping[str, Any], n_components: int) -> Settings:
    """Return the settings that the parameters of the estimator make."""
    seed = seed_of(parameters["random_state"], resumable=parameters["store"] is not None)
    return Settings(n_components, random_state=seed, **{name: parameters[name] for name in SAME})


def parameters_of(settings: Settings) -> dict[str, Any]:
    """Return the parameters of an estimator that makes these settings."""
    init = None if settings.start == "sample" else settings.init
    return {field.name: getattr(settings, field.name) for field in fields(settings)} | {
        "init": init,
        "beta_loss": settings.loss_name,
    }


def number_of_components(n_components: Any, matrix: Matrix, W: Matrix | None, H: Matrix | None) -> int:
    """Return the number of components: as given, or that of initial factors, or else min(X.shape)."""
    number = plain(n_components)
    if isinstance(number, int):
        return number
    if number not in (None, "auto"):
        raise ValueError(f"n_components is {n_components!r}; it must be an integer >= 1, 'auto' or None")
    if H is not None:
        return H.shape[0]
    return min(matrix.shape) if W is None else W.shape[1]


def seed_of(random_state: Any, resumable: bool) -> int:
    """Return the seed of a fit; None gives another one each time, or 0 if the fit has to be resumable."""
    seed = plain(random_state)
    if isinstance(seed, int):
        return seed
    if seed is None and resumable:
        return 0
    return int(check_random_state(seed).randint(2**31 - 1))
