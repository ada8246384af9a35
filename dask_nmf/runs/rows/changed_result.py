"""Changes of the rows of a finished result: rows that are added to W, or taken out of it.

Other chunks of W are linked, not written anew. The change is one commit: the result before it stays readable
until then, and a process that is killed before leaves only a folder that nothing names.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import zarr

from dask_nmf.kernels.summary.digests import Hashes
from dask_nmf.runs.commits import Commits
from dask_nmf.runs.labels import visible_names, write_labels
from dask_nmf.runs.record.contents import HISTORIES
from dask_nmf.runs.record.layouts import ADDED_DIGEST, NO_MEAN, added_digest_layout, result_layouts
from dask_nmf.runs.stored_result import StoredResult
from dask_nmf.sources.labels.names import Labels
from dask_nmf.storage.arrays import links, write_once
from dask_nmf.storage.arrays.factors import ZarrFactor, reporting_damage
from dask_nmf.storage.arrays.links import VisibleArrays
from dask_nmf.storage.arrays.write_once import DATA, Layout
from dask_nmf.types import Array


class ChangedResult:
    """A result in the making, with other rows than the one that a run has.

    Attributes
    ----------
    old : the result that the run has
    record : the part of the record on the new result, whose numbers the caller may replace before it commits
    """

    def __init__(self, commits: Commits, rows: int) -> None:
        self._commits = commits
        self._changes: dict[str, Any] = {}  # of other parts of the record
        self._old_record: dict[str, Any] = commits.record["result"]
        self.old = StoredResult(commits.location, commits.group, self._old_record)
        shape = [rows, self._old_record["matrix"]["shape"][1]]
        unit, across = self._old_record["units"]
        kept = {name: value for name, value in self._old_record.items() if name != "added_spans"}
        self.record = {
            **kept,
            "matrix": {**self._old_record["matrix"], "shape": shape},
            "folder": commits.new_folder("result"),
            "residuals": False,
            "units": [min(unit, rows), across],
        }

    @property
    def chunk_rows(self) -> int:
        """The number of rows of W in a chunk."""
        rows: int = self.record["units"][0]
        return rows

    def array(self, name: str) -> zarr.Array[Any]:
        """Return an array of the new result, to be written."""
        path = f"{DATA}/{self.record['folder']}/{name}"
        return write_once.open_array(self._commits.group, path, result_layouts(self.record)[name])

    def write_digest(self, sums: Hashes) -> None:
        """Write the digest of rows that are added, behind those of the batches before."""
        whole = np.concatenate([self.old.added_digest, sums])
        self.record["added_spans"] = len(whole)
        path = f"{DATA}/{self.record['folder']}/{ADDED_DIGEST}"
        array = write_once.open_array(self._commits.group, path, added_digest_layout(self.record))
        array[...] = whole.view(np.int64)

    def temporary_w(self, rows: int, chunk_rows: int) -> ZarrFactor:
        """Return a new W of some rows that the next commit deletes."""
        rank, dtype = self._old_record["settings"]["n_components"], self._old_record["matrix"]["dtype"]
        return self._temporary("W", Layout((rows, rank), (chunk_rows, rank), dtype, ("row", "component")))

    def temporary_means(self, rows: int, chunk_rows: int) -> ZarrFactor:
        """Return a new array of means of some rows that the next commit deletes."""
        layout = Layout((rows,), (chunk_rows,), self._old_record["matrix"]["dtype"], ("row",), NO_MEAN)
        return self._temporary("row_mean", layout)

    def _temporary(self, name: str, layout: Layout) -> ZarrFactor:
        path = f"{DATA}/{self._commits.new_folder('result')}/{name}"
        return ZarrFactor(write_once.open_array(self._commits.group, path, layout))

    def link_rows(self, rows: int) -> int:
        """Link the chunks of W that lie in its first rows whole, and return how many rows they have."""
        if self.chunk_rows != self._old_record["units"][0]:
            return 0
        whole = rows // self.chunk_rows
        self._link("W", [(number, 0) for number in range(whole)])
        return whole * self.chunk_rows

    def _link(self, name: str, places: Iterable[tuple[int, ...]]) -> None:
        """Make chunks of an array of the old result, by their places, also chunks of the new one."""
        encode = self.array(name).metadata.encode_chunk_key
        source, target = (f"{DATA}/{part['folder']}/{name}" for part in (self._old_record, self.record))
        with reporting_damage(self._commits.location.name):
            links.link_chunks(self._commits.group, source, target, [encode(place) for place in places])

    def write_w(self, pieces: Iterator[Array], first: int = 0) -> None:
        """Write rows of W, which come in pieces of any height, from a row on at which a chunk begins."""
        self.write_rows("W", pieces, first)

    def write_rows(self, name: str, pieces: Iterator[Array], first: int = 0) -> None:
        """Write rows of W, or means of rows; see `write_w`."""
        array, waiting, at = self.array(name), [], first
        rows = 0
        for piece in pieces:
            waiting.append(piece.astype(array.dtype, copy=False))
            rows += len(piece)
            if rows >= self.chunk_rows:
                block = np.concatenate(waiting)
                whole = rows - rows % self.chunk_rows
                array[at : at + whole] = block[:whole]
                waiting, at, rows = [block[whole:]], at + whole, rows - whole
        if rows:
            array[at : at + rows] = np.concatenate(waiting)

    def commit(self, labels: Labels) -> StoredResult:
        """Commit the new result with the names of its rows and columns, and delete what it replaces.

        Raises
        ------
        InvalidRunError
            If a part of it is missing.
        """
        commits = self._commits
        commits.check_exists()
        for name in HISTORIES:
            self._link(name, [(0,)] if self.record["history"][HISTORIES[name]] else [])
        self._write_labels(labels)
        result = StoredResult(commits.location, commits.group, self.record)
        for name in result_layouts(self.record):
            result.array(name)
        kept = {key: value for key, value in commits.record.items() if key != "labels"}
        self._publish({**kept, **self._changes, "result": self.record})
        return result

    def commit_without_trace(self, labels: Labels) -> StoredResult:
        """Commit as `commit` does, and keep nothing of rows that are no longer there.

        The digests of V are blanked, the sums over V and the loss of the fit are replaced, and the chunks
        that were shown before are deleted by a second commit.
        """
        self._blank_digests()
        state = {**self._commits.record["state"], "loss": self.record["loss"]}
        self._changes |= {"measures": self.record["measures"], "state": state}
        self.record["lineage"][-1]["clean"] = False
        result = self.commit(labels)
        self.clean()
        return result

    def clean(self) -> bool:
        """Delete what was shown before rows were taken out, also if the command that did it was killed.

        Return whether there was something to delete.
        """
        commits = self._commits
        result = commits.record["result"]
        lineage = result.get("lineage", [])
        if not lineage or lineage[-1].get("clean", True):
            return False
        result = {**result, "lineage": [*lineage[:-1], {**lineage[-1], "clean": True}]}
        self._publish({**commits.record, "result": result})
        return True

    def keep(self) -> None:
        """Commit the result that the run has, as it is; a copy of a run becomes a run by that."""
        self._publish(self._commits.record)

    def _publish(self, record: dict[str, Any]) -> None:
        """Commit a record, and show the arrays of its result."""
        self._commits.publish(record, shown_arrays(record["result"]), lasting=True)
        self._commits.write_metadata()

    def _write_labels(self, labels: Labels) -> None:
        """Write the names to the record of the new result; it may have none."""
        before = self._commits.record
        self._commits.record = self.record  # whose shape the names have
        try:
            named = write_labels(self._commits, labels)
        finally:
            self._commits.record = before
        self.record = {key: value for key, value in self.record.items() if key != "labels"} | named

    def _blank_digests(self) -> None:
        """Replace the digests of V in the record by zeros, in a new folder with the same edges."""
        commits = self._commits
        layout = commits.record["layout"]
        folder = commits.new_folder("layout")
        for name in ("edges", *(["cuts"] if layout["pieces"] else [])):
            commits.array(folder, name)[...] = commits.read(layout["folder"], name)
        digests = commits.array(folder, "V")
        digests[...] = np.zeros(digests.shape, np.int64)
        self._changes = {"layout": {**layout, "folder": folder}, "listing": {}}


def shown_arrays(record: dict[str, Any]) -> VisibleArrays:
    """Return the arrays of a result that are shown under plain names."""
    arrays = result_layouts(record).items()
    return {name: (f"{DATA}/{record['folder']}/{name}", layout) for name, layout in arrays} | visible_names(
        record
    )
