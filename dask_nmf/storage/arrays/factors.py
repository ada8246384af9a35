"""Factors in Zarr arrays, read and written by rows, and errors that name damage to a run."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import zarr
from zarr.abc.store import ByteRequest
from zarr.core.array import AsyncArray
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.errors import ZarrUserWarning
from zarr.storage import StorePath

from dask_nmf.errors import DataError, InvalidRunError, readable
from dask_nmf.storage.arrays.chunks import StrictStore
from dask_nmf.types import Array

TRANSFORMED = "dask_nmf_transform"  # the attribute of a group with the W of rows that a fit had not
CURE = "restore it, or remove it and begin anew"


@dataclass(frozen=True)
class ZarrFactor:
    """A factor in a Zarr array, read and written by rows.

    Attributes
    ----------
    transposed : whether the array holds the transpose of the factor, as that of H does
    whole : whether no entry is NaN, so that a NaN that is read stands for a lost chunk
    """

    array: zarr.Array[Any]
    transposed: bool = False
    whole: bool = False

    def read(self, first: int, last: int) -> Array:
        """Return rows of the factor, (last − first, k).

        Raises
        ------
        InvalidRunError
            If one of their chunks is lost.
        """
        name = getattr(self.array, "store_path", "a factor")
        with readable(name, CURE):
            block = np.asarray(self.array[:, first:last] if self.transposed else self.array[first:last])
        rows = block.T if self.transposed else block
        if self.whole and np.isnan(rows[:, 0]).any():  # a chunk holds whole rows
            raise InvalidRunError(
                f"{name} is damaged: a part of rows {first} to {last - 1} was there and is no more; "
                "run the same command again to go on from what is left, or to begin anew if nothing is"
            )
        return rows

    def write(self, first: int, w: Array) -> None:
        """Write rows of the factor, beginning at row ``first``."""
        last = first + len(w)
        if self.transposed:
            self.array[:, first:last] = w.T
        else:
            self.array[first:last] = w


class _LastingStore(StrictStore):
    """The store of a result: a chunk that is not there was lost, or deleted with the result."""

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Return a value of the store; raise `InvalidRunError` if it is a chunk that is not there."""
        try:
            return await super().get(key, prototype, byte_range)
        except LookupError as error:
            raise InvalidRunError(
                f"{self}: {error}: it was lost, or its run was overwritten or removed; load the run anew"
            ) from None


def strict_array(array: zarr.Array[Any]) -> zarr.Array[Any]:
    """Return an array, all of whose chunks are stored, as one that raises `InvalidRunError` for a lost chunk.

    Zarr itself reads a chunk that is not there as the fill value.
    """
    place = array.store_path
    return zarr.Array(AsyncArray(array.metadata, StorePath(_LastingStore(place.store), place.path)))


@contextmanager
def reporting_damage(path: str) -> Iterator[None]:
    """Raise `InvalidRunError` if a part of a run cannot be read, or contradicts the other parts."""
    try:
        with readable(path, CURE):
            yield
    except (FileNotFoundError, DataError) as error:
        raise InvalidRunError(f"{path} is damaged: {error.__cause__ or error}; {CURE}") from error


def consolidate(group: zarr.Group) -> zarr.Group:
    """List the arrays of a group in its own metadata, which xarray reads; return the group."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ZarrUserWarning)
        return zarr.consolidate_metadata(group.store)
