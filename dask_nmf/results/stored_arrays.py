"""Checks of the arrays of a run: all chunks are there, can be decoded, and hold what NMF gives."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import zarr

from dask_nmf.errors import DataError, InvalidRunError, readable
from dask_nmf.runs.commits import VISIBLE
from dask_nmf.runs.record.contents import HISTORIES
from dask_nmf.runs.record.layouts import named_dimensions, result_layouts
from dask_nmf.runs.run import Run
from dask_nmf.runs.stored_result import StoredResult
from dask_nmf.storage.arrays.factors import CURE
from dask_nmf.types import Array
from dask_nmf.wording import counted


class Check(NamedTuple):
    """One thing that was checked.

    Attributes
    ----------
    name : what was checked
    passed : whether it is as it must be; None if it could not be checked
    text : what was found

    Examples
    --------
    >>> from dask_nmf import nmf
    >>> from dask_nmf.results import verify
    >>> result = nmf([[1.0, 3.0], [2.0, 6.0]], 1, store="run.zarr")
    >>> {check.name: check.passed for check in verify("run.zarr")}["H"]
    True
    """

    name: str
    passed: bool | None
    text: str


def checked(name: str, find: Callable[[], str]) -> Check:
    """Return a check that passes with the text that is found, and fails with that of an error."""
    try:
        return Check(name, True, find())
    except (InvalidRunError, DataError, ValueError) as error:
        return Check(name, False, " ".join(str(error).split()))


def array_checks(run: Run, result: StoredResult) -> Iterator[Check]:
    """Yield a check for each array of a result and for its names, and one for all that is shown."""
    for name in result_layouts(result.record):
        yield checked(name, lambda name=name: _sound(result, name))  # type: ignore[misc]
    for dimension in named_dimensions(result.record):
        yield checked(f"{dimension} names", lambda dimension=dimension: _decoded(result, dimension))  # type: ignore[misc]
    yield checked("shown", lambda: _shown(run, result))


def _sound(result: StoredResult, name: str) -> str:
    """Return the shape of an array of a result, all of which is read; raise `ValueError` if it is damaged."""
    array = result.array(name)
    may_be_nan = name.endswith("_mean") or name in HISTORIES
    chunks = 0
    for _, block in _chunks(array, name):
        chunks += 1
        bad = ~((block >= 0) & ((block < np.inf) | (name in HISTORIES)))
        if may_be_nan:
            bad &= ~np.isnan(block)
        if bad.any():
            raise ValueError(f"it has {block[bad][0]} where numbers >= 0 must be; restore the run")
    if name in HISTORIES:
        _compare_history(result, name)
    shape = " x ".join(map(str, array.shape))
    return f"{shape}, {chunks} chunk{'s' if chunks != 1 else ''} decoded, finite and >= 0"


def _decoded(result: StoredResult, dimension: str) -> str:
    """Return the number of names along a dimension, all of which are read."""
    names = {"row": result.row_names, "column": result.column_names}[dimension]
    assert names is not None
    chunks = sum(1 for _ in _chunks(names, dimension))
    return f"{counted(names.shape[0], 'name')}, {counted(chunks, 'chunk')} decoded"


def _compare_history(result: StoredResult, name: str) -> None:
    """Refuse a history that is not that of the record."""
    recorded = np.array(
        [np.inf if one is None else one for one in result.record["history"][HISTORIES[name]]], np.float64
    )
    stored = np.where(np.isnan(stored := result.read(name)), np.inf, stored)
    if not np.array_equal(recorded, stored):
        raise ValueError("it differs from the history in the record; restore the run")


def _shown(run: Run, result: StoredResult) -> str:
    """Compare the arrays that zarr and xarray show with those of the result, and return their names."""
    if run.record["result"]["folder"] != result.record["folder"] or not run.record["finished"]:
        return "not compared, because a fit goes on in the run"
    group = zarr.open_group(run.location.store(), mode="r")
    arrays = {name: result.array(name) for name in VISIBLE if name in result_layouts(result.record)}
    named = {"row": result.row_names, "column": result.column_names}
    arrays |= {dimension: names for dimension, names in named.items() if names is not None}
    for name, stored in arrays.items():
        array = group.get(name)
        if not isinstance(array, zarr.Array) or array.shape != stored.shape:
            raise ValueError(f"{name} is not the array of the result; copy the whole run again")
        for index, block in _chunks(stored, name):
            with readable(f"{run.location.name}/{name}", CURE):
                other = np.asarray(array[index])
            if not np.array_equal(block, other, equal_nan=name not in named):
                raise ValueError(f"{name} differs from the array of the result; copy the whole run again")
    return f"{', '.join(arrays)} as zarr and xarray read them are those of the result"


def _chunks(array: zarr.Array[Any], name: str) -> Iterator[tuple[tuple[slice, ...], Array]]:
    """Yield the chunks of an array, each decoded by itself, with their places."""
    starts = [range(0, size, cut) for size, cut in zip(array.shape, array.chunks, strict=True)]
    for corner in product(*starts):
        index = tuple(slice(at, at + cut) for at, cut in zip(corner, array.chunks, strict=True))
        with readable(name, CURE):
            block = np.asarray(array[index])
        yield index, block
