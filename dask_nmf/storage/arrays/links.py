"""Links that show arrays of a run under plain names: H, W and histories of its result or last commit.

`zarr` and `xarray` show these arrays. They are hard links to the files below ``data/`` on a disk, and copies
that the store makes in an object store; dask_nmf itself never reads them. The consolidated metadata of the
group, which are in the one object that a commit replaces whole, name them. The chunk key encodings of Zarr v3
give two sets of names below one array. Commits alternate between them, so that arrays that were shown stay
until the next commit::

    H/c/0/0    in one commit
    H/c.0.0    in the next one
"""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import zarr
from zarr.abc.store import Store
from zarr.core.buffer import default_buffer_prototype
from zarr.core.group import AsyncGroup, ConsolidatedMetadata, GroupMetadata
from zarr.core.sync import sync
from zarr.storage import LocalStore, StorePath

from dask_nmf.storage.arrays import write_once
from dask_nmf.storage.arrays.write_once import Layout
from dask_nmf.storage.local.filesystem import link_or_copy, make_folder, replace
from dask_nmf.storage.objects.object_store import ObjectStore

NAMES = re.compile(r"c(\.\d+)+", re.ASCII)  # of chunks by the second encoding
FOLDER = "c"  # of chunks by the first one
METADATA = "zarr.json"
ArrayMetadata = dict[str, Any]  # metadata of arrays, by their names
VisibleArrays = dict[
    str, tuple[str, Layout]
]  # where the data of each array is, below the group, and its layout


def create_group(store: str | ObjectStore, attributes: dict[str, Any], synced: bool) -> zarr.Group:
    """Create a group that lists no arrays, where there is nothing or an empty folder.

    ``synced``: wait until the disk has it.
    """
    return publish(unwritten_group(store, synced), {}, attributes, synced)


def unwritten_group(store: str | ObjectStore, synced: bool = True) -> zarr.Group:
    """Return a group that has no root yet, so that data can be written below it before it is published."""
    if isinstance(store, str):
        folder = Path(os.path.realpath(store))
        make_folder(folder, synced)
        return zarr.Group(AsyncGroup(GroupMetadata(), StorePath(LocalStore(folder))))
    return zarr.Group(AsyncGroup(GroupMetadata(), StorePath(store)))


def link_arrays(group: zarr.Group, shown: VisibleArrays, turn: int, names: Iterable[str]) -> ArrayMetadata:
    """Link the chunks of arrays under plain names, by the encoding ``turn``; return the arrays' metadata.

    Chunks of all ``names`` that were linked by that encoding are deleted first.
    """
    places = {
        (group.store_path / source).path: group.store_path / name for name, (source, _) in shown.items()
    }
    sync(_replace_links([group.store_path / name for name in names], places, turn))
    return {
        name: write_once.open_array(group, name, layout, turn).metadata for name, (_, layout) in shown.items()
    }


def publish(group: zarr.Group, listed: ArrayMetadata, attributes: dict[str, Any], synced: bool) -> zarr.Group:
    """Replace the root of a group, in one write, by one that lists these arrays and has these attributes.

    ``synced``: wait until the disk has it. Return the group with its new metadata.
    """
    consolidated = ConsolidatedMetadata(metadata=listed)
    metadata = GroupMetadata(attributes=attributes, consolidated_metadata=consolidated)
    listing = GroupMetadata(consolidated_metadata=consolidated).to_dict()  # which copies attributes slowly
    _write(group.store_path / METADATA, _as_json({**listing, "attributes": attributes}), synced)
    return zarr.Group(AsyncGroup(metadata, group.store_path))


def write_metadata(group: zarr.Group, names: Iterable[str], synced: bool) -> None:
    """Write the metadata of listed arrays, so that each can be opened by its path; delete those of others.

    Metadata that are up to date are not written again. ``synced``: wait until the disk has them.
    """
    consolidated = group.metadata.consolidated_metadata
    metadata = {} if consolidated is None else consolidated.metadata  # the root may be damaged
    places = [(group.store_path / name / METADATA, metadata.get(name)) for name in names]
    stored = sync(_read_or_delete([(place, one is not None) for place, one in places]))
    for (place, one), before in zip(places, stored, strict=True):
        if one is not None and before != (content := _as_json(one.to_dict())):
            _write(place, content, synced)


def _as_json(metadata: Mapping[str, Any]) -> bytes:
    """Return metadata as they are stored, without the indentation of Zarr, which takes most of the time."""
    return json.dumps(metadata, allow_nan=True, separators=(",", ":")).encode()


async def _read_or_delete(places: Sequence[tuple[StorePath, bool]]) -> list[bytes | None]:
    """Return small objects, of those that are kept, and delete the others."""

    async def one(place: StorePath, kept: bool) -> bytes | None:
        if not kept:
            await place.delete()
            return None
        found = await place.get(default_buffer_prototype())
        return None if found is None else found.to_bytes()

    return await asyncio.gather(*(one(*pair) for pair in places))


def _write(place: StorePath, content: bytes, synced: bool) -> None:
    """Write a small object, whole or not at all."""
    if isinstance(place.store, LocalStore):
        file = place.store.root / place.path
        file.parent.mkdir(exist_ok=True)  # the history of a fit without passes has no chunks
        replace(file, content, synced)
    else:
        sync(place.set(default_buffer_prototype().buffer.from_bytes(content)))


async def _replace_links(cleared: Iterable[StorePath], linked: dict[str, StorePath], turn: int) -> None:
    """Delete the chunks of arrays that one encoding names, and link those of others, by their sources."""
    await asyncio.gather(*(_clear(place, turn) for place in cleared))
    await asyncio.gather(*(_link(place.store, source, place.path, turn) for source, place in linked.items()))


async def _clear(place: StorePath, turn: int) -> None:
    """Delete the chunks of an array whose names are those of one encoding."""
    if turn == 0:
        await place.store.delete_dir(f"{place.path}/{FOLDER}")
        return
    names = [name async for name in place.store.list_dir(place.path)]
    for name in filter(NAMES.fullmatch, names):
        await place.store.delete(f"{place.path}/{name}")


def link_chunks(group: zarr.Group, source: str, target: str, keys: Iterable[str]) -> None:
    """Make chunks of an array also chunks of another one, whose data must not be written where they are."""
    sync(_link_keys(group.store, (group.store_path / source).path, (group.store_path / target).path, keys))


async def _link_keys(store: Store, source: str, target: str, keys: Iterable[str]) -> None:
    for key in keys:
        await _link_key(store, f"{source}/{key}", f"{target}/{key}")


async def _link(store: Store, source: str, target: str, turn: int) -> None:
    keys = [key async for key in store.list_prefix(f"{source}/")]
    for key in keys:
        chunk = key.removeprefix(f"{source}/")
        new = f"{target}/{chunk.replace('.', '/') if turn == 0 else chunk}"
        await _link_key(store, key, new)


async def _link_key(store: Store, key: str, new: str) -> None:
    if isinstance(store, LocalStore):
        (store.root / new).parent.mkdir(parents=True, exist_ok=True)
        link_or_copy(store.root / key, store.root / new)
    else:
        assert isinstance(store, ObjectStore)
        await store.copy(key, new)
