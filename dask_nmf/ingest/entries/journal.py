"""`Journal`: which runs of a sorter are whole on the disk, so that a conversion that was stopped goes on."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from dask_nmf.cluster import config
from dask_nmf.ingest.output.damage import files_left
from dask_nmf.storage.local.filesystem import sync_trees

FILE = "runs.jsonl"
SECONDS = 10  # between two times at which runs are entered


class Journal:
    """A file with a line for each run that is on the disk.

    Runs are entered a few seconds after they were written, together, because each time waits for the disk.

    Attributes
    ----------
    entered : the lines of runs that were written before this process began
    done : whether all runs had been written before
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / FILE
        with files_left():
            lines = self._file.read_text().splitlines(keepends=True) if self._file.exists() else []
            if lines and not lines[-1].endswith("\n"):
                lines.pop()  # a power cut left a part of it; the next line must not follow that
                self._file.write_text("".join(lines))
            records = [json.loads(line) for line in lines]
        self.done = bool(records) and records[-1] is None
        self.entered: list[dict[str, Any]] = [record for record in records if record is not None]
        self._used = bool(self.entered)
        self._waiting: list[dict[str, Any] | None] = []
        self._last = time.monotonic()

    def add(self, record: dict[str, Any]) -> None:
        """Enter a run, now or with those that follow it."""
        self._waiting.append(record)
        self._used = True
        if time.monotonic() - self._last >= SECONDS:
            self._enter()

    def finish(self) -> None:
        """Enter that there are no more runs, if any was entered."""
        if self._used and not self.done:
            self._waiting.append(None)
            self._enter()

    def _enter(self) -> None:
        synced = config.read().fsync
        if synced:
            sync_trees([self._file.parent])
        with self._file.open("a") as file:
            file.writelines(json.dumps(record) + "\n" for record in self._waiting)
        if synced:
            sync_trees([self._file])
        self._waiting, self._last = [], time.monotonic()
