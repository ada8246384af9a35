"""The names of those rows and columns that a report mentions, read from a run in few pieces."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np

from dask_nmf.sources.labels import names as labels
from dask_nmf.sources.labels.names import PIECE, Labels
from dask_nmf.types import Array

FEWEST_POSITIONS = 3  # columns of a spectrum


@dataclass(frozen=True)
class Names:
    """The names of some rows and columns of V; others are called by their numbers, which begin at 0.

    Attributes
    ----------
    labels : all names, which are read when they are needed.
    rows, columns : those that were read, by number.
    """

    labels: Labels = labels.NO_LABELS
    rows: Mapping[int, str] | None = None
    columns: Mapping[int, str] | None = None

    def reading(self, rows: Iterable[int], columns: Iterable[int]) -> Names:
        """Return these names with those of more rows and columns."""
        return replace(
            self,
            rows={**(self.rows or {}), **_read(self.labels.rows, rows)},
            columns={**(self.columns or {}), **_read(self.labels.columns, columns)},
        )

    def row(self, number: int) -> str:
        """Return the name of a row, or else its number."""
        return (self.rows or {}).get(number) or f"row {number:,}"

    def column(self, number: int) -> str:
        """Return the name of a column, or else its number."""
        return (self.columns or {}).get(number) or f"column {number:,}"

    def positions(self) -> Array | None:
        """Return the numbers that the names of all columns are, (n,), if they rise or fall; else None."""
        names = self.labels.columns
        if names is None or len(names) < FEWEST_POSITIONS:
            return None
        try:
            numbers = np.concatenate([_numbers(piece) for piece in labels.pieces(names)])
        except ValueError:
            return None
        steps = np.diff(numbers)
        ordered = (steps > 0).all() or (steps < 0).all()
        return numbers if np.isfinite(numbers).all() and ordered else None


def _numbers(names: Array) -> Array:
    return np.array([float(name) for name in names.tolist()])


def _read(names: labels.Names | None, places: Iterable[int]) -> dict[int, str]:
    """Return the names at some places; each piece of names that has one of them is read once."""
    if names is None:
        return {}
    found: dict[int, str] = {}
    for piece, some in groupby(sorted(set(places)), lambda place: place // PIECE):
        first = piece * PIECE
        values = names.read(first, min(first + PIECE, len(names)))
        found |= {place: str(values[place - first]) for place in some}
    return found
