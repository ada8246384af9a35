"""`Opener`, which each kind of input has, and `OpenOptions`, which say how a matrix is wanted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from dask_nmf.sources.matrix import Matrix
from dask_nmf.storage.locations import Location, is_location
from dask_nmf.types import Orientation

FILES = "a Zarr array, a CSR or CSC matrix in a Zarr group, an .npy or an .npz file"


class OpenOptions(NamedTuple):
    """The dtype, the orientation and the name that a caller wants a matrix to have."""

    dtype: str | np.dtype[Any] | None = None  # of the panels; None: see `checks.working_dtype`
    orientation: Orientation | None = None  # None: panels are whichever are more, rows or columns
    name: str = "V"  # how messages call the matrix

    def orientation_of(self, shape: tuple[int, int]) -> Orientation:
        """Return the orientation of the panels, for a source of this shape that can be cut either way."""
        longer = Orientation.COLUMNS if shape[0] < shape[1] else Orientation.ROWS
        return longer if self.orientation is None else self.orientation


class Opener(NamedTuple):
    """A kind of input: how it is recognised, and how it is opened.

    Paths and URLs come to an opener as a `Location`, and at a path there is something. All other sources come
    as the objects that they are.
    """

    can_open: Callable[[Any], bool]
    open: Callable[[Any, OpenOptions], Matrix]
    location_of: Callable[[Any], Location | None] = lambda source: None  # where an object's content lies


def ends_with(source: Any, suffix: str) -> bool:
    """Return whether a source is a location with a suffix."""
    return is_location(source) and source.address.lower().endswith(suffix)


def nothing_at(location: Location) -> FileNotFoundError:
    """Return the error for a location where nothing is."""
    kind = "URL" if location.path is None else "path"
    return FileNotFoundError(f"there is nothing at {location.name}; give the {kind} of {FILES}")
