"""Commits to a run: data are written once, and the root of the group, one object, names the current data.

A commit writes new folders, waits until the disk has them, and then replaces the root whole. Only then does
it delete the folders that are no longer named. A reader sees the last whole commit at any moment.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import zarr

from dask_nmf.cluster import config
from dask_nmf.errors import DataError, InvalidRunError, readable
from dask_nmf.runs.record.contents import FORMAT, HISTORIES, current_folders
from dask_nmf.runs.record.layouts import commit_layout
from dask_nmf.runs.record.validation import validate
from dask_nmf.sources.checks import check_chunks, check_stored
from dask_nmf.storage.arrays import chunks, links, write_once
from dask_nmf.storage.arrays.factors import CURE, ZarrFactor, reporting_damage
from dask_nmf.storage.arrays.links import VisibleArrays
from dask_nmf.storage.arrays.write_once import DATA
from dask_nmf.storage.leases import CheckHeld
from dask_nmf.storage.locations import Location
from dask_nmf.types import Array

KEY = "dask_nmf"  # the attribute of the group that holds the record
SELECTION_KEY = "dask_nmf_selection"  # the attribute of a group that holds a selection of ranks
FIT = "fit"  # the run of the rank that was selected, below the group of a selection
VISIBLE = ("H", "W", "error_history", "seconds_history", "row_mean", "column_mean")


class Commits:
    """The group of a run, and the commits that this process makes to it.

    Attributes
    ----------
    location : where the run is
    group : the group as the last commit left it
    record : the record of the last commit, and what this process is about to commit
    carried : paths of the carried W, by slot, that were made since the last commit
    check_held : raises `RunLocked` if another process has taken over the location; it is called by every
        commit, and before anything is deleted
    """

    def __init__(
        self,
        location: Location,
        group: zarr.Group,
        record: dict[str, Any],
        check_held: CheckHeld,
        synced: bool,
    ) -> None:
        self.group = group
        self.record = record
        self.carried: dict[int, str] = {}
        self.check_held = check_held
        self.location = location
        self._new_name = write_once.folder_namer()
        self._made: set[str] = set()  # folders of data that were made since the last commit
        self.synced = synced
        self._synced = synced and config.read().fsync
        self._on_disk: set[str] = set()  # folders of data that the disk has

    def new_folder(self, purpose: str) -> str:
        """Return the name of a new folder of data, which is deleted unless the next commit names it."""
        name = self._new_name(purpose)
        self._made.add(name)
        return name

    def array(self, folder: str, name: str) -> zarr.Array[Any]:
        """Return an array of a commit, to be read or written."""
        layout = commit_layout(self.record, name)
        return write_once.open_array(self.group, f"{DATA}/{folder}/{name}", layout)

    def read(self, folder: str, name: str) -> Array:
        """Return a small array of a commit in memory; raise `InvalidRunError` if a part is lost."""
        return read_whole(self.array(folder, name), self.location)

    def factor(self, path: str) -> ZarrFactor:
        """Return a carried factor by its path below the group."""
        layout = commit_layout(self.record, path.rpartition("/")[2])
        return ZarrFactor(write_once.open_array(self.group, path, layout), whole=True)

    def write_histories(self, folder: str, record: dict[str, Any]) -> None:
        """Write the histories of a record as arrays in a folder of data."""
        for name, key in HISTORIES.items():
            path = f"{DATA}/{folder}/{name}"
            array = write_once.open_array(self.group, path, commit_layout(record, name))
            array[...] = np.asarray(record["history"][key], np.float64)

    def publish(self, record: dict[str, Any], visible: VisibleArrays | None = None) -> None:
        """Commit a record and delete what it no longer names.

        Parameters
        ----------
        visible : the arrays to be shown under their plain names; by default those that are shown already
        """
        self.check_held()
        named = current_folders(record)
        self._sync(f"{DATA}/{name}" for name in named - self._on_disk)
        consolidated = self.group.metadata.consolidated_metadata
        metadata = {} if consolidated is None else consolidated.metadata
        if visible is not None:
            record = {**record, "encoding": 1 - record["encoding"]}
            metadata = links.link_arrays(self.group, visible, record["encoding"], VISIBLE)
            if record["result"] is not None:
                self._sync(visible)
        self.check_held()
        self.group = links.publish(self.group, metadata, {KEY: record}, self._synced)
        made, before = self._made, current_folders(self.record)
        self.record, self._made, self.carried, self._on_disk = record, set(), {}, named
        self._delete((made | before) - named)

    def write_metadata(self) -> None:
        """Write the metadata of the visible arrays, so that each can be opened by its own path."""
        links.write_metadata(self.group, VISIBLE, self._synced)

    def left_behind(self) -> set[str]:
        """Return the folders of data that killed commands and late workers have left."""
        return write_once.list_folders(self.group) - current_folders(self.record)

    def sweep(self, folders: set[str]) -> None:
        """Delete folders of data that were left behind, and metadata that was written in part."""
        self._delete(folders)
        write_once.delete_partials(self.group, VISIBLE)

    def check_exists(self) -> None:
        """Refuse to go on if the run was deleted during the fit."""
        with reporting_damage(self.location.name):
            check_stored(self.array(self.record["layout"]["folder"], "edges"), self.location.name, whole=True)

    def check_carried(self) -> None:
        """Raise `InvalidRunError` if a part of a carried W is lost."""
        with reporting_damage(self.location.name):
            for path in self.record["carried"].values():
                array = self.factor(path).array
                check_chunks(array, array.name)
                check_stored(array, array.name, whole=True)
                if chunks.has_empty_chunk(array):
                    raise DataError(f"{array.name} has a chunk without content")

    def _delete(self, folders: Iterable[str]) -> None:
        self.check_held()
        write_once.delete_folders(self.group, folders)

    def _sync(self, names: Iterable[str]) -> None:
        """Wait until the disk has what is below these names, if it is on a disk and commits are synced."""
        if self._synced:
            write_once.sync_data(self.group, names, new=not self._on_disk)


def read_whole(array: zarr.Array[Any], location: Location) -> Array:
    """Return a small array of a commit in memory; raise `InvalidRunError` if a part is lost."""
    name = array.path.rpartition("/")[2]
    with reporting_damage(location.name):
        check_chunks(array, name)
        check_stored(array, name, whole=True)
        return np.asarray(array[...])


def open_group(location: Location) -> tuple[zarr.Group, dict[str, Any]]:
    """Open the group of a run; return it with its record, which is validated.

    Raises
    ------
    FileNotFoundError
        If there is nothing at the location.
    InvalidRunError
        If there is something else, or the record is damaged.
    """
    path = location.name
    if not location.exists():
        raise FileNotFoundError(f"there is no run at {path}")
    try:
        with readable(path, CURE):
            group = zarr.open_group(location.store(), mode="r+" if location.is_writable() else "r")
            attributes = dict(group.attrs)
    except (FileNotFoundError, FileExistsError, NotADirectoryError, DataError) as error:
        raise InvalidRunError(f"{path} is not a run of dask-nmf; give another path or remove it") from error
    record = attributes.get(KEY)
    if SELECTION_KEY in attributes:
        raise InvalidRunError(f"{path} is a selection of ranks, made by dask-nmf select; give another path")
    if not isinstance(record, dict):
        raise InvalidRunError(f"{path} is a Zarr group, but not a run of dask-nmf; give another path")
    if record.get("format") != FORMAT:
        raise InvalidRunError(
            f"{path} is a run of format {record.get('format')}, made by version {record.get('version')}; "
            f"this version reads format {FORMAT}; use that version for it, or give another path"
        )
    with reporting_damage(path):
        validate(record)
    return group, record


def is_free(location: Location) -> bool:
    """Return whether a run may begin at a location: it holds nothing, or data of a run that was deleted."""
    return not location.exists() or write_once.is_abandoned(location.store())


def is_selection(location: Location) -> bool:
    """Return whether a location holds a selection of ranks."""
    try:
        return SELECTION_KEY in zarr.open_group(location.store(), mode="r").attrs
    except Exception:  # whatever it is, it is no selection; opening it as a run says what is wrong with it
        return False


def fit_of(location: Location) -> Location:
    """Return the location of the fit of a selection of ranks; any other location is returned unchanged.

    Raises
    ------
    ValueError
        If the selection has no fit yet.
    """
    if not is_selection(location):
        return location
    fit = location.within(FIT)
    if not fit.exists():
        raise ValueError(f"{location.name} has no W and H yet; finish it with dask-nmf select first")
    return fit
