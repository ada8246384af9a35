"""The request of a fit, all arguments of `nmf` but V, and its checks against V."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from dask_nmf.execution.partition import Resources
from dask_nmf.iteration.loop import Step, Stop
from dask_nmf.kernels.blocks.masking import EntryMask
from dask_nmf.options.algorithms import panel_solvers
from dask_nmf.options.option import check_time_limit
from dask_nmf.options.settings import Settings
from dask_nmf.sources.factors_and_weights import open_entry_weights, read_factor
from dask_nmf.sources.labels.names import NO_LABELS, Labels
from dask_nmf.sources.matrix import Matrix
from dask_nmf.storage.locations import Location
from dask_nmf.types import Array


@dataclass(frozen=True)
class FitRequest:
    """The arguments of one fit: settings, given factors, weights, output and limits."""

    settings: Settings
    W: Array | None = None
    H: Array | None = None
    fixed_W: Array | None = None
    fixed_H: Array | None = None
    weights: Matrix | None = None  # the weights of the entries of V
    dtype: str | None = None
    store: Location | None = None
    overwrite: bool = False
    time_limit: float | None = None  # seconds
    cache: int | None = None  # bytes of V that each worker caches between passes; None: as the plan allows
    callback: Callable[[Step], None] | None = None
    labels: Labels = NO_LABELS  # the names of a labelled V, for its run
    offer: Resources | None = None  # the resources to plan for; None: those of the active cluster
    began: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        check_time_limit(self.time_limit)

    @property
    def fixed(self) -> bool:
        """True if one factor is given and stays fixed."""
        return self.fixed_W is not None or self.fixed_H is not None

    @property
    def first_factors(self) -> tuple[Array | None, Array | None]:
        """The given W (m, k) and H (k, n), which the fit begins with or which stay fixed; or None."""
        return (self.fixed_W, self.fixed_H) if self.fixed else (self.W, self.H)

    @property
    def carries(self) -> bool:
        """True if the left factor is kept outside of the graphs between passes."""
        return not self.fixed and (self.settings.algorithm.carries_w or self.settings.start == "custom")

    @property
    def given(self) -> dict[str, Array | Matrix | None]:
        """The given factors and weights by their names; None for those that are not given."""
        factors = {"W": self.W, "H": self.H, "fixed_W": self.fixed_W, "fixed_H": self.fixed_H}
        return {**factors, "weights": self.weights}

    def entry_mask(self, matrix: Matrix) -> EntryMask:
        """Return the rule by which the entries of V count: missing, held out, or weighted."""
        asked = self.settings
        weighted = self.weights is not None
        return EntryMask(
            asked.missing,
            asked.validation_fraction,
            asked.random_state,
            matrix.orientation,
            weighted,
            asked.beta,
        )

    @property
    def stop(self) -> Stop:
        """The stop rules; the time limit counts from the creation of the request."""
        deadline = float("inf") if self.time_limit is None else self.began + self.time_limit
        return Stop(self.settings.max_iter, self.settings.tol, deadline, self.settings.stop_below)


def check_request(request: FitRequest, matrix: Matrix) -> FitRequest:
    """Return a request to fit a matrix, with its factors and weights opened and checked.

    Raises
    ------
    ValueError, DataError
        If the factors, the weights and the settings do not fit together, or not to the matrix.
    """
    request = _check_given(request, matrix)
    return request if request.weights is None else _check_weights(request, matrix)


def _check_weights(request: FitRequest, matrix: Matrix) -> FitRequest:
    """Return the request with its weights opened."""
    if request.settings.by_svd:
        raise ValueError(
            f"weights are given and init is {request.settings.start!r}, which needs every entry of V "
            "alike; leave weights out, or give init 'sample' or 'random'"
        )
    if request.settings.algorithm.by_strata:
        raise ValueError(
            f"weights are given and the solver is {request.settings.solver!r}; "
            f"solvers {panel_solvers()} take them"
        )
    return replace(request, weights=open_entry_weights(matrix, request.weights))


def _check_given(request: FitRequest, matrix: Matrix) -> FitRequest:
    """Return the request with its given factors as checked arrays.

    Raises
    ------
    ValueError
        If the factors and the settings do not fit together.
    """
    m, n = matrix.shape
    k = request.settings.n_components
    given = {"W": (request.W, (m, k)), "H": (request.H, (k, n))}
    if request.fixed:
        return _check_fixed(request, matrix)
    names = [name for name in ("W", "H") if getattr(request, name) is not None]
    if names and request.settings.n_init > 1:
        raise ValueError(
            f"{' and '.join(names)} to begin with and n_init = {request.settings.n_init} are given, so that "
            "every start would be the same; leave n_init out"
        )
    if names and request.settings.init is None:
        request = replace(request, settings=replace(request.settings, init="custom"))
    if request.settings.start != "custom" and not names:
        return request
    if request.settings.start != "custom":
        listed = " and ".join(names)
        raise ValueError(
            f"{listed} {'are' if names[1:] else 'is'} given to begin with, and init is "
            f"{request.settings.init!r}; leave init out (it is 'custom' then), or leave {listed} out"
        )
    if not names:
        raise ValueError("init is 'custom' and neither W nor H is given; give one or both")
    checked = {name: _check_factor(name, *asked) for name, asked in given.items()}
    return replace(request, W=checked["W"], H=checked["H"])


def _check_fixed(request: FitRequest, matrix: Matrix) -> FitRequest:
    """Return the request with its fixed factor as a checked array.

    Raises
    ------
    ValueError
        If the factor and the settings do not fit together.
    """
    m, n = matrix.shape
    k = request.settings.n_components
    if (request.fixed_W is not None and request.fixed_H is not None) or request.settings.start != "sample":
        raise ValueError("fixed_W and fixed_H are given, or one and an init; give one, and no init")
    if request.W is not None or request.H is not None:
        raise ValueError("a factor is fixed, and W or H is given to begin with; leave W and H out")
    if request.settings.normalize is not None:
        raise ValueError(
            "a factor is fixed and normalize is asked for, which would change it; leave that out"
        )
    if request.settings.n_init > 1:
        raise ValueError(
            f"a factor is fixed and n_init is {request.settings.n_init}, so that every start would be the "
            "same; leave n_init out"
        )
    if request.settings.algorithm.by_strata:
        raise ValueError(
            f"a factor is fixed and the solver is {request.settings.solver!r}; solvers {panel_solvers()} "
            "take one"
        )
    return replace(
        request,
        fixed_W=_check_factor("fixed_W", request.fixed_W, (m, k)),
        fixed_H=_check_factor("fixed_H", request.fixed_H, (k, n)),
    )


def _check_factor(name: str, factor: Any, shape: tuple[int, int]) -> Array | None:
    if factor is None:
        return None
    array = read_factor(factor, name, shape)
    if not array.any():
        raise ValueError(f"{name} is zero everywhere; it must have an entry > 0")
    return array
