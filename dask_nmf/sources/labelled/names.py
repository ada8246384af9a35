"""Names of rows and columns that labelled objects bring, as text, read by ranges when a run stores them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dask_nmf.cluster.watch import compute_watched
from dask_nmf.sources.labels.names import TEXT, Names, as_text, in_memory, label_as_text
from dask_nmf.types import Array


@dataclass(frozen=True, eq=False)
class IndexNames:
    """The labels of an index of pandas; those of several levels are joined by commas."""

    index: Any
    place: str

    def __len__(self) -> int:
        return len(self.index)

    def read(self, first: int, last: int) -> Array:
        """Return a range of the names."""
        return _as_names(self.index[first:last])


@dataclass(frozen=True, eq=False)
class PartitionNames:
    """The labels of the index of a Dask DataFrame, whose partitions are computed when they are read."""

    parts: Sequence[Any]  # delayed indexes
    starts: Array  # of the partitions, and the end of the last one
    place: str

    def __len__(self) -> int:
        return int(self.starts[-1])

    def read(self, first: int, last: int) -> Array:
        """Return a range of the names."""
        begin, end = np.searchsorted(self.starts, (first, last - 1), side="right")
        indexes: list[Any] = compute_watched(list(self.parts[begin - 1 : end]))
        names = np.concatenate([_as_names(index) for index in indexes])
        offset = int(self.starts[begin - 1])
        return names[first - offset : last - offset]


@dataclass(frozen=True, eq=False)
class StackedNames:
    """The labels of stacked dimensions, such as "y=50.0, x=8.5"; one without coordinates is numbered."""

    dims: Sequence[Any]
    labels: Sequence[Array]  # of dtype `TEXT`, one for each dimension
    place: str

    def __len__(self) -> int:
        return int(np.prod([len(labels) for labels in self.labels]))

    def read(self, first: int, last: int) -> Array:
        """Return a range of the names."""
        places = np.unravel_index(np.arange(first, last), [len(labels) for labels in self.labels])
        columns = [labels[place] for labels, place in zip(self.labels, places, strict=True)]
        return np.array(
            [
                ", ".join(f"{dim}={value}" for dim, value in zip(self.dims, values, strict=True))
                for values in zip(*columns, strict=True)
            ],
            TEXT,
        )


def _as_names(index: Any) -> Array:
    if getattr(index, "nlevels", 1) > 1:
        return np.array([", ".join(map(label_as_text, label)) for label in index], TEXT)
    return as_text(np.asarray(index))


def names_of_index(index: Any, side: str) -> Names | None:
    """Return the names in an index of pandas, or in a list of names; None for one that only counts.

    Parameters
    ----------
    side : how messages call it, such as "the columns".
    """
    if index is None or type(index).__name__ == "RangeIndex":
        return None
    return in_memory(index, side) if isinstance(index, list) else IndexNames(index, side)


def names_of_partitions(index: Any, heights: Sequence[int]) -> Names | None:
    """Return the names in an index of Dask; None for numbers without a name, which files count anew."""
    meta = index._meta
    if meta.name is None and meta.dtype.kind in "iu":
        return None
    starts = np.cumsum([0, *heights])
    return PartitionNames(index.to_delayed(), starts, "the index of V")


def names_of_dims(dims: Sequence[Any], shape: Sequence[int], indexes: Any) -> Names | None:
    """Return the names of stacked dimensions; None if none of them has coordinates."""
    if not any(dim in indexes for dim in dims):
        return None
    if len(dims) == 1:
        return IndexNames(indexes[dims[0]], f"the coordinate {dims[0]}")
    labels = [
        _as_names(indexes[dim]) if dim in indexes else np.arange(size).astype(TEXT)
        for dim, size in zip(dims, shape, strict=True)
    ]
    return StackedNames(dims, labels, f"the coordinates of {', '.join(map(str, dims))}")
