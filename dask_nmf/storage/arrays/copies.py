"""Copies of folders of data from one group to another."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import suppress

import zarr
from zarr.abc.store import Store
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import LocalStore

from dask_nmf.storage.arrays import write_once
from dask_nmf.storage.arrays.links import METADATA
from dask_nmf.storage.arrays.write_once import DATA
from dask_nmf.storage.leases import CheckHeld
from dask_nmf.storage.local.filesystem import link_or_copy

AT_ONCE = 8  # chunks that are copied at the same time, each of which is in memory


def copy_folders(source: zarr.Group, target: zarr.Group, folders: Iterable[str]) -> None:
    """Copy folders of data, which are never written again, as hard links where both groups are on one disk.

    What a killed command has left of these folders in the target is deleted first. Where there are no links,
    `AT_ONCE` chunks are in memory at the same time.
    """
    names = list(folders)
    write_once.delete_folders(target, names)
    prefixes = [tuple((group.store_path / DATA / name).path for group in (source, target)) for name in names]
    sync(_copy_below(source.store, target.store, prefixes))


async def _copy_below(source: Store, target: Store, prefixes: Iterable[tuple[str, ...]]) -> None:
    waiting: list[tuple[str, str]] = []
    for old, new in prefixes:
        keys = [key async for key in source.list_prefix(f"{old}/")]
        waiting += [(key, f"{new}/{key.removeprefix(f'{old}/')}") for key in keys]

    async def copy_in_turn() -> None:
        while waiting:
            try:
                await _copy(source, target, *waiting.pop())
            except BaseException:
                waiting.clear()  # so that the others end, too
                raise

    ends = await asyncio.gather(*(copy_in_turn() for _ in range(AT_ONCE)), return_exceptions=True)
    for error in filter(None, ends):
        raise error


async def _copy(source: Store, target: Store, key: str, copy: str) -> None:
    if isinstance(source, LocalStore) and isinstance(target, LocalStore):
        (target.root / copy).parent.mkdir(parents=True, exist_ok=True)
        link_or_copy(source.root / key, target.root / copy)
        return
    content = await source.get(key, default_buffer_prototype())
    if content is None:
        raise FileNotFoundError(f"{key} was deleted while it was copied; repeat the command")
    await target.set(copy, content)


def delete_unfinished(group: zarr.Group, with_folder: bool, check_held: CheckHeld) -> None:
    """Delete the data of a group that has no root yet; a group with a root stays as it is.

    What cannot be deleted is of no run, and the next command that makes a run there deletes it.

    Parameters
    ----------
    with_folder : whether the folder of the group is deleted too, if it is on a disk.
    check_held : raises `RunLocked` if another process has taken the place over, whose data these may be.
    """
    store, place = group.store, group.store_path
    if sync(store.exists((place / METADATA).path)):
        return
    check_held()
    with suppress(OSError):
        sync(store.delete_dir((place / DATA).path))
        if with_folder and isinstance(store, LocalStore):
            store.root.rmdir()
