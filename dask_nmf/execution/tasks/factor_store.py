"""Stores of a factor that is carried from pass to pass: in the memory of this process, or in a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from dask_nmf.kernels.blocks import scaling
from dask_nmf.types import Array


class FactorSlots(Protocol):
    """Stores of a carried W, by the slots that a `State` names; `Run` is one."""

    def factor(self, slot: int) -> FactorStore:
        """Return the W that is in a slot."""

    def new_factor(self, slot: int) -> FactorStore:
        """Return a store for a new W, which then is the one in the slot."""


class InMemorySlots:
    """Slots in the memory of this process. A slot reuses its array, because no late task can write to it."""

    def __init__(self, rows: int, rank: int, dtype: np.dtype[Any]) -> None:
        self._layout = rows, rank, dtype
        self._held: dict[int, InMemoryFactor] = {}

    def factor(self, slot: int) -> FactorStore:
        return self._held[slot]

    def new_factor(self, slot: int) -> FactorStore:
        return self._held.setdefault(slot, InMemoryFactor(*self._layout))


class FactorStore(Protocol):
    """A factor outside of the graph, by rows: one pass writes it, and the next one reads it."""

    def read(self, first: int, last: int) -> Array:
        """Return the rows from ``first`` to before ``last``, (last - first, k)."""
        ...

    def write(self, first: int, w: Array) -> None:
        """Write rows from ``first`` on, (rows, k)."""
        ...


class InMemoryFactor:
    """A factor in the memory of this process."""

    def __init__(self, rows: int, rank: int, dtype: np.dtype[Any]) -> None:
        self.array = np.zeros((rows, rank), dtype)

    def read(self, first: int, last: int) -> Array:
        return self.array[first:last]

    def write(self, first: int, w: Array) -> None:
        self.array[first : first + len(w)] = w


@dataclass(frozen=True)
class InUnits:
    """A stored factor that is multiplied by ``unit`` when read, and divided by it when written."""

    place: FactorStore
    unit: float

    def read(self, first: int, last: int) -> Array:
        return scaling.multiply(self.place.read(first, last), self.unit)

    def write(self, first: int, w: Array) -> None:
        self.place.write(first, scaling.multiply(w, 1 / self.unit))
