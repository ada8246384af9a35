"""The W of rows that a fit had not, as an output of transform holds it."""

from __future__ import annotations

from typing import Any

import zarr

from dask_nmf.results.sides import Side
from dask_nmf.sources.checks import check_chunks, check_stored
from dask_nmf.sources.labels.stored import StoredNames
from dask_nmf.storage.arrays.factors import TRANSFORMED, ZarrFactor, reporting_damage, strict_array
from dask_nmf.storage.locations import Location


def transformed_side(place: Location) -> Side | None:
    """Return the W of an output of transform, with the names of its rows; None for anything else.

    Raises
    ------
    InvalidRunError
        If the output is damaged.
    """
    try:
        group = zarr.open_group(place.store(), mode="r")
    except Exception:  # whoever opens a run at this place says what is wrong with it
        return None
    if TRANSFORMED not in group.attrs:
        return None
    W, names = _array(place, group, "W"), None
    if "row" in group:
        names = StoredNames(_array(place, group, "row"), f"{place.name}/row")
    return Side("row", W.shape[0], W.shape[1], W.dtype, names, ZarrFactor(W))


def _array(place: Location, group: zarr.Group, name: str) -> Any:
    with reporting_damage(place.name):
        array: Any = group[name]
        check_chunks(array, name)
        check_stored(array, name, whole=True)
    return strict_array(array)
