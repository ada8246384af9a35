"""A selection in a Zarr group: its models, committed after each shared pass, and its findings.

::

    select.zarr
      attributes["dask_nmf_selection"]   the record: options, matrix, models, the findings, the answer
      data/layout-…                      edges of the panels, digest of the content of V
      data/pass-…                        a commit: the arrays of the states of all models, stacked by rows
      data/result-…                      clusters of rows by model, the factor with which the final fit begins
      data/replicates-…                  the states of the bootstrap replicates of the final fit
      data/error-bars-…                  standard errors of its components, and their likeness
      fit/                               the run of the final fit
      components_stderr/                 a link to the standard errors under a plain name: see `links`

Commits are those of `commits`, as for a run.
The *findings* are those of the models of the record, once all of them have ended. They become the *answer*
when the run of the final fit has a result. The answer before it, of other models or of a selection that is
overwritten, stays until then, with its error bars.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import zarr

from dask_nmf.cluster import config
from dask_nmf.errors import InvalidRunError, RunMismatch
from dask_nmf.kernels.summary.digests import Digest, Hashes
from dask_nmf.runs.commits import FIT, is_free, read_whole
from dask_nmf.runs.run import Run
from dask_nmf.selection.bootstrap import ErrorBars
from dask_nmf.selection.comparison import Findings
from dask_nmf.selection.models import Model, ModelKey
from dask_nmf.selection.stored.model_arrays import Begin, model_of, stacked
from dask_nmf.selection.stored.record import (
    ENDS,
    ERROR_BARS,
    ERRORS,
    NO_ERROR_BARS,
    SELECTION,
    STDERR,
    kept_answer,
    new_record,
)
from dask_nmf.storage.arrays import links, write_once
from dask_nmf.storage.arrays.commits import GroupCommits, Record, open_group
from dask_nmf.storage.arrays.links import VisibleArrays
from dask_nmf.storage.arrays.write_once import DATA, INTEGER_FILL, Layout
from dask_nmf.storage.leases import CheckHeld, always_held
from dask_nmf.storage.locations import Location
from dask_nmf.types import Array

ROWS = 1024  # rows of a stored array in a chunk, at most


class SelectionCommits(GroupCommits):
    """The group of a selection, and the commits that this process makes to it."""

    schema = SELECTION


class SelectionStore:
    """A selection in a Zarr group.

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

    @classmethod
    def find(
        cls, location: Location, identity: dict[str, Any], overwrite: bool, check_held: CheckHeld
    ) -> SelectionStore:
        """Return the selection to go on with, or one that begins with its first commit.

        The same call goes on with a selection that was begun to overwrite another one and has no answer yet.

        Raises
        ------
        RunMismatch
            If there is a selection with other options or of another V, and it may not be overwritten.
        InvalidRunError
            If there is something else, which is never overwritten.
        """
        if is_free(location):
            return cls(location, None, new_record(identity, overwrite), check_held)
        store = cls.load(location, check_held)
        stored = store.record["identity"]
        differing = [
            f"{name} is {ours!r}, it has {stored.get(name)!r}"
            for name, ours in identity.items()
            if name != "source" and stored.get(name) != ours
        ]
        goes_on = not differing and store.record["overwrites"] and not store.is_answered
        if overwrite and not goes_on:
            kept = kept_answer(store.record)
            return cls(location, store._commits.group, {**new_record(identity, True), **kept}, check_held)
        if differing:
            raise RunMismatch(
                f"{location.name} holds another selection: {'; '.join(differing)}; "
                "give another output, or ask to overwrite it (--overwrite)"
            )
        if not store._commits.group.read_only:
            store._commits.write_metadata()  # a command that was killed has not
        return store

    @classmethod
    def load(cls, location: Location, check_held: CheckHeld = always_held) -> SelectionStore:
        """Open a selection.

        Raises
        ------
        FileNotFoundError
            If there is nothing at the path.
        InvalidRunError
            If there is something else.
        """
        group, record = open_group(location, SELECTION)
        return cls(location, group, {**NO_ERROR_BARS, "encoding": 1, **record}, check_held)

    @property
    def is_answered(self) -> bool:
        """Whether the answer is that of the present models."""
        folders = self.record["folders"]
        return "answer" in folders and folders["answer"] == folders.get("findings")

    @property
    def is_finished(self) -> bool:
        """Whether the answer is that of the present models, and its fit has ended."""
        fit = self.location.within(FIT)
        if not self.is_answered or not fit.exists():
            return False
        try:
            return bool(Run.load(fit).record["finished"])
        except InvalidRunError:  # the final fit is made anew
            return False

    def commit_layout(self, edges: Sequence[int], digest: Digest) -> None:
        """Commit how V is cut, and the digest of its content."""
        arrays = {"edges": np.asarray(edges, np.int64), "V": digest.sums.view(np.int64)}
        self._commit("layout", "layout", arrays, {})

    @property
    def edges(self) -> tuple[int, ...] | None:
        """The edges of the panels of V; None before the first read is committed."""
        if "layout" not in self.record["folders"]:
            return None
        return tuple(self._read("layout", "edges").tolist())

    def digest(self) -> Hashes:
        """Return the digest of V at the first read."""
        return self._read("layout", "V").view(np.uint64)

    def commit_models(self, number: int, models: Sequence[Model]) -> None:
        """Commit all models after a shared pass."""
        self._check_exists()
        arrays, parts = stacked(models)
        self._commit("pass", f"pass-{number}", arrays, {"models": parts, "findings": None})

    def keys(self) -> list[ModelKey]:
        """Return which models there are."""
        return [ModelKey(*part["key"]) for part in self.record["models"]]

    def models(self, begin: Begin) -> list[Model]:
        """Return the models of the last commit; ``begin`` makes a state of a model before its first pass."""
        return self._models("pass", self.record["models"], begin)

    def _models(self, kind: str, parts: Sequence[dict[str, Any]], begin: Begin) -> list[Model]:
        found = {name: self._read(kind, name) for name in self.record["arrays"].get(kind, {})}
        return [model_of(part, found, begin) for part in parts]

    def commit_findings(self, findings: Findings) -> None:
        """Commit the findings of models that have all ended."""
        arrays = {"clusters": findings.clusters + 1, "factor": findings.factor}  # a cluster may be -1
        self._commit("findings", "result", arrays, {"findings": findings.table})

    def commit_answer(self, listing: str | None) -> None:
        """Commit that the findings are the answer, with the listing of the files of V."""
        if self.is_answered:
            if self.record["listing"] != listing:
                self._publish({**self.record, "listing": listing})
            return
        parts = {"answer": self.record["findings"], "listing": listing, **NO_ERROR_BARS}
        same = {
            name: {
                **{kind: part for kind, part in self.record[name].items() if kind not in ERROR_BARS},
                "answer": self.record[name]["findings"],
            }
            for name in ("folders", "arrays")
        }
        self._publish({**self.record, **parts, **same})

    def commit_replicates(self, number: int, replicates: Sequence[Model]) -> None:
        """Commit the bootstrap replicates after a shared pass."""
        arrays, parts = stacked(replicates)
        self._commit("replicates", f"replicates-{number}", arrays, {"replicates": parts})

    def replicates(self, begin: Begin) -> list[Model]:
        """Return the bootstrap replicates of the last commit; ``begin`` is that of `models`."""
        return self._models("replicates", self.record["replicates"], begin)

    def commit_error_bars(self, bars: ErrorBars) -> None:
        """Commit the error bars of the answer, whose replicates are no longer needed."""
        arrays = {STDERR: bars.stderr, "likeness": bars.likeness}
        self._commit(ERRORS, "error-bars", arrays, {"error_bars": bars.replicates, "replicates": []})

    def error_bars(self) -> ErrorBars | None:
        """Return the error bars of the answer; None if there are none."""
        replicates = self.record["error_bars"]
        if replicates is None:
            return None
        stderr, likeness = (self._read(ERRORS, name) for name in (STDERR, "likeness"))
        return ErrorBars(stderr, likeness, replicates)

    def findings(self) -> Findings | None:
        """Return the findings of the models; None as long as some of them run."""
        table = self.record["findings"]
        if table is None:
            return None
        return Findings(table, self._read("findings", "clusters") - 1, self._read("findings", "factor"))

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

    def _commit(self, kind: str, purpose: str, arrays: dict[str, Array], parts: dict[str, Any]) -> None:
        folder = self._commits.new_folder(purpose)
        layouts = {name: _layout(array) for name, array in arrays.items()}
        for name, array in arrays.items():
            path = f"{DATA}/{folder}/{name}"
            write_once.open_array(self._commits.group, path, layouts[name])[...] = array
        described = {name: [list(layout.shape), layout.dtype] for name, layout in layouts.items()}
        now = {
            "folders": {**self.record["folders"], kind: folder},
            "arrays": {**self.record["arrays"], kind: described},
        }
        for part in now.values():
            part.pop(ENDS.get(kind), None)
        self._publish({**self.record, **parts, **now})

    def _publish(self, record: Record) -> None:
        before, commits = self.record["folders"].get(ERRORS), self._commits
        shown = None if record["folders"].get(ERRORS) == before else _visible(record)
        commits.publish(record, shown, lasting=True)
        self.record = commits.record
        if shown is not None:
            commits.write_metadata()
        commits.delete(commits.left_behind())

    def _read(self, kind: str, name: str) -> Array:
        shape, dtype = self.record["arrays"][kind][name]
        path = f"{DATA}/{self.record['folders'][kind]}/{name}"
        array = write_once.open_array(self._commits.group, path, _layout(np.empty(shape, dtype)))
        return read_whole(array, self.location)

    def _check_exists(self) -> None:
        """Refuse to go on if the selection was deleted meanwhile."""
        if "layout" in self.record["folders"]:
            self._read("layout", "edges")


def _visible(record: Record) -> VisibleArrays:
    """Return the arrays that are shown under plain names: the standard errors, if there are any."""
    folder = record["folders"].get(ERRORS)
    if folder is None:
        return {}
    shape, dtype = record["arrays"][ERRORS][STDERR]
    layout = _layout(np.empty(shape, dtype))._replace(dimensions=("component", "column"))
    return {STDERR: (f"{DATA}/{folder}/{STDERR}", layout)}


def _layout(array: Array) -> Layout:
    chunks = (min(len(array), ROWS), *array.shape[1:])
    names = ("row", "column")[: array.ndim]
    integers = array.dtype.kind == "i"
    return Layout(array.shape, chunks, array.dtype.name, names, INTEGER_FILL if integers else np.nan)
