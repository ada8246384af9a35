"""The request of a fit: all arguments of `nmf` but V."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from dask_nmf.iteration.loop import Step, Stop
from dask_nmf.kernels.blocks.masking import EntryMask
from dask_nmf.options.settings import Settings
from dask_nmf.sources.matrix import Matrix
from dask_nmf.storage.locations import Location
from dask_nmf.types import Array


@dataclass(frozen=True)
class Job:
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
    began: float = field(default_factory=time.monotonic)

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

    def rule(self, matrix: Matrix) -> EntryMask:
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
        """The stop rules; the time limit counts from the creation of the job."""
        deadline = float("inf") if self.time_limit is None else self.began + self.time_limit
        return Stop(self.settings.max_iter, self.settings.tol, deadline, self.settings.stop_below)
