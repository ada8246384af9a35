"""Where a W is kept that solvers carry from pass to pass: in the memory of this process, or in a run."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from dask_nmf.execution.graphs import HeldWeights, Weights


class Carried(Protocol):
    """Places for a W, by the slots that a `State` tells: `store.Run` is one."""

    def weights(self, slot: int) -> Weights:
        """Return the W that is in a slot."""

    def new_weights(self, slot: int) -> Weights:
        """Return a place for another W, which is then the one that is in the slot."""


class HeldCarried:
    """Places in the memory of this process. Those of a slot are the same: nobody comes late there."""

    def __init__(self, rows: int, rank: int, dtype: np.dtype[Any]) -> None:
        self._layout = rows, rank, dtype
        self._held: dict[int, HeldWeights] = {}

    def weights(self, slot: int) -> Weights:
        return self._held[slot]

    def new_weights(self, slot: int) -> Weights:
        return self._held.setdefault(slot, HeldWeights(*self._layout))
