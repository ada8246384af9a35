"""`Checkpoint`: how far a group has been written, so that a conversion that was stopped goes on."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np

from dask_nmf.cluster import config
from dask_nmf.ingest.output.damage import files_left
from dask_nmf.ingest.output.growing import GrowingArray
from dask_nmf.storage.local.filesystem import sync_trees
from dask_nmf.types import Array

FILE = "checkpoint.npz"
SECONDS = 10  # between two checkpoints, at least
SHARE = 20  # times as long as a checkpoint takes is the time between two of them, at least
RECORD = "record"  # the array of a file that holds JSON; others are the rows that wait, by their names


class Checkpoint:
    """How far the arrays of a group have been written, and the position of the source after these rows.

    It is one file, which is replaced now and then: the lengths of the arrays, and rows that wait for more.

    Parameters
    ----------
    folder : of the file; None for a group that is not gone on with
    group : the folder of the group

    Attributes
    ----------
    position : of the source, where another process goes on; None if it begins

    Raises
    ------
    Damaged
        If the file, or an array that goes on, cannot be read.
    """

    def __init__(self, folder: Path | None = None, group: Path | None = None) -> None:
        self._file = None if folder is None else folder / FILE
        self._group = group
        self._tracked: list[GrowingArray] = []
        self._saved: dict[str, Array] = {}
        self._lengths: dict[str, int] = {}
        self._due = time.monotonic() + SECONDS
        self.position: Any = None
        if self._file is not None and self._file.exists():
            with files_left(), np.load(self._file) as arrays:
                self._saved = dict(arrays)
                self.position, self._lengths = json.loads(self._saved.pop(RECORD).tobytes())

    def track(self, array: GrowingArray) -> GrowingArray:
        """Return an array, which goes on where it was."""
        self._tracked.append(array)
        if array.name in self._lengths:
            with files_left():
                saved = self._saved.pop(array.name)
                waiting = json.loads(saved.tobytes()) if array.text else saved
                array.restore(self._lengths[array.name], waiting)
        return array

    def reach(self, position: Any) -> None:
        """Save how far the arrays are, unless that was done a moment ago or the source has no position."""
        if self._file is None or position is None or time.monotonic() < self._due:
            return
        began = time.monotonic()
        waiting = {array.name: _stored(array) for array in self._tracked}
        lengths = {array.name: array.rows for array in self._tracked}
        record = np.frombuffer(json.dumps([position, lengths]).encode(), np.uint8)
        self._file.parent.mkdir(exist_ok=True)
        new = self._file.with_suffix(".new")
        with new.open("wb") as file:
            np.savez(file, allow_pickle=False, **{RECORD: record, **waiting})
        if self._group is not None and config.read().fsync:
            sync_trees([self._group, new])
        os.replace(new, self._file)
        ended = time.monotonic()
        self._due = ended + max(SECONDS, SHARE * (ended - began))


def _stored(array: GrowingArray) -> Array:
    """Return the rows of an array that wait, as a file holds them."""
    waiting = array.waiting()
    return np.frombuffer(json.dumps(waiting.tolist()).encode(), np.uint8) if array.text else waiting
