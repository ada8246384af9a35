"""Arrays of runs and other outputs, by rows, and how damage to them is told."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import zarr
from zarr.abc.store import ByteRequest
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.errors import ZarrUserWarning
from zarr.storage import StorePath

from dask_nmf.errors import DataError, InvalidRunError, readable
from dask_nmf.storage.arrays.chunks import StrictStore
from dask_nmf.types import Array

CURE = "restore it, or remove it and begin anew"


@dataclass(frozen=True)
class ZarrFactor:
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
        InvalidRunError
            If a chunk of them is lost.
        """
        place = getattr(self.array, "store_path", "a factor")
        with readable(place, CURE):
            block = np.asarray(self.array[:, first:last] if self.transposed else self.array[first:last])
        rows = block.T if self.transposed else block
        if self.whole and np.isnan(rows[:, 0]).any():  # chunks are of whole rows
            raise InvalidRunError(
                f"{place} is damaged: a part of rows {first} to {last - 1} was there and is no more; "
                "run the same command again to go on from what is left, or to begin anew if nothing is"
            )
        return rows

    def write(self, first: int, w: Array) -> None:
        """Write rows of the factor, from the first one on."""
        last = first + len(w)
        if self.transposed:
            self.array[:, first:last] = w.T
        else:
            self.array[first:last] = w


class _LastingStore(StrictStore):
    """The store of an answer: a chunk that is not there was lost, or went with the answer."""

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """As of the store; raises `InvalidRunError` for a chunk."""
        try:
            return await super().get(key, prototype, byte_range)
        except LookupError as error:
            raise InvalidRunError(
                f"{self}: {error}: it was lost, or its run was overwritten or removed; load the run anew"
            ) from None


def strict_array(array: zarr.Array[Any]) -> zarr.Array[Any]:
    """Return an array that has all of its chunks as one that raises `InvalidRunError` where one is no more.

    Zarr reads a chunk that is not there as the fill value.
    """
    place = array.store_path
    return zarr.Array.from_dict(StorePath(_LastingStore(place.store), place.path), array.metadata.to_dict())


@contextmanager
def reporting_damage(path: str) -> Iterator[None]:
    """Call a run damaged of which some part cannot be read, or is not as the others have it.

    Raises
    ------
    InvalidRunError
    """
    try:
        with readable(path, CURE):
            yield
    except (FileNotFoundError, DataError) as error:
        raise InvalidRunError(f"{path} is damaged: {error.__cause__ or error}; {CURE}") from error


def consolidate(group: zarr.Group) -> zarr.Group:
    """List the arrays of a group in its own metadata, as xarray wants it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ZarrUserWarning)
        return zarr.consolidate_metadata(group.store)
