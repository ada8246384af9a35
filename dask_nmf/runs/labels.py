"""Names of rows and columns in a run: written once with its start, shown beside H and W, read in ranges.

The record, and that of the result, names the folder that they are in and the dimensions that have names. A
run of a V without names has no such part.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import zarr

from dask_nmf.runs.commits import Commits
from dask_nmf.runs.record.layouts import DIMENSIONS, named_dimensions, names_layout
from dask_nmf.sources.checks import check_chunks, check_stored
from dask_nmf.sources.labels.names import Labels, copy_names
from dask_nmf.sources.labels.stored import StoredNames
from dask_nmf.storage.arrays import write_once
from dask_nmf.storage.arrays.factors import reporting_damage, strict_array
from dask_nmf.storage.arrays.links import VisibleArrays
from dask_nmf.storage.arrays.write_once import DATA
from dask_nmf.storage.locations import Location


def write_labels(commits: Commits, labels: Labels) -> dict[str, Any]:
    """Write names to a new folder of data, piece by piece; return the part of the record that names it."""
    sides = zip(DIMENSIONS, (labels.rows, labels.columns), strict=True)
    named = {dimension: names for dimension, names in sides if names is not None}
    if not named:
        return {}
    folder = commits.new_folder("labels")
    for dimension, names in named.items():
        layout = names_layout(commits.record, dimension)
        copy_names(names, write_once.open_array(commits.group, f"{DATA}/{folder}/{dimension}", layout))
    return {"labels": {"folder": folder, "named": list(named)}}


def visible_names(record: dict[str, Any], dimensions: Iterable[str] = DIMENSIONS) -> VisibleArrays:
    """Return the names along some dimensions as arrays that are shown, as far as there are any."""
    named = [dimension for dimension in dimensions if dimension in named_dimensions(record)]
    return {dimension: (_path(record, dimension), names_layout(record, dimension)) for dimension in named}


def open_names(
    location: Location, group: zarr.Group, record: dict[str, Any], dimension: str
) -> zarr.Array[Any] | None:
    """Return the names along a dimension, to be read in ranges; None if it has none.

    Raises
    ------
    InvalidRunError
        If a chunk of them is lost, now or when it is read.
    """
    if dimension not in named_dimensions(record):
        return None
    layout = names_layout(record, dimension)
    array = write_once.open_array(group, _path(record, dimension), layout)
    with reporting_damage(location.name):
        check_chunks(array, dimension)
        check_stored(array, dimension, whole=True)
    return strict_array(array)


def open_labels(location: Location, group: zarr.Group, record: dict[str, Any]) -> Labels:
    """Return the names of rows and columns in a run, to be read in ranges; raise as `open_names` does."""
    sides = ((side, open_names(location, group, record, side)) for side in DIMENSIONS)
    return Labels(
        *(names if names is None else StoredNames(names, f"{location.name}/{side}") for side, names in sides)
    )


def _path(record: dict[str, Any], dimension: str) -> str:
    return f"{DATA}/{record['labels']['folder']}/{dimension}"
