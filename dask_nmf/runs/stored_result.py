"""The result that a run holds: W and H of its last fit that had one, whatever happens in the run since."""

from __future__ import annotations

from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import zarr

from dask_nmf.iteration.outcome import Ending
from dask_nmf.kernels.summary.digests import NO_KEYS, Hashes
from dask_nmf.kernels.summary.means import Means
from dask_nmf.kernels.summary.residual_sums import Residuals, Side, block_edges
from dask_nmf.options.settings import Settings
from dask_nmf.runs.commits import Commits
from dask_nmf.runs.labels import open_labels, open_names, visible_names
from dask_nmf.runs.record.contents import HISTORIES, is_masked, settings_of
from dask_nmf.runs.record.layouts import (
    ADDED_DIGEST,
    added_digest_layout,
    residual_layouts,
    result_layouts,
    result_units,
)
from dask_nmf.runs.record.states import or_none
from dask_nmf.sources.checks import check_chunks, check_stored
from dask_nmf.sources.labels.names import Labels
from dask_nmf.storage.arrays import write_once
from dask_nmf.storage.arrays.factors import ZarrFactor, reporting_damage, strict_array
from dask_nmf.storage.arrays.write_once import DATA
from dask_nmf.storage.locations import Location
from dask_nmf.types import Array


class Findings(NamedTuple):
    """The figures of a result that is about to be committed: its losses, residuals, time and memory."""

    loss: float
    held_out: float  # the root mean squared error of the held-out entries; NaN if there are none
    residuals: Residuals | None  # where W H differs from V, if that is known
    work: dict[str, Any] | None = None  # the seconds of tasks and the memory of processes: see `work_of`


class StoredResult:
    """W and H in a run, with how they were made.

    Attributes
    ----------
    location : where the run is
    record : the part of the run's record on the result: settings, matrix, measures, history, loss, outcome

    Examples
    --------
    >>> from dask_nmf import Run, nmf
    >>> result = nmf([[1.0, 2.0], [3.0, 6.0]], 1, store="run.zarr")
    >>> W, H = Run.load_result("run.zarr").factors  # Zarr arrays, of which parts can be read
    >>> W.shape, H.shape
    ((2, 1), (1, 2))
    """

    def __init__(self, location: Location, group: zarr.Group, record: dict[str, Any]) -> None:
        self.location = location
        self.record = record
        self._group = group

    @cached_property
    def settings(self) -> Settings:
        """The settings of the fit."""
        return settings_of(self.record)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of both factors."""
        dtype: np.dtype[Any] = np.dtype(self.record["matrix"]["dtype"])
        return dtype

    @property
    def factors(self) -> tuple[zarr.Array[Any], zarr.Array[Any]]:
        """W (m, k) and H (k, n); `InvalidRunError` is raised if some of their chunks are lost."""
        return self.array("W"), self.array("H")

    @property
    def means(self) -> Means | None:
        """Means of the observed entries of each row, each column and of V; None if all of V is observed."""
        if not is_masked(self.record):
            return None
        return Means(self.array("row_mean"), self.array("column_mean"), self.record["measures"]["mean"])

    @property
    def residuals(self) -> Residuals | None:
        """Where W H differs from V, by the last read of the fit; None if it is unknown.

        It is unknown where `dask_nmf.fitting.result.Result` says so, or if rows were added or taken out.
        """
        if not self.record.get("residuals"):
            return None
        losses, sizes = self.read("residual_blocks")
        rows, columns = (
            Side(block_edges(size), worst[0].astype(np.int64), *worst[1:])
            for size, worst in zip(
                self.record["matrix"]["shape"],
                (self.read("residual_rows"), self.read("residual_columns")),
                strict=True,
            )
        )
        return Residuals(losses, sizes, rows, columns)

    @property
    def objectives(self) -> Array | None:
        """The objective of each start, (n_init,); None if the fit had one start."""
        starts = self.record.get("starts")
        if starts is None:
            return None
        return np.array([np.inf if one is None else one for one in starts["objectives"]])

    @property
    def row_names(self) -> zarr.Array[Any] | None:
        """The names of the rows of V, (m,), to be read in ranges; None if it has none."""
        return open_names(self.location, self._group, self.record, "row")

    @property
    def column_names(self) -> zarr.Array[Any] | None:
        """The names of the columns of V, (n,), to be read in ranges; None if it has none."""
        return open_names(self.location, self._group, self.record, "column")

    @property
    def labels(self) -> Labels:
        """The names of the rows and columns of V."""
        return open_labels(self.location, self._group, self.record)

    @property
    def added_digest(self) -> Hashes:
        """The digests of all rows that were added, batch by batch, (spans,); empty if there are none."""
        if "added_spans" not in self.record:
            return NO_KEYS
        layout = added_digest_layout(self.record)
        array = write_once.open_array(self._group, f"{DATA}/{self.record['folder']}/{ADDED_DIGEST}", layout)
        with reporting_damage(self.location.name):
            check_stored(array, ADDED_DIGEST, whole=True)
            return np.asarray(array[...]).view(np.uint64)

    def array(self, name: str) -> zarr.Array[Any]:
        """Return an array of the result; `InvalidRunError` is raised if a chunk is lost, now or when read."""
        layout = result_layouts(self.record).get(name) or residual_layouts(self.record)[name]
        array = write_once.open_array(self._group, f"{DATA}/{self.record['folder']}/{name}", layout)
        with reporting_damage(self.location.name):
            check_chunks(array, name)
            check_stored(array, name, whole=True)
        return strict_array(array)

    def read(self, name: str) -> Array:
        """Return an array of the result in memory."""
        array = self.array(name)
        with reporting_damage(self.location.name):
            return np.asarray(array[...])


def result_arrays(commits: Commits, folder: str) -> dict[str, ZarrFactor]:
    """Return new arrays for the factors and means of a result in a folder of data, by their names."""
    record = {**commits.record, "units": result_units(commits.record)}
    arrays = {
        name: write_once.open_array(commits.group, f"{DATA}/{folder}/{name}", layout)
        for name, layout in result_layouts(record).items()
        if name not in HISTORIES
    }
    return {name: ZarrFactor(array, transposed=name == "H") for name, array in arrays.items()}


def publish_result(commits: Commits, folder: str, found: Findings, ending: Ending | None) -> StoredResult:
    """Commit the result whose arrays are in a folder of data: see `Run.commit_result`."""
    outcome, message = ending or (None, None)
    finished = outcome is not None and outcome.final
    end = {"finished": finished, "outcome": outcome, "message": message}
    loss, held, residuals = or_none(found.loss), or_none(found.held_out), found.residuals
    last = commits.record
    copied = {name: last[name] for name in ("settings", "matrix", "measures", "history", "pass")}
    copied |= {name: last[name] for name in ("labels", "weighs_columns", "expected") if name in last}
    record = {
        **copied,
        "starts": last.get("starts"),
        "folder": folder,
        "units": result_units(last),
        **end,
        "loss": loss,
        "validation_error": held,
        "residuals": residuals is not None,
        "work": found.work,
    }
    commits.check_exists()
    commits.write_histories(folder, last)
    if residuals is not None:
        _write_residuals(commits, folder, residuals)
    result = StoredResult(commits.location, commits.group, record)
    visible = {name: (f"{DATA}/{folder}/{name}", layout) for name, layout in result_layouts(record).items()}
    for name in [*visible, *(residual_layouts(record) if residuals is not None else ())]:
        result.array(name)
    visible |= visible_names(record)
    ended: dict[str, Any] = {"commit": None, "carried": {}, "previous": None} if finished else {}
    commits.publish({**last, "result": record, **end, **ended}, visible, lasting=True)
    commits.write_metadata()
    return result


def _write_residuals(commits: Commits, folder: str, residuals: Residuals) -> None:
    """Write residuals as small arrays in a folder of data."""
    arrays = {
        "residual_blocks": np.stack([residuals.losses, residuals.sizes]),
        "residual_rows": np.stack([residuals.rows.worst, residuals.rows.losses, residuals.rows.sizes]),
        "residual_columns": np.stack(
            [residuals.columns.worst, residuals.columns.losses, residuals.columns.sizes]
        ),
    }
    for name, layout in residual_layouts(commits.record).items():
        write_once.open_array(commits.group, f"{DATA}/{folder}/{name}", layout)[...] = arrays[name]
