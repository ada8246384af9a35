"""The Zarr group of a selection: folders of arrays, and commits that name them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import zarr

from dask_nmf.cluster import config
from dask_nmf.runs.commits import read_whole
from dask_nmf.selection.stored import stacks
from dask_nmf.selection.stored.record import (
    ERRORS,
    SELECTION,
    STDERR,
)
from dask_nmf.storage.arrays import links, write_once
from dask_nmf.storage.arrays.commits import GroupCommits, Record
from dask_nmf.storage.arrays.links import VisibleArrays
from dask_nmf.storage.arrays.write_once import DATA
from dask_nmf.storage.leases import CheckHeld
from dask_nmf.storage.locations import Location
from dask_nmf.types import Array


class SelectionCommits(GroupCommits):
    """The group of a selection, and the commits that this process makes to it."""

    schema = SELECTION


class SelectionGroup:
    """A Zarr group that holds a selection, and its record.

    Attributes
    ----------
    location : where the selection is
    record : the record of the last commit
    """

    def __init__(
        self, location: Location, group: zarr.Group | None, record: Record, check_held: CheckHeld
    ) -> None:
        self.location = location
        self.record = record
        self._check_held = check_held
        self._present = None if group is None else self._commits_to(group)  # None before the first commit

    @property
    def _commits(self) -> SelectionCommits:
        """The commits to the group, which is created by the first one."""
        if self._present is None:
            self._check_held()
            store, attributes = self.location.store(), {SELECTION.key: self.record}
            self._present = self._commits_to(links.create_group(store, attributes, config.read().fsync))
        return self._present

    def _commits_to(self, group: zarr.Group) -> SelectionCommits:
        return SelectionCommits(self.location, group, self.record, self._check_held, config.read().fsync)

    def _commit(
        self,
        folders: Mapping[str, tuple[str, dict[str, list[Array]]]],
        parts: dict[str, Any],
        without: Iterable[str] = (),
    ) -> None:
        """Write folders of arrays and commit them with parts of the record.

        Parameters
        ----------
        folders : by kind the purpose of a folder, and the pieces of its arrays, which are stacked. A kind
            without arrays has no folder then.
        without : kinds of folders that go.
        """
        now = {name: dict(self.record[name]) for name in ("folders", "arrays")}
        for kind in (*folders, *without):
            for part in now.values():
                part.pop(kind, None)
        for kind, (purpose, arrays) in folders.items():
            if arrays:
                folder = now["folders"][kind] = self._commits.new_folder(purpose)
                for name, pieces in arrays.items():
                    stacks.write(self._commits.group, f"{DATA}/{folder}/{name}", pieces)
                now["arrays"][kind] = {name: stacks.describe(pieces) for name, pieces in arrays.items()}
        self._publish({**self.record, **parts, **now})

    def _publish(self, record: Record) -> None:
        before, commits = self.record["folders"].get(ERRORS), self._commits
        shown = None if record["folders"].get(ERRORS) == before else _visible(record)
        commits.publish(record, shown, lasting=True)
        self.record = commits.record
        if shown is not None:
            commits.write_metadata()
        commits.delete(commits.left_behind())

    def _new_kind(self, begins: str) -> str:
        """Return a new kind of folder, for the factors of models that end; its name begins so."""
        numbers = [
            int(kind.removeprefix(begins)) for kind in self.record["folders"] if kind.startswith(begins)
        ]
        return f"{begins}{1 + max(numbers, default=0)}"

    def _path(self, kind: str, name: str) -> str:
        return f"{DATA}/{self.record['folders'][kind]}/{name}"

    def _read(self, kind: str, name: str) -> Array:
        layout = stacks.layout_of(self.record["arrays"][kind][name])
        return read_whole(
            write_once.open_array(self._commits.group, self._path(kind, name), layout), self.location
        )

    def _arrays_of(self, part: Record) -> dict[str, Array]:
        kind, places = part["kind"], part["places"]
        described, group = self.record["arrays"].get(kind, {}), self._commits.group
        return {
            name: stacks.read(group, self._path(kind, name), described[name], *places[name])
            for name in places
        }

    def _check_exists(self) -> None:
        """Refuse to go on if the selection was deleted meanwhile."""
        if "layout" in self.record["folders"]:
            self._read("layout", "edges")


def _visible(record: Record) -> VisibleArrays:
    """Return the arrays that are shown under plain names: the standard errors, if there are any."""
    folder = record["folders"].get(ERRORS)
    if folder is None:
        return {}
    layout = stacks.layout_of(record["arrays"][ERRORS][STDERR])._replace(dimensions=("component", "column"))
    return {STDERR: (f"{DATA}/{folder}/{STDERR}", layout)}
