"""A run: one Zarr v3 group that holds a fit, from its first pass to its result (docs/run_format.md).

The record also names the commit before the last one. If the last one is damaged, the fit goes on from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from dask_nmf.cluster import config
from dask_nmf.errors import ConcurrentCommitError
from dask_nmf.iteration.loop import Step
from dask_nmf.iteration.outcome import Ending
from dask_nmf.kernels.summary.digests import Digest, Hashes
from dask_nmf.options.settings import Settings
from dask_nmf.runs import passes, starts
from dask_nmf.runs.commits import KEY, Commits, fit_of, is_free, open_group
from dask_nmf.runs.labels import open_labels, write_labels
from dask_nmf.runs.record import contents
from dask_nmf.runs.record.layouts import check_edges, layout_part
from dask_nmf.runs.record.shown import html_of_run
from dask_nmf.runs.rows.changed_result import ChangedResult
from dask_nmf.runs.stored_result import Findings, StoredResult, publish_result, result_arrays
from dask_nmf.solvers.parts.state import State
from dask_nmf.sources.labels.names import Labels
from dask_nmf.storage.arrays import links
from dask_nmf.storage.arrays.factors import ZarrFactor, reporting_damage
from dask_nmf.storage.arrays.write_once import DATA
from dask_nmf.storage.leases import CheckHeld, always_held
from dask_nmf.storage.locations import Location, located


class Run:
    """A fit in a Zarr group.

    Parameters
    ----------
    location, group, record : where the run is, its group and the record in it
    check_held : raises `RunLocked` if another process has taken over; every commit and deletion calls it
    synced : whether commits wait until the disk has them, unless the configuration says that they need not

    Examples
    --------
    >>> from dask_nmf import Run, nmf
    >>> result = nmf([[1.0, 2.0], [3.0, 6.0]], 1, store="run.zarr")
    >>> run = Run.load("run.zarr")
    >>> run.passes == result.n_iter, run.settings.n_components
    (True, 1)
    >>> run.summary()["outcome"] == result.outcome
    True
    """

    def __init__(
        self,
        location: Location,
        group: zarr.Group,
        record: dict[str, Any],
        check_held: CheckHeld = always_held,
        synced: bool = True,
    ) -> None:
        self.location = location
        self._commits = Commits(location, group, record, check_held, synced)
        self.starts: list[Run] = []  # the runs of several starts, once they are recovered
        self._result_folder = ""  # of the result that is being written

    @classmethod
    def create(
        cls,
        location: Location,
        settings: dict[str, Any],
        matrix: dict[str, Any],
        *,
        overwrite: bool = False,
        check_held: CheckHeld = always_held,
        synced: bool = True,
    ) -> Run:
        """Begin a run at a location where there is none; see `Run` for the other parameters.

        With ``overwrite``, the fit was asked to overwrite one, and the same call then goes on with it.

        Raises
        ------
        ConcurrentCommitError
            If another process has made something there meanwhile.
        """
        record = contents.new_record(settings, matrix, overwrite)
        check_held()
        if not is_free(location):
            raise ConcurrentCommitError(location.name)
        group = links.create_group(location.store(), {KEY: record}, synced and config.read().fsync)
        run = cls(location, group, record, check_held, synced)
        run._commits.sweep(run._commits.left_behind())
        return run

    def replace_fit(self, settings: dict[str, Any], matrix: dict[str, Any]) -> None:
        """Begin another fit in place of this one, whose result stays until there is a newer one."""
        kept = {name: self.record[name] for name in ("result", "encoding")}
        self._commits.publish({**contents.new_record(settings, matrix, True), **kept})
        self._commits.sweep(self._commits.left_behind())
        self.delete_starts()

    @classmethod
    def load(cls, path: str | Path | Location, check_held: CheckHeld = always_held) -> Run:
        """Open a run; a process that writes to it gives ``check_held``.

        Raises
        ------
        FileNotFoundError
            If there is nothing at the path.
        InvalidRunError
            If there is something else, or the record is damaged.
        """
        location: Location = located(path, verbatim=True)
        return cls(location, *open_group(location), check_held)

    @classmethod
    def load_result(cls, path: str | Path | Location) -> StoredResult:
        """Open the result of a run, or of the fit of a selection of ranks.

        It raises as `load` does, and `ValueError` if there is no result yet.
        """
        place: Location = located(path, verbatim=True)
        result = cls.load(fit := fit_of(place)).result
        if result is None:
            command = "fit" if fit is place else "select"
            raise ValueError(f"{place.name} has no W and H yet; finish it with dask-nmf {command} first")
        return result

    @property
    def record(self) -> dict[str, Any]:
        """The record of the last commit, and what this process is about to commit."""
        return self._commits.record

    @property
    def result(self) -> StoredResult | None:
        """The last result, which may be of a fit before the one in progress; None if there is none."""
        record = self.record["result"]
        return None if record is None else StoredResult(self.location, self._commits.group, record)

    def summary(self) -> dict[str, Any]:
        """Return a summary of the run for people and programs, as JSON holds it."""
        summary = {"run": self.location.name, **contents.summarize(self.record)}
        return starts.with_starts(summary, self.location, self.settings.n_init)

    def _repr_html_(self) -> str:
        """Return a short HTML table and a small curve of the errors, for notebooks."""
        return html_of_run(self.summary())

    @property
    def settings(self) -> Settings:
        """The settings of the fit."""
        return contents.settings_of(self.record)

    @property
    def passes(self) -> int | None:
        """The number of passes that are committed; None before the start is."""
        done: int | None = self.record["pass"]
        return done

    @property
    def edges(self) -> tuple[int, ...]:
        """Edges of the panels."""
        return self._edges("edges", contents.panel_shape(self.record)[0])

    @property
    def cuts(self) -> tuple[int, ...] | None:
        """Edges of the pieces of columns, if V is cut both ways."""
        if self.record["layout"] is None or not self.record["layout"]["pieces"]:
            return None
        return self._edges("cuts", contents.panel_shape(self.record)[1])

    def _edges(self, name: str, size: int) -> tuple[int, ...]:
        edges = tuple(self._commits.read(self.record["layout"]["folder"], name).tolist())
        with reporting_damage(self.location.name):
            check_edges(edges, size)
        return edges

    @property
    def labels(self) -> Labels:
        """The names of the rows and columns of V, from the start of the fit on."""
        return open_labels(self.location, self._commits.group, self.record)

    def set_labels(self, labels: Labels) -> None:
        """Copy the names of the rows and columns of V; `commit_start` commits them."""
        self._commits.record = {**self.record, **write_labels(self._commits, labels)}

    def set_layout(self, edges: Sequence[int], cuts: Sequence[int] | None = None) -> None:
        """Lay out a fit over panels, or over blocks if V is cut both ways; `commit_start` commits it."""
        folder = self._commits.new_folder("layout")
        self._commits.record = {**self.record, "layout": layout_part(folder, edges, cuts)}
        for name, values in (("edges", edges), ("cuts", cuts)):
            if values is not None:
                self._commits.array(folder, name)[...] = np.asarray(values, np.int64)

    def commit_start(self, state: State[Any], digests: Sequence[Digest], parts: dict[str, Any]) -> None:
        """Commit the start as pass 0, with digests of V and its weights.

        ``parts`` has the measures of V, the listing of the files, and what is expected of the passes.
        """
        for name, digest in zip(contents.SOURCES, digests, strict=False):
            self._commits.array(self.record["layout"]["folder"], name)[...] = digest.sums.view(np.int64)
        history: dict[str, list[float]] = {key: [] for key in contents.HISTORIES.values()}
        passes.commit_state(self._commits, 0, state, {**parts, "history": history})

    def digest(self, name: str) -> Hashes:
        """Return the digest of V or its weights at the first read (see `digests.Digest`)."""
        return self._commits.read(self.record["layout"]["folder"], name).view(np.uint64)

    def update_listing(self, listing: dict[str, Any]) -> None:
        """Commit the listing of the files of V and its weights, whose content is known to be the same."""
        if listing != self.record["listing"] and not self._commits.group.read_only:
            self._commits.publish({**self.record, "listing": listing})

    def commit(self, step: Step) -> None:
        """Commit a pass: its state, its relative error and time, and the outcome if it is the last."""
        passes.commit_step(self._commits, step)

    def state(self) -> State[Any]:
        """Return the state of the last commit."""
        return passes.read_state(self._commits)

    def factor(self, slot: int) -> ZarrFactor:
        """Return the W (or the H in pieces) that is in a slot, to be read."""
        return self._commits.factor(self._commits.carried.get(slot) or self.record["carried"][str(slot)])

    def new_factor(self, slot: int) -> ZarrFactor:
        """Return a new W for a slot, to be written. The one that is there stays until the next commit."""
        return self._new_factor(slot, "left")

    def new_h_pieces(self, slot: int) -> ZarrFactor:
        """Return a new H in pieces for a slot, to be written."""
        return self._new_factor(slot, "pieces")

    def temporary_w(self) -> ZarrFactor:
        """Return a new W that no commit names."""
        return self._commits.factor(f"{DATA}/{self._commits.new_folder('carried')}/left")

    def _new_factor(self, slot: int, name: str) -> ZarrFactor:
        path = f"{DATA}/{self._commits.new_folder('carried')}/{name}"
        self._commits.carried[slot] = path
        return self._commits.factor(path)

    def recover(self) -> None:
        """Take the run and its starts over from their last writers, and mend them: see `passes.recover`."""
        passes.recover(self._commits)
        if (n_init := self.settings.n_init) > 1 and not self.record["finished"] and self.passes is not None:
            self.starts = [self._recovered_start(number) for number in range(n_init)]
        elif n_init > 1 and not self._commits.group.read_only:
            self.delete_starts()

    def begin_start(self, number: int, settings: dict[str, Any], matrix: dict[str, Any]) -> Run:
        """Begin the run of one of several starts, below this run; it is deleted with `delete_starts`."""
        commits, place = self._commits, starts.start_location(self.location, number)
        run = Run.create(place, settings, matrix, check_held=commits.check_held, synced=commits.synced)
        run._commits.shows = False
        return run

    def _recovered_start(self, number: int) -> Run:
        with reporting_damage(self.location.name):
            run = Run.load(starts.start_location(self.location, number), self._commits.check_held)
        run._commits.shows = False
        run.recover()
        return run

    def keep_start(self, start: Run, ending: Ending, objectives: Sequence[float], kept: int) -> None:
        """Take over the passes of one of several starts, and all objectives; `commit_result` commits them."""
        self._commits.record = self.record | starts.parts_of_kept(start.record, ending, objectives, kept)

    def delete_starts(self) -> None:
        """Delete the runs of starts, which this run needs no longer."""
        starts.delete_starts(self._commits)

    def create_factors(self) -> dict[str, ZarrFactor]:
        """Return new arrays for the factors and means of the result, by their names."""
        self._result_folder = self._commits.new_folder("result")
        return result_arrays(self._commits, self._result_folder)

    def temporary_factor(self, name: str) -> ZarrFactor:
        """Return a new array for a factor that is changed before it goes to the result."""
        return result_arrays(self._commits, self._commits.new_folder("result"))[name]

    def commit_result(self, found: Findings, ending: Ending | None) -> StoredResult:
        """Commit the result whose arrays `create_factors` made; raise `InvalidRunError` if a part is missing.

        ``found`` is what is known of W and H, and ``ending`` says why the fit ended, if it did.
        """
        return publish_result(self._commits, self._result_folder, found, ending)

    def change_rows(self, rows: int) -> ChangedResult:
        """Return a result of other rows in the making, in place of that of the finished fit."""
        return ChangedResult(self._commits, rows)
