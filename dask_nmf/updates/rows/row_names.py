"""Names of rows when rows are added or taken out."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain

import numpy as np

from dask_nmf.errors import DataError
from dask_nmf.runs.stored_result import StoredResult
from dask_nmf.sources.labels.index import ABSENT, NameIndex
from dask_nmf.sources.labels.names import TEXT, Labels, Names, pieces
from dask_nmf.types import Array


@dataclass(frozen=True, eq=False)
class StackedNames:
    """Names of the old rows, followed by those of the new ones: their numbers, if they have no names."""

    old: Names
    new: Names | None
    count: int  # of the new rows
    place: str = "the rows"

    def __len__(self) -> int:
        return len(self.old) + self.count

    def read(self, first: int, last: int) -> Array:
        """Return a range of the names."""
        edge = len(self.old)
        parts = [self.old.read(first, min(last, edge))] if first < edge else []
        if last > edge:
            begin, end = max(first, edge), last
            if self.new is None:
                parts.append(np.arange(begin, end).astype(TEXT))
            else:
                parts.append(self.new.read(begin - edge, end - edge))
        return np.concatenate(parts).astype(TEXT)


@dataclass(frozen=True, eq=False)
class KeptNames:
    """Names of the rows that are left."""

    old: Names
    kept: Array  # their numbers
    place: str = "the rows"

    def __len__(self) -> int:
        return len(self.kept)

    def read(self, first: int, last: int) -> Array:
        """Return a range of the names; the old ones between them are read once."""
        chosen = self.kept[first:last]
        if not len(chosen):
            return np.empty(0, TEXT)
        names: Array = self.old.read(int(chosen[0]), int(chosen[-1]) + 1)[chosen - chosen[0]]
        return names


def check_new_names(result: StoredResult, new: Names | None) -> None:
    """Refuse new rows of which one has the name of a row of the result; empty names may repeat.

    Raises
    ------
    DataError
        With the name and both rows.
    """
    old = result.labels.rows
    if old is None or new is None:
        return
    index, first = NameIndex(new, "row"), 0
    for piece in pieces(old):
        for at in np.flatnonzero((index.find(piece.tolist()) != ABSENT) & (piece != "")):
            name = str(piece[at])
            for number, other in enumerate(chain.from_iterable(pieces(new))):
                if other == name:  # and not only its hash
                    raise DataError(
                        f"row {number} of {new.place} is named {name!r}, as row {first + at} of "
                        f"{result.location.name} is; leave rows out that the run has, or name new rows anew"
                    )
        first += len(piece)


def stacked(old: Labels, new: Labels, counts: tuple[int, int]) -> Labels:
    """Return the names after rows were added; rows have names if those of the run have."""
    rows = None if old.rows is None else StackedNames(old.rows, new.rows, counts[1])
    return Labels(rows, old.columns)


def left(old: Labels, kept: Array) -> Labels:
    """Return the names of the rows that are left."""
    rows = None if old.rows is None else KeptNames(old.rows, kept)
    return Labels(rows, old.columns)
