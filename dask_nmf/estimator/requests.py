"""The request for a fit that the parameters of `NMF` make."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from sklearn.utils import check_random_state

from dask_nmf.fitting.request import FitRequest
from dask_nmf.options.option import plain
from dask_nmf.options.settings import Settings
from dask_nmf.sources.matrix import Matrix
from dask_nmf.sources.registry import open_matrix
from dask_nmf.storage.locations import locate, located
from dask_nmf.types import Orientation

OWN = ("n_components", "random_state")  # settings that are not simply the parameters
SAME = tuple(field.name for field in fields(Settings) if field.name not in OWN)


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
