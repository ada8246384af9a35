"""Commits to a group: data are written once, and the root of the group, one object, names the current data.

A commit writes new folders, waits until the disk has them, and then replaces the root whole. Only then does
it delete the folders that are no longer named. A reader sees the last whole commit at any moment.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import zarr

from dask_nmf.errors import DataError, InvalidRunError, readable
from dask_nmf.storage.arrays import links, write_once
from dask_nmf.storage.arrays.factors import CURE, reporting_damage
from dask_nmf.storage.arrays.links import VisibleArrays
from dask_nmf.storage.arrays.write_once import DATA
from dask_nmf.storage.leases import CheckHeld
from dask_nmf.storage.locations import Location

KINDS = {  # of groups, by the attribute that holds their record
    "dask_nmf": "a run, made by dask-nmf fit",
    "dask_nmf_selection": "a selection of ranks, made by dask-nmf select",
    "dask_nmf_transform": "an output of dask-nmf transform, which holds W alone (xarray.open_zarr reads it)",
    "dask_nmf_convert": "a matrix, made by dask-nmf convert, and no result",
}
Record = dict[str, Any]  # what the attribute of a group holds, as values of JSON


class Schema(NamedTuple):
    """The kind of a group that commits are made to."""

    key: str  # the attribute that holds the record
    name: str  # of such a group, in messages
    format: int  # of the record
    folders: Callable[[Record], set[str]]  # returns the folders of data that a record names
    visible: tuple[str, ...]  # the arrays that may be shown under plain names
    validate: Callable[[Record], None]  # raises ValueError for a record that no commit could have made


class GroupCommits:
    """A group, and the commits that this process makes to it.

    Attributes
    ----------
    location : where the group is
    group : the group as the last commit left it
    record : the record of the last commit, and what this process is about to commit
    check_held : raises `RunLocked` if another process has taken over the location; it is called by every
        commit, and before anything is deleted
    """

    schema: Schema

    def __init__(
        self, location: Location, group: zarr.Group, record: Record, check_held: CheckHeld, synced: bool
    ) -> None:
        self.location = location
        self.group = group
        self.record = record
        self.check_held = check_held
        self._synced = synced  # whether commits wait until the disk has them
        self._new_name = write_once.folder_namer()
        self._made: set[str] = set()  # folders of data that were made since the last commit
        self._on_disk: set[str] = set()  # folders of data that the disk has

    def new_folder(self, purpose: str) -> str:
        """Return the name of a new folder of data, which is deleted unless the next commit names it."""
        name = self._new_name(purpose)
        self._made.add(name)
        return name

    def publish(self, record: Record, visible: VisibleArrays | None = None, lasting: bool = False) -> None:
        """Commit a record and delete what it no longer names.

        Parameters
        ----------
        visible : the arrays to be shown under their plain names; by default those that are shown already
        lasting : whether to wait until the disk has what is shown; if not, a power cut may take it away until
            the next commit
        """
        self.check_held()
        named = self.schema.folders(record)
        written = [f"{DATA}/{name}" for name in named - self._on_disk]
        consolidated = self.group.metadata.consolidated_metadata
        metadata = {} if consolidated is None else consolidated.metadata
        if visible is not None:
            record = {**record, "encoding": 1 - record["encoding"]}
            metadata = links.link_arrays(self.group, visible, record["encoding"], self.schema.visible)
            written += visible if lasting else ()
        self._sync(written)
        self.check_held()
        self.group = links.publish(self.group, metadata, {self.schema.key: record}, self._synced)
        made, before = self._made, self.schema.folders(self.record)
        self.record, self._made, self._on_disk = record, set(), named
        self.delete((made | before) - named)

    def write_metadata(self) -> None:
        """Write the metadata of the visible arrays, so that each can be opened by its own path."""
        links.write_metadata(self.group, self.schema.visible, self._synced)

    def left_behind(self) -> set[str]:
        """Return the folders of data that killed commands and late workers have left."""
        return write_once.list_folders(self.group) - self.schema.folders(self.record)

    def sweep(self, folders: set[str]) -> None:
        """Delete folders of data that were left behind, and metadata that was written in part."""
        self.delete(folders)
        write_once.delete_partials(self.group, self.schema.visible)

    def delete(self, folders: Iterable[str]) -> None:
        """Delete folders of data."""
        self.check_held()
        write_once.delete_folders(self.group, folders)

    def _sync(self, names: Iterable[str]) -> None:
        """Wait until the disk has what is below these names, if it is on a disk and commits are synced."""
        if self._synced:
            write_once.sync_data(self.group, names, new=not self._on_disk)


def open_group(location: Location, schema: Schema) -> tuple[zarr.Group, Record]:
    """Open a group that commits are made to; return it with its record, which is validated.

    Raises
    ------
    FileNotFoundError
        If there is nothing at the location.
    InvalidRunError
        If there is something else, or the record is damaged.
    """
    path, name = location.name, schema.name
    if not location.exists():
        raise FileNotFoundError(f"there is no {name} at {path}")
    try:
        with readable(path, CURE):
            mode: Any = "r+" if location.is_writable() else "r"
            group = zarr.open_group(location.store(), mode=mode, zarr_format=3)
            attributes = dict(group.attrs)
    except (FileNotFoundError, FileExistsError, NotADirectoryError, DataError) as error:
        refusal = f"{path} is not a {name} of dask-nmf; give another path or remove it"
        raise InvalidRunError(refusal) from error
    for key, kind in KINDS.items():
        if key in attributes and key != schema.key:
            raise InvalidRunError(f"{path} is {kind}; give another path")
    record: Any = attributes.get(schema.key)
    if not isinstance(record, dict):
        raise InvalidRunError(f"{path} is a Zarr group, but not a {name} of dask-nmf; give another path")
    if record.get("format") != schema.format:
        raise InvalidRunError(
            f"{path} is a {name} of format {record.get('format')}, made by version {record.get('version')}; "
            f"this version reads format {schema.format}; use that version for it, or give another path"
        )
    with reporting_damage(path):
        schema.validate(record)
    return group, record
