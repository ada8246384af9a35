"""Numbers of rows or columns by their names, at 16 bytes a name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import zarr

from dask_nmf.sources.labels.names import Names, in_memory, pieces
from dask_nmf.sources.labels.stored import StoredNames
from dask_nmf.types import Array

ABSENT, REPEATED = -1, -2  # in place of numbers


class NameIndex:
    """The numbers of names.

    Sorted hashes of 64 bits stand for the names, so that ten million take 160 MB however long they are.

    Parameters
    ----------
    names : the names, which are read once.
    dimension : "row" or "column", for messages.
    """

    def __init__(self, names: Names, dimension: str) -> None:
        parts = [np.array([hash(name) for name in piece.tolist()], np.int64) for piece in pieces(names)]
        hashes = np.concatenate(parts)
        self._order = np.argsort(hashes, kind="stable")
        self._hashes = hashes[self._order]
        self._dimension = dimension

    def find(self, wanted: Sequence[str]) -> Array:
        """Return the numbers of names, `ABSENT` or `REPEATED` for those that no or several lines have."""
        hashes = np.array([hash(name) for name in wanted], np.int64)
        first = np.searchsorted(self._hashes, hashes, side="left")
        number = np.searchsorted(self._hashes, hashes, side="right") - first
        at = self._order[np.minimum(first, len(self._order) - 1)]
        return np.select([number == 1, number == 0], [at, ABSENT], REPEATED)

    def describe(self, name: str) -> str:
        """Return the message for a name that stands for no or for several lines."""
        dimension, number = self._dimension, int(np.searchsorted(self._hashes, hash(name), side="right"))
        start = int(np.searchsorted(self._hashes, hash(name), side="left"))
        if start == number:
            known = name != name.strip() and self.find([name.strip()])[0] != ABSENT
            cure = f", and {name.strip()!r} is one; leave the blanks around it out" if known else ""
            return f"{name!r} is no name of a {dimension} of the run{cure}"
        one, other = self._order[start : start + 2]
        return f"{name!r} is the name of {number - start} {dimension}s, such as {one} and {other}"


def as_names(values: Any, place: str) -> Names:
    """Return names that a caller gives, such as ``StoredResult.row_names``, a list or an index of pandas."""
    return StoredNames(values, place) if isinstance(values, zarr.Array) else in_memory(values, place)
