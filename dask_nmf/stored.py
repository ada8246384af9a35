"""Arrays of runs and other outputs, by rows, and how damage to them is told."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import zarr
from zarr.errors import ZarrUserWarning

from dask_nmf.errors import DataError, readable
from dask_nmf.kernels import Array

CURE = "restore it, or remove it and begin anew"


class NotARun(ValueError):
    """What is at the path is not a run that this version can read."""


@dataclass(frozen=True)
class StoredWeights:
    """A factor in Zarr, by rows; ``transposed`` where the array holds its transpose (H).

    ``whole``: it has no entry that is NaN. One that is read is then of a chunk that was lost.
    """

    array: zarr.Array[Any]
    transposed: bool = False
    whole: bool = False

    def read(self, first: int, last: int) -> Array:
        """Return rows of the factor, (last − first, k).

        Raises
        ------
        NotARun
            If a chunk of them is lost.
        """
        place = getattr(self.array, "store_path", "a factor")
        with readable(place, CURE):
            block = np.asarray(self.array[:, first:last] if self.transposed else self.array[first:last])
        rows = block.T if self.transposed else block
        if self.whole and np.isnan(rows[:, 0]).any():  # chunks are of whole rows
            raise NotARun(
                f"{place} is damaged: a part of rows {first} to {last - 1} was there and is no more; "
                "run the same command again, to go on from what is there"
            )
        return rows

    def write(self, first: int, w: Array) -> None:
        """Write rows of the factor, from the first one on."""
        last = first + len(w)
        if self.transposed:
            self.array[:, first:last] = w.T
        else:
            self.array[first:last] = w


@contextmanager
def sound(path: str) -> Iterator[None]:
    """Call a run damaged of which some part cannot be read, or is not as the others have it.

    Raises
    ------
    NotARun
    """
    try:
        with readable(path, CURE):
            yield
    except (FileNotFoundError, DataError) as error:
        raise NotARun(f"{path} is damaged: {error.__cause__ or error}; {CURE}") from error


def consolidate(group: zarr.Group) -> zarr.Group:
    """List the arrays of a group in its own metadata, as xarray wants it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ZarrUserWarning)
        return zarr.consolidate_metadata(group.store)
