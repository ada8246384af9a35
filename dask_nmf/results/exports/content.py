"""The content of an export, which each kind of file writes, and how a kind of file is described."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dask_nmf.results.sides import Side
from dask_nmf.runs.stored_result import StoredResult
from dask_nmf.types import Array

MARK = "dask_nmf_export"  # the attribute of files that can have one, with the version that wrote them


class Content(NamedTuple):
    """A result to be exported, with its sides."""

    result: StoredResult
    rows: Side  # W
    columns: Side  # Hᵀ

    @property
    def error_history(self) -> Array:
        """The relative error after each pass."""
        return np.asarray(self.result.read("error_history"))

    @property
    def parameters(self) -> dict[str, Any]:
        """The settings of the fit that have a value, and how it ended, as scalars."""
        record = self.result.record
        known = {"outcome": record["outcome"], "message": record["message"], "n_iter": record["pass"]}
        settings = {**record["settings"], **known}
        return {name: value for name, value in settings.items() if isinstance(value, str | int | float)}


class Format(NamedTuple):
    """A kind of file: how it is written, how one that an export wrote is told, and what it holds."""

    write: Callable[[Path, Any], None]  # from the `Content`, or from the `Side` of the factor that it holds
    is_ours: Callable[[Path], bool]
    both: bool  # whether it holds W and H, or one of them


def component_names(rank: int) -> list[str]:
    """Return the names of components, which are those of `NMF.get_feature_names_out`."""
    return [f"nmf{number}" for number in range(rank)]
