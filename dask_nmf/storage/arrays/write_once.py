"""The data of a run: arrays below ``data/``, in folders that are written once.

A folder is named after its purpose and after the process that made it, and no name is used twice. Therefore a
late writer, such as a worker that hung or a process whose lease was taken, cannot change what a run holds::

    data/pass-7-3f2a91bc-4/H/c.0.0

The arrays have no metadata objects. The record of the run has their shapes and names the current folders.
Other folders are deleted after the commit that replaced them, and when a fit opens the run.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import lru_cache
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import numpy as np
import zarr
from zarr.abc.store import Store
from zarr.codecs import ZstdCodec
from zarr.core.array import AsyncArray
from zarr.core.metadata import ArrayV3Metadata
from zarr.storage import LocalStore, StorePath

from dask_nmf.storage.arrays import places
from dask_nmf.storage.local.filesystem import PARTIAL, sync_folder, sync_trees

DATA = "data"
NAME = re.compile(  # the name of a folder, of a run or of a selection
    r"(labels|layout|pass-\d+|factors-\d+|carried|result|replicates-\d+|error-bars)-[0-9a-f]{12}-[0-9a-f]+",
    re.ASCII,
)
PATH = re.compile(rf"{DATA}/{NAME.pattern}/\w+", re.ASCII)  # the path of an array in a folder
ENCODINGS = (  # names of chunks; the arrays that are shown alternate between the two
    {"name": "default", "separator": "/"},
    {"name": "default", "separator": "."},
)
CHECKED = ZstdCodec(level=1, checksum=True)  # a reader notices a changed bit; chunks without are read too
LAYOUTS = 256  # whose metadata are remembered
FLAT = 1  # the encoding of data: one folder for all chunks, because each folder is synchronised at a commit
TEXT = "string"  # the dtype of names, whose chunks are all stored
INTEGER_FILL = -1  # the fill value of arrays of integers; that of factors is NaN


class Layout(NamedTuple):
    """How an array is stored."""

    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    dtype: str
    dimensions: tuple[str, ...]
    fill: float | str = (
        np.nan
    )  # zarr does not store chunks of the fill value, so all chunks of a factor are stored


def folder_namer() -> Callable[[str], str]:
    """Return a function that makes the name of a new folder from its purpose."""
    process, numbers = uuid4().hex[:12], count()
    return lambda purpose: f"{purpose}-{process}-{next(numbers):x}"


def open_array(group: zarr.Group, path: str, layout: Layout, encoding: int = FLAT) -> zarr.Array[Any]:
    """Return an array at a path below a group, to be read and written. Nothing is written yet."""
    array = zarr.Array(AsyncArray(_metadata_of(layout, encoding), group.store_path / path))
    return array.with_config({"write_empty_chunks": True}) if layout.dtype == TEXT else array


@lru_cache(LAYOUTS)
def _metadata_of(layout: Layout, encoding: int) -> ArrayV3Metadata:
    """Return the metadata of an array, which Zarr takes milliseconds to make: a commit has a few kinds."""
    described = zarr.create_array(
        {},
        shape=layout.shape,
        chunks=tuple(max(size, 1) for size in layout.chunks),
        dtype=layout.dtype,
        dimension_names=layout.dimensions,
        fill_value=layout.fill,
        compressors=CHECKED,
        chunk_key_encoding=ENCODINGS[encoding],  # type: ignore[arg-type]
    )
    assert isinstance(described.metadata, ArrayV3Metadata)
    return described.metadata


def folder_of(path: str) -> str:
    """Return the name of the folder that an array is in."""
    return path.split("/")[1]


def sync_data(group: zarr.Group, names: Iterable[str], new: bool) -> None:
    """Wait until the disk has what is below these names of a group, if the group is on a disk.

    ``new``: the folder of all data may be new. An array without entries has no folder.
    """
    if not isinstance(group.store, LocalStore):
        return
    root = Path(group.store.root)
    sync_trees(place for place in (root / name for name in names) if place.exists())
    if new:
        sync_folder(root)


def delete_folders(group: zarr.Group, folders: Iterable[str]) -> None:
    """Delete folders of data. Those that cannot be deleted are swept when a fit opens the run."""
    for name in folders:
        with suppress(OSError):
            places.delete_below([group.store_path / DATA / name])


def delete_below(group: zarr.Group, names: re.Pattern[str]) -> None:
    """Delete the groups directly below a group whose names match; those that cannot be deleted stay."""
    for name in filter(names.fullmatch, _names_in(group.store_path)):
        with suppress(OSError):
            places.delete_below([group.store_path / name])


def list_folders(group: zarr.Group) -> set[str]:
    """Return the names of the folders of data that are stored."""
    return set(filter(NAME.fullmatch, _names_in(group.store_path / DATA)))


def delete_partials(group: zarr.Group, below: Iterable[str]) -> None:
    """Delete metadata objects that a killed process wrote in part, at the root and below these names."""
    folders = [group.store_path, *(group.store_path / name for name in below)]
    found = zip(folders, places.names_in(folders), strict=True)
    places.delete(folder / name for folder, names in found for name in filter(PARTIAL.fullmatch, names))


def is_abandoned(store: Store | str) -> bool:
    """Return whether a location holds data of a deleted run and nothing else.

    A late worker writes such data after its run was deleted.
    """
    place = StorePath(LocalStore(store) if isinstance(store, str) else store)
    if not place.store.supports_listing:
        return False
    names = _names_in(place)
    if not names or not all(name == DATA or PARTIAL.fullmatch(name) for name in names):
        return False
    return all(NAME.fullmatch(name) for name in _names_in(place / DATA))


def _names_in(place: StorePath) -> list[str]:
    return places.names_in([place])[0]
