"""Arrays of xarray: W has the coordinates of rows, and components are arrays over the other dimensions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np

from dask_nmf.sources.decoding.stacking import COMPONENT, Dims, is_lazy, split_dims
from dask_nmf.sources.labelled.names import names_of_dims
from dask_nmf.sources.labels.names import Labels, Names
from dask_nmf.types import Array, SampleDims


@dataclass(frozen=True)
class Side:
    """The dimensions that are stacked to the rows, or the columns, of a matrix, with their coordinates."""

    dims: Dims
    shape: tuple[int, ...]
    coordinates: Any  # a Dataset without variables

    @property
    def size(self) -> int:
        """Return the number of rows or columns."""
        return math.prod(self.shape)

    @property
    def index(self) -> Any | None:
        """Return the labels of a single dimension as an index of pandas; None if there are none."""
        return self.coordinates.indexes.get(self.dims[0]) if len(self.dims) == 1 else None

    @property
    def names(self) -> Names | None:
        """Return the names that the coordinates give; None without coordinates."""
        return names_of_dims(self.dims, self.shape, self.coordinates.indexes)

    def check_same(self, other: Side) -> None:
        """Refuse an array whose features have other names or coordinates than those of the fit, this side.

        Raises
        ------
        ValueError
            If the dimensions differ, or a dimension has other coordinates.
        """
        if self.dims != other.dims:
            raise ValueError(
                f"X has features along {', '.join(map(str, other.dims))}, and those that were passed during "
                f"fit are along {', '.join(map(str, self.dims))}; transpose or rename X"
            )
        for dim in self.dims:
            mine, theirs = (side.coordinates.indexes.get(dim) for side in (self, other))
            if mine is None or theirs is None or mine.equals(theirs):
                continue
            if len(mine) != len(theirs):
                raise ValueError(
                    f"X has {len(theirs)} along {dim}, and there were {len(mine)} during fit; reindex X"
                )
            first = int(np.argmax(np.asarray(mine != theirs)))
            raise ValueError(
                f"The coordinates of {dim} should match those that were passed during fit: number {first} is "
                f"{theirs[first]} and was {mine[first]}; select or reindex X"
            )


@dataclass(frozen=True)
class ArrayForm:
    """The dimensions and coordinates of a `DataArray`."""

    samples: Side
    features: Side
    lazy: bool  # whether what has the rows of V stays an array of Dask

    @property
    def column_names(self) -> Any | None:
        return self.features.index

    @property
    def index(self) -> Any | None:
        return self.samples.index

    @property
    def labels(self) -> Labels:
        return Labels(self.samples.names, self.features.names)

    def rows(self, array: Any, names: Sequence[Any] | None) -> Any:
        return self._joined(array, _numbered("column", array.shape[1], names))

    def left(self, W: Any) -> Any:
        return self._joined(W, _components(W.shape[1])).rename("W")

    def right(self, H: Array) -> Any:
        return components_in_form(self.features, H)

    def unstacked(self, array: Any, features: Side) -> Any:
        """Return rows over the features of a fit, (samples, features), unstacked."""
        return self._joined(array, features)

    def _joined(self, array: Any, columns: Side) -> Any:
        return _join((self.samples, columns), array if self.lazy else np.asarray(array))


def array_form(array: Any, sample_dims: SampleDims) -> ArrayForm:
    """Return the form of a `DataArray`; rows are the ``sample_dims``, as `split_dims` says.

    Raises
    ------
    ValueError
        As `split_dims` does; if a dimension is called "component", as that of the result will be.
    """
    if COMPONENT in array.dims:
        raise ValueError(
            f"V has a dimension {COMPONENT!r}, which W and H will have too; give V.rename(component='...')"
        )
    return factor_form(array, sample_dims)


def factor_form(array: Any, sample_dims: SampleDims = None) -> ArrayForm:
    """Return the form of a `DataArray` that may be a factor, whose last dimension is "component"."""
    rows, columns = split_dims(array, sample_dims)
    return ArrayForm(_side(array, rows, columns), _side(array, columns, rows), is_lazy(array))


def components_in_form(features: Side, H: Any) -> Any:
    """Return H (k, n) as an array over components and the dimensions of the features."""
    return _join((_components(len(H)), features), np.asarray(H)).rename("H")


def _join(sides: tuple[Side, Side], matrix: Any) -> Any:
    """Return a matrix, of NumPy or Dask, unstacked to a `DataArray` with the coordinates of both sides."""
    xarray: Any = import_module("xarray")
    first, second = sides
    values = matrix.reshape(*first.shape, *second.shape)
    own = [name for name in second.coordinates.coords if name not in first.coordinates.coords]
    coordinates = first.coordinates.merge(second.coordinates[own], compat="override", join="override")
    return xarray.DataArray(values, coordinates.coords, (*first.dims, *second.dims))


def _side(array: Any, dims: Dims, others: Dims) -> Side:
    """Return a side of an array; a coordinate that lies along both sides belongs to neither."""
    across = [
        name
        for name, coordinate in array.coords.items()
        if not set(coordinate.dims) <= set(dims) and not set(coordinate.dims) <= set(others)
    ]
    first = array.drop_vars(across).isel(dict.fromkeys(others, 0), drop=True)
    return Side(dims, tuple(array.sizes[dim] for dim in dims), first.coords.to_dataset())


def _components(number: int) -> Side:
    return _numbered(COMPONENT, number, range(number))


def _numbered(dim: str, size: int, names: Sequence[Any] | None) -> Side:
    xarray: Any = import_module("xarray")
    labels = {} if names is None else {dim: list(names)}
    return Side((dim,), (size,), xarray.Dataset(coords=labels))
