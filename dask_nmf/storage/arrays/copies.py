"""Copies of folders of data from one group to another one."""

from __future__ import annotations

from collections.abc import Iterable

import zarr
from zarr.abc.store import Store
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import LocalStore

from dask_nmf.storage.arrays import write_once
from dask_nmf.storage.arrays.write_once import DATA
from dask_nmf.storage.local.filesystem import link_or_copy


def copy_folders(source: zarr.Group, target: zarr.Group, folders: Iterable[str]) -> None:
    """Copy folders of data, which are never written again, as hard links where both groups are on one disk.

    What a killed command has left of these folders in the target is deleted first.
    """
    names = list(folders)
    write_once.delete_folders(target, names)
    for name in names:
        places = ((group.store_path / DATA / name).path for group in (source, target))
        sync(_copy_below(source.store, target.store, *places))


async def _copy_below(source: Store, target: Store, old: str, new: str) -> None:
    keys = [key async for key in source.list_prefix(f"{old}/")]
    for key in keys:
        copy = f"{new}/{key.removeprefix(f'{old}/')}"
        if isinstance(source, LocalStore) and isinstance(target, LocalStore):
            (target.root / copy).parent.mkdir(parents=True, exist_ok=True)
            link_or_copy(source.root / key, target.root / copy)
        elif (content := await source.get(key, default_buffer_prototype())) is not None:
            await target.set(copy, content)
