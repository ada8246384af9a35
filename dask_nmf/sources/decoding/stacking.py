"""Arrays of xarray of any number of dimensions as matrices: some dimensions make rows, the others columns."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable
from typing import Any

from dask_nmf.types import SampleDims

COMPONENT = "component"  # the dimension of a factor along its components
Dims = tuple[Hashable, ...]


def is_lazy(array: Any) -> bool:
    """Return whether an array of xarray reads, or computes, its values only when they are asked for."""
    return not (array.chunks is None and getattr(array, "variable", array)._in_memory)


def split_dims(array: Any, sample_dims: SampleDims = None, name: str = "V") -> tuple[Dims, Dims]:
    """Return the dimensions that make the rows of a matrix, and those that make its columns.

    By default the rows are the first dimension, or all but the last if that is "component", as it is in the W
    of a fit.

    Parameters
    ----------
    sample_dims : one dimension or several that make the rows.
    name : how messages call the array.

    Raises
    ------
    ValueError
        If one of them is not a dimension of the array, or no dimension is left on one side.
    """
    dims: Dims = tuple(array.dims)
    if sample_dims is None:
        first = max(1, len(dims) - 1) if dims[-1:] == (COMPONENT,) else 1
        return dims[:first], dims[first:]
    rows = (sample_dims,) if isinstance(sample_dims, str) else _as_tuple(sample_dims)
    columns = tuple(dim for dim in dims if dim not in rows)
    if not rows or not columns or set(rows) - set(dims) or len(set(rows)) < len(rows):
        raise ValueError(
            f"sample_dims is {sample_dims!r} and {name} has the dimensions {', '.join(map(str, dims))}; name "
            "some of them, each once, but not all"
        )
    return rows, columns


def _as_tuple(sample_dims: SampleDims) -> Dims:
    return tuple(sample_dims) if isinstance(sample_dims, Iterable) else (sample_dims,)


def stack_dims(array: Any, sample_dims: SampleDims = None, name: str = "V") -> Any:
    """Return an array of xarray as one of two dimensions, with the last dimension of a side varying fastest.

    Nothing is read: what Dask holds stays lazy, and an array that xarray reads from a file becomes an array
    of Dask, in chunks that are made of chunks of the file. An array of two dimensions in order, or of fewer,
    is returned as it is.
    """
    if len(array.dims) < 2:
        return array
    sides = split_dims(array, sample_dims, name)
    if sides == ((array.dims[0],), (array.dims[1],)) and len(array.dims) == 2:
        return array
    held = array.chunk("auto") if is_lazy(array) and array.chunks is None else array
    upright = getattr(held, "variable", held).transpose(*sides[0], *sides[1])
    shape = [math.prod(array.sizes[dim] for dim in side) for side in sides]
    return type(upright)(("row", "column"), upright.data.reshape(shape), array.attrs)
