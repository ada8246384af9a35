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

import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import zarr
from zarr.core.buffer import default_buffer_prototype
from zarr.core.group import AsyncGroup, ConsolidatedMetadata, GroupMetadata
from zarr.core.sync import sync
from zarr.storage import LocalStore, StorePath

from dask_nmf.storage.arrays import places, write_once
from dask_nmf.storage.arrays.write_once import Layout
from dask_nmf.storage.local.filesystem import make_folder, replace
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
    _clear([group.store_path / name for name in names], turn)
    sources = [group.store_path / source for source, _ in shown.values()]
    pairs = zip(shown, sources, places.keys_below(sources), strict=True)
    places.link(
        [(source / key, group.store_path / name / _key(key, turn)) for key in keys]
        for name, source, keys in pairs
    )
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
    _write([(group.store_path / METADATA, _as_json({**listing, "attributes": attributes}))], synced)
    return zarr.Group(AsyncGroup(metadata, group.store_path))


def write_metadata(group: zarr.Group, names: Iterable[str], synced: bool) -> None:
    """Write the metadata of listed arrays, so that each can be opened by its path; delete those of others.

    Metadata that are up to date are not written again. ``synced``: wait until the disk has them.
    """
    consolidated = group.metadata.consolidated_metadata
    metadata = {} if consolidated is None else consolidated.metadata  # the root may be damaged
    listed = [(group.store_path / name / METADATA, metadata.get(name)) for name in names]
    places.delete(place for place, one in listed if one is None)
    kept = [(place, _as_json(one.to_dict())) for place, one in listed if one is not None]
    stored = places.contents(place for place, _ in kept)
    _write([pair for pair, before in zip(kept, stored, strict=True) if pair[1] != before], synced)


def _as_json(metadata: Mapping[str, Any]) -> bytes:
    """Return metadata as they are stored, without the indentation of Zarr, which takes most of the time."""
    return json.dumps(metadata, allow_nan=True, separators=(",", ":")).encode()


def _write(objects: Iterable[tuple[StorePath, bytes]], synced: bool) -> None:
    """Write small objects, each of them whole or not at all."""
    files = {}
    for place, content in objects:
        if (file := places.path_of(place)) is not None:
            file.parent.mkdir(exist_ok=True)  # the history of a fit without passes has no chunks
            files[file] = content
        else:
            sync(place.set(default_buffer_prototype().buffer.from_bytes(content)))
    replace(files, synced)


def _clear(arrays: list[StorePath], turn: int) -> None:
    """Delete the chunks of arrays whose names are those of one encoding."""
    if turn == 0:
        places.delete_below(array / FOLDER for array in arrays)
        return
    found = zip(arrays, places.names_in(arrays), strict=True)
    places.delete(array / name for array, names in found for name in filter(NAMES.fullmatch, names))


def _key(key: str, turn: int) -> str:
    """Return the name of a chunk by an encoding, of one that is named as data are."""
    return key.replace(".", "/") if turn == 0 else key


def link_chunks(group: zarr.Group, source: str, target: str, keys: Iterable[str]) -> None:
    """Make chunks of an array also chunks of another one, whose data must not be written where they are."""
    old, new = group.store_path / source, group.store_path / target
    places.link([[(old / key, new / key) for key in keys]])
