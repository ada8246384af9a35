"""Where a W is kept that solvers carry from pass to pass: in the memory of this process, or in a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from dask_nmf.kernels.blocks import scaling
from dask_nmf.types import Array


class FactorSlots(Protocol):
    """Places for a W, by the slots that a `State` names; `Run` is one."""

    def factor(self, slot: int) -> FactorStore:
        """Return the W that is in a slot."""

    def new_factor(self, slot: int) -> FactorStore:
        """Return a place for another W, which is then the one that is in the slot."""


class InMemorySlots:
    """Places in the memory of this process. Those of a slot are the same: nobody comes late there."""

    def __init__(self, rows: int, rank: int, dtype: np.dtype[Any]) -> None:
        self._layout = rows, rank, dtype
        self._held: dict[int, InMemoryFactor] = {}

    def factor(self, slot: int) -> FactorStore:
        return self._held[slot]

    def new_factor(self, slot: int) -> FactorStore:
        return self._held.setdefault(slot, InMemoryFactor(*self._layout))


class FactorStore(Protocol):
    """A W kept outside of the graph, by rows: written by one pass, read by the next."""

    def read(self, first: int, last: int) -> Array: ...

    def write(self, first: int, w: Array) -> None: ...


class InMemoryFactor:
    """A W in this process's memory."""

    def __init__(self, rows: int, rank: int, dtype: np.dtype[Any]) -> None:
        self.array = np.zeros((rows, rank), dtype)

    def read(self, first: int, last: int) -> Array:
        return self.array[first:last]

    def write(self, first: int, w: Array) -> None:
        self.array[first : first + len(w)] = w


@dataclass(frozen=True)
class InUnits:
    """A W kept outside of the graph, read in units of which its own are so many."""

    place: FactorStore
    unit: float

    def read(self, first: int, last: int) -> Array:
        return scaling.multiply(self.place.read(first, last), self.unit)

    def write(self, first: int, w: Array) -> None:
        self.place.write(first, scaling.multiply(w, 1 / self.unit))
