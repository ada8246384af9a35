"""Commits to a run, and the arrays that they hold."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import zarr

from dask_nmf.cluster import config
from dask_nmf.errors import DataError
from dask_nmf.runs.record.contents import FORMAT, HISTORIES, current_folders
from dask_nmf.runs.record.environment import environment
from dask_nmf.runs.record.layouts import DIMENSIONS, commit_layout
from dask_nmf.runs.record.validation import validate
from dask_nmf.sources.checks import check_chunks, check_stored
from dask_nmf.storage.arrays import chunks, commits, links, write_once
from dask_nmf.storage.arrays.commits import GroupCommits, Record, Schema
from dask_nmf.storage.arrays.factors import ZarrFactor, reporting_damage
from dask_nmf.storage.arrays.links import VisibleArrays
from dask_nmf.storage.arrays.write_once import DATA
from dask_nmf.storage.leases import CheckHeld
from dask_nmf.storage.locations import Location
from dask_nmf.types import Array

KEY = "dask_nmf"  # the attribute of the group that holds the record
SELECTION_KEY = "dask_nmf_selection"  # the attribute of a group that holds a selection of ranks
FIT = "fit"  # the run of the rank that was selected, below the group of a selection
MEANS = ("row_mean", "column_mean", "column_weight")  # if not every entry of V counts
VISIBLE = ("H", "W", "error_history", "seconds_history", *MEANS, *DIMENSIONS)
RUN = Schema(KEY, "run", FORMAT, current_folders, VISIBLE, validate)


class Commits(GroupCommits):
    """The group of a run, and the commits that this process makes to it.

    Attributes
    ----------
    carried : paths of the carried W, by slot, that were made since the last commit
    synced : whether commits wait until the disk has them, unless the configuration says that they need not
    shows : whether passes show their arrays under plain names; those of one of several starts do not
    """

    schema = RUN

    def __init__(
        self, location: Location, group: zarr.Group, record: Record, check_held: CheckHeld, synced: bool
    ) -> None:
        super().__init__(location, group, record, check_held, synced and config.read().fsync)
        self.carried: dict[int, str] = {}
        self.synced = synced
        self.shows = True
        self._environment: dict[str, Any] | None = None

    @property
    def environment(self) -> dict[str, Any]:
        """The environment of this process, as it was at its first commit."""
        if self._environment is None:
            self._environment = environment()
        return self._environment

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

    def publish(self, record: Record, visible: VisibleArrays | None = None, lasting: bool = False) -> None:
        """Commit a record: see `GroupCommits.publish`."""
        super().publish(record, visible, lasting)
        self.carried = {}

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


def read_whole(array: zarr.Array[Any], location: Location) -> Array:
    """Return a small array of a commit in memory; raise `InvalidRunError` if a part is lost."""
    name = array.path.rpartition("/")[2]
    with reporting_damage(location.name):
        check_chunks(array, name)
        check_stored(array, name, whole=True)
        return np.asarray(array[...])


def open_group(location: Location) -> tuple[zarr.Group, Record]:
    """Open the group of a run; return it with its record, which is validated: see `commits.open_group`."""
    return commits.open_group(location, RUN)


def is_free(location: Location) -> bool:
    """Return whether a run may begin at a location: it holds nothing, or data of a run that was deleted."""
    return not location.exists() or write_once.is_abandoned(location.store())


def is_selection(location: Location) -> bool:
    """Return whether a location holds a selection of ranks."""
    try:
        return SELECTION_KEY in json.loads(location.within(links.METADATA).read())["attributes"]
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
