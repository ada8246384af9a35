"""Names and small objects at places of a store: one after the other on a disk, at once in an object store.

Zarr's own calls for a disk go through two other threads each, which takes longer than what they do.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import LocalStore, StorePath

from dask_nmf.storage.local.filesystem import link_or_copy
from dask_nmf.storage.objects.object_store import ObjectStore

ABSENT = (FileNotFoundError, NotADirectoryError)
Found = TypeVar("Found")
Pairs = Sequence[tuple[StorePath, StorePath]]  # sources and targets


def path_of(place: StorePath) -> Path | None:
    """Return the path of a place, if it is on a disk."""
    return place.store.root / place.path if isinstance(place.store, LocalStore) else None


def names_in(places: Iterable[StorePath]) -> list[list[str]]:
    """Return the names directly below each place; there are none where there is no folder."""
    return _each(places, _names_in_folder, _names_in_store)


def keys_below(places: Iterable[StorePath]) -> list[list[str]]:
    """Return the names of all objects below each place, as paths from there."""
    return _each(places, _files_below, _objects_below)


def contents(places: Iterable[StorePath]) -> list[bytes | None]:
    """Return small objects; None where there is none."""
    return _each(places, _read_file, _read_object)


def delete(places: Iterable[StorePath]) -> None:
    """Delete objects where there are some."""
    _each(places, _delete_file, StorePath.delete)


def delete_below(places: Iterable[StorePath]) -> None:
    """Delete folders with all that is below them, where there are some.

    Raises
    ------
    OSError
        If one of them cannot be deleted, or is used by another process meanwhile.
    """
    _each(places, _delete_folder, _delete_objects)


def link(arrays: Iterable[Pairs]) -> None:
    """Make objects available under second names: as hard links on a disk, as copies in an object store.

    The objects of an array are copied one after the other.
    """
    made: set[Path] = set()  # folders

    def link_file(source: StorePath, target: StorePath) -> bool:
        old, new = path_of(source), path_of(target)
        if old is None or new is None:
            return False
        if new.parent not in made:
            new.parent.mkdir(parents=True, exist_ok=True)
            made.add(new.parent)
        link_or_copy(old, new)
        return True

    copied = [[pair for pair in pairs if not link_file(*pair)] for pairs in arrays]
    if any(copied):
        sync(_copy(copied))


def _each(
    places: Iterable[StorePath],
    on_disk: Callable[[Path], Found],
    in_store: Callable[[StorePath], Awaitable[Found]],
) -> list[Found]:
    """Do something at each place, and return what it returns."""
    several = list(places)
    paths = [path for path in map(path_of, several) if path is not None]
    return [on_disk(path) for path in paths] if len(paths) == len(several) else sync(_all(several, in_store))


async def _all(places: Iterable[StorePath], in_store: Callable[[StorePath], Awaitable[Found]]) -> list[Found]:
    return await asyncio.gather(*map(in_store, places))


def _names_in_folder(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except ABSENT:
        return []


async def _names_in_store(place: StorePath) -> list[str]:
    return [name async for name in place.store.list_dir(place.path)]


def _files_below(folder: Path) -> list[str]:
    found = [(Path(parent), names) for parent, _, names in os.walk(folder)]
    return [(parent / name).relative_to(folder).as_posix() for parent, names in found for name in names]


async def _objects_below(place: StorePath) -> list[str]:
    prefix = f"{place.path}/"
    return [key.removeprefix(prefix) async for key in place.store.list_prefix(prefix)]


def _read_file(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except (*ABSENT, IsADirectoryError):
        return None


async def _read_object(place: StorePath) -> bytes | None:
    found = await place.get(default_buffer_prototype())
    return None if found is None else found.to_bytes()


def _delete_file(path: Path) -> None:
    path.unlink(missing_ok=True)


def _delete_folder(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)


async def _delete_objects(place: StorePath) -> None:
    await place.store.delete_dir(place.path)


async def _copy(arrays: Iterable[Pairs]) -> None:
    async def one(pairs: Pairs) -> None:
        for source, target in pairs:
            assert isinstance(source.store, ObjectStore)
            await source.store.copy(source.path, target.path)

    await asyncio.gather(*map(one, arrays))
