"""The arrays of a run that are shown before its answer is there: those of its last commit.

Such an array has no metadata object of its own. The consolidated metadata of the group, in the one object
that a commit replaces whole, is all that names it. Its chunks are named after the slot that they are in, by
the chunk key encodings of Zarr v3. So several slots have room below one name, and are shown without a copy::

    H/0.0      slot 0
    H/c.0.0    slot 1
    H/0/0      slot 2
    H/c/0/0    the answer
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import zarr
from zarr.abc.store import Store
from zarr.core.sync import sync

from dask_nmf import plan

ENCODINGS = (
    {"name": "v2", "separator": "."},
    {"name": "default", "separator": "."},
    {"name": "v2", "separator": "/"},
)
SLOTTED = re.compile(r"(c\.)?\d+(\.\d+)*", re.ASCII)  # how a slot's chunks, or the folders of them, are named
ANSWERED = "c"  # where the chunks of an answer are, below the name of its array


class Layout(NamedTuple):
    """How an array is stored."""

    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    dtype: str
    dimensions: tuple[str, ...]


def factor(group: zarr.Group, told: dict[str, Any], slot: int) -> zarr.Array[Any]:
    """Return the place of the factor that panels are given: H (k, n), or W (m, k) where they are columns."""
    (m, n), rank, dtype = told["matrix"]["shape"], told["settings"]["rank"], told["matrix"]["dtype"]
    if told["matrix"]["transposed"]:
        return _array(group, "W", Layout((m, rank), (m, rank), dtype, ("row", "component")), slot)
    return _array(group, "H", Layout((rank, n), (rank, n), dtype, ("component", "column")), slot)


def pieces(group: zarr.Group, told: dict[str, Any], cuts: Sequence[int], slot: int) -> zarr.Array[Any]:
    """Return the place of that factor by rows, (columns, k), where it is in pieces."""
    name, rank = "W" if told["matrix"]["transposed"] else "H", told["settings"]["rank"]
    dimensions = {"W": ("row", "component"), "H": ("column", "component")}[name]
    layout = Layout((cuts[-1], rank), (plan.unit(cuts), rank), told["matrix"]["dtype"], dimensions)
    return _array(group, name, layout, slot)


def write_histories(group: zarr.Group, told: dict[str, Any]) -> None:
    """Write the histories of a record into its slot."""
    for name, array in _histories(group, told).items():
        array[...] = np.asarray(told["history"][name.removeprefix("history_")], np.float64)


def shown(group: zarr.Group, told: dict[str, Any], cuts: Sequence[int] | None) -> dict[str, zarr.Array[Any]]:
    """Return the arrays of the commit that a record tells, by name: the factor where it is known, histories.

    Nothing is known of it where one factor is fixed, or where it so far comes from a part of the columns.
    """
    if told["pass"] is None:
        return {}
    arrays = _histories(group, told)
    fixed = any(told["settings"].get(name) is not None for name in ("fixed_W", "fixed_H"))
    if cuts is None and not fixed:
        known = factor(group, told, told["pass"] % 2)
    elif cuts is not None and told["state"]["slot"] >= 0:
        known = pieces(group, told, cuts, told["state"]["slot"])
    else:
        return arrays
    return {known.basename: known, **arrays}


def publish(
    group: zarr.Group, names: Iterable[str], shown: Mapping[str, zarr.Array[Any]], attributes: dict[str, Any]
) -> None:
    """List those arrays of these names that are shown, and replace the attributes, in one write."""
    listed = group.metadata.consolidated_metadata
    if listed is not None:
        for name in names:
            listed.metadata.pop(name, None)
        listed.metadata.update({name: array.metadata for name, array in shown.items()})
    group.attrs.put(attributes)


def make_room(group: zarr.Group, name: str) -> None:
    """Delete an array of an earlier answer, if there is one, and leave those of the slots."""
    place = group.store_path / name
    sync(place.store.delete(f"{place.path}/zarr.json"))
    sync(place.store.delete_dir(f"{place.path}/{ANSWERED}"))


def delete(group: zarr.Group, names: Iterable[str]) -> None:
    """Delete all that is stored below these names."""
    for name in names:
        sync(group.store.delete_dir((group.store_path / name).path))


def delete_slots(group: zarr.Group, names: Iterable[str]) -> None:
    """Delete the chunks of all slots of the arrays of these names, and leave those of the answer."""
    for name in names:
        place = group.store_path / name
        found = sync(_entries(place.store, place.path))
        for entry in filter(SLOTTED.fullmatch, found):
            sync(place.store.delete(f"{place.path}/{entry}"))
            sync(place.store.delete_dir(f"{place.path}/{entry}"))


async def _entries(store: Store, path: str) -> list[str]:
    return [name async for name in store.list_dir(path)]


def _histories(group: zarr.Group, told: dict[str, Any]) -> dict[str, zarr.Array[Any]]:
    passes = told["pass"]
    layout = Layout((passes,), (max(passes, 1),), "float64", ("pass",))
    return {name: _array(group, name, layout, passes % 2) for name in ("history_loss", "history_seconds")}


def _array(group: zarr.Group, name: str, layout: Layout, slot: int) -> zarr.Array[Any]:
    """Return the array of a slot, to be read and written. Nothing is written by that."""
    described = zarr.create_array(
        {},
        shape=layout.shape,
        chunks=layout.chunks,
        dtype=layout.dtype,
        dimension_names=layout.dimensions,
        fill_value=np.nan,  # zarr leaves out chunks of the fill value: so all of a factor are there, or lost
        chunk_key_encoding=ENCODINGS[slot],  # type: ignore[arg-type]
    )
    return zarr.Array.from_dict(group.store_path / name, described.metadata.to_dict())
