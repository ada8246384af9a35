"""What a fit is asked for: everything but V that `nmf` takes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from dask_nmf.iteration.loop import Step, Stop
from dask_nmf.kernels.blocks.masking import EntryMask
from dask_nmf.settings import Settings
from dask_nmf.sources.matrix import Matrix
from dask_nmf.types import Array


@dataclass(frozen=True)
class Job:
    """What to factorise and how; everything but V that `nmf` takes."""

    settings: Settings
    W: Array | None = None
    H: Array | None = None
    fixed_W: Array | None = None
    fixed_H: Array | None = None
    weights: Matrix | None = None  # of V's entries
    dtype: str | None = None
    store: str | None = None
    overwrite: bool = False
    time_limit: float | None = None  # seconds
    cache: int | None = (
        None  # bytes of V that each worker keeps from pass to pass; None: what the plan leaves
    )
    callback: Callable[[Step], None] | None = None
    began: float = field(default_factory=time.monotonic)

    @property
    def fixed(self) -> bool:
        """Whether one factor is as given, and stays so."""
        return self.fixed_W is not None or self.fixed_H is not None

    @property
    def carries(self) -> bool:
        """Whether a W (or H, in panels of columns) is kept outside of the graphs between passes."""
        return not self.fixed and (self.settings.algorithm.carries_w or self.settings.start == "custom")

    @property
    def given(self) -> dict[str, Array | Matrix | None]:
        """What a fit is given beside V and its settings."""
        factors = {"W": self.W, "H": self.H, "fixed_W": self.fixed_W, "fixed_H": self.fixed_H}
        return {**factors, "weights": self.weights}

    def rule(self, matrix: Matrix) -> EntryMask:
        """By which the entries of V count."""
        asked = self.settings
        weighted = self.weights is not None
        return EntryMask(
            asked.missing,
            asked.validation_fraction,
            asked.random_state,
            matrix.transposed,
            weighted,
            asked.beta,
        )

    @property
    def stop(self) -> Stop:
        """The stop rules, the time limit counted from when the job was made."""
        deadline = float("inf") if self.time_limit is None else self.began + self.time_limit
        return Stop(self.settings.max_iter, self.settings.tol, deadline, self.settings.stop_below)
