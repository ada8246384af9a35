"""Names of rows when rows are added or taken out."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain

import numpy as np

from dask_nmf.errors import DataError
from dask_nmf.runs.stored_result import StoredResult
from dask_nmf.sources.labels.index import ABSENT, NameIndex
from dask_nmf.sources.labels.names import TEXT, Labels, Names, pieces
from dask_nmf.sources.matrix import Matrix
from dask_nmf.types import Array


@dataclass(frozen=True, eq=False)
class Numbers:
    """The numbers of rows in a run, as names of new rows that have none."""

    first: int
    count: int
    place: str

    def __len__(self) -> int:
        return self.count

    def read(self, first: int, last: int) -> Array:
        """Return a range of the names."""
        return np.arange(self.first + first, self.first + last).astype(TEXT)


@dataclass(frozen=True, eq=False)
class StackedNames:
    """Names of the old rows, followed by those of the new ones."""

    old: Names
    new: Names
    place: str = "the rows"

    def __len__(self) -> int:
        return len(self.old) + len(self.new)

    def read(self, first: int, last: int) -> Array:
        """Return a range of the names."""
        edge = len(self.old)
        parts = [self.old.read(first, min(last, edge))] if first < edge else []
        if last > edge:
            parts.append(self.new.read(max(first, edge) - edge, last - edge))
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


def names_of_new_rows(result: StoredResult, matrix: Matrix) -> Names | None:
    """Return the names that new rows get in a run: their own, or their numbers in it if they have none.

    Rows of a run without names get none.

    Raises
    ------
    DataError
        If the name of a new row is that of a row of the run; empty names may repeat.
    """
    old = result.labels.rows
    if old is None:
        return None
    new = matrix.labels.rows or Numbers(len(old), matrix.shape[0], matrix.name)
    index, first = NameIndex(new, "row"), 0
    for piece in pieces(old):
        for at in np.flatnonzero((index.find(piece.tolist()) != ABSENT) & (piece != "")):
            name = str(piece[at])
            for number, other in enumerate(chain.from_iterable(pieces(new))):
                if other == name:  # and not only its hash
                    raise _repeated(new, number, name, f"row {first + at} of {result.location.name}")
        first += len(piece)
    return new


def _repeated(new: Names, number: int, name: str, owner: str) -> DataError:
    """Return the refusal of a new row whose name another row has, which is described."""
    if isinstance(new, Numbers):
        return DataError(
            f"row {number} of {new.place} has no name, and {owner} is named {name!r}, the number that it "
            "would get for a name; give the names of the new rows"
        )
    return DataError(
        f"row {number} of {new.place} is named {name!r}, as {owner} is; "
        "leave rows out that the run has, or name new rows anew"
    )


def stacked(old: Labels, new: Names | None) -> Labels:
    """Return the names after rows were added, whose names are given if the run has names of rows."""
    rows = None if old.rows is None or new is None else StackedNames(old.rows, new)
    return Labels(rows, old.columns)


def left(old: Labels, kept: Array) -> Labels:
    """Return the names of the rows that are left."""
    rows = None if old.rows is None else KeptNames(old.rows, kept)
    return Labels(rows, old.columns)
