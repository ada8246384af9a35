"""The answer that a run holds: W and H of its last fit that had one, whatever goes on in the run since."""

from __future__ import annotations

from typing import Any

import numpy as np
import zarr

from dask_nmf.kernels.summary.means import Means
from dask_nmf.runs import schema
from dask_nmf.settings import Settings
from dask_nmf.sources.checks import check_chunks, check_stored
from dask_nmf.storage.arrays import write_once
from dask_nmf.storage.arrays.factors import reporting_damage, strict_array
from dask_nmf.storage.arrays.write_once import DATA, Layout
from dask_nmf.types import Array

NO_MEAN = -1.0  # the fill value of means, of which all may be NaN


class StoredResult:
    """W and H in a run, with how they were made.

    Attributes
    ----------
    path : of the run
    record : what the run tells of the answer: its settings, matrix, measures, history, loss and outcome
    """

    def __init__(self, path: str, group: zarr.Group, told: dict[str, Any]) -> None:
        self.path = path
        self.record = told
        self._group = group

    @property
    def settings(self) -> Settings:
        """Those of the fit."""
        return schema.settings_of(self.record)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of both factors."""
        dtype: np.dtype[Any] = np.dtype(self.record["matrix"]["dtype"])
        return dtype

    @property
    def factors(self) -> tuple[zarr.Array[Any], zarr.Array[Any]]:
        """W (m, k) and H (k, n); raises `InvalidRunError` where some of their chunks are lost."""
        return self.array("W"), self.array("H")

    @property
    def means(self) -> Means | None:
        """Means of what the fit observed of rows and columns, if not all of V is, and of everything."""
        if not schema.is_masked(self.record):
            return None
        return Means(self.array("row_mean"), self.array("column_mean"), self.record["measures"]["mean"])

    def array(self, name: str) -> zarr.Array[Any]:
        """Return an array of the answer; raises `InvalidRunError` if a part is lost, now or when read."""
        layout = layouts(self.record)[name]
        array = write_once.open_array(self._group, f"{DATA}/{self.record['folder']}/{name}", layout)
        with reporting_damage(self.path):
            check_chunks(array, name)
            check_stored(array, name, whole=True)
        return strict_array(array)

    def read(self, name: str) -> Array:
        """Return an array of the answer, whole, in memory."""
        array = self.array(name)
        with reporting_damage(self.path):
            return np.asarray(array[...])


def layouts(told: dict[str, Any]) -> dict[str, Layout]:
    """Return how the arrays of an answer are stored, by their names."""
    (m, n), dtype = told["matrix"]["shape"], told["matrix"]["dtype"]
    rank, (rows, columns) = told["settings"]["n_components"], told["units"]
    made = {
        "W": Layout((m, rank), (rows, rank), dtype, ("row", "component")),
        "H": Layout((rank, n), (rank, columns), dtype, ("component", "column")),
    } | dict.fromkeys(schema.HISTORIES, history(told))
    if not schema.is_masked(told):
        return made
    return made | {
        "row_mean": Layout((m,), (rows,), dtype, ("row",), NO_MEAN),
        "column_mean": Layout((n,), (columns,), dtype, ("column",), NO_MEAN),
    }


def history(told: dict[str, Any]) -> Layout:
    """Return how a history of a fit, or of its answer, is stored."""
    passes = len(told["history"]["relative_error"])
    return Layout((passes,), (passes,), "float64", ("pass",), np.inf)


def units(told: dict[str, Any]) -> list[int]:
    """Return the rows of W and the columns of H that are in one chunk, from the record of a fit."""
    along, across = told["layout"]["units"]
    sides = [along, across or schema.panel_shape(told)[1]]
    return sides[::-1] if told["matrix"]["transposed"] else sides
