"""The contents of a run's record, a dict that JSON holds: names of its parts, a new record, queries."""

from __future__ import annotations

from dataclasses import fields
from typing import Any
from uuid import uuid4

from dask_nmf._version import __version__
from dask_nmf.iteration.outcome import relative_error
from dask_nmf.kernels.summary.digests import spans_in
from dask_nmf.options.settings import Settings
from dask_nmf.runs.record.work import total_work
from dask_nmf.storage.arrays.write_once import folder_of
from dask_nmf.types import Orientation

FORMAT = 6
HISTORIES = {"error_history": "relative_error", "seconds_history": "seconds"}  # arrays, and keys of `history`
ENDING = ("outcome", "message", "final")  # why the fit ended, if it did
COMMIT = ("pass", "state", "factors", "commit", "carried", *ENDING)  # the parts that a pass changes
SOURCES = ("V", "weights")  # the inputs whose content and files a run knows


def new_record(settings: dict[str, Any], matrix: dict[str, Any], overwrite: bool) -> dict[str, Any]:
    """Return the record of a fit that is about to begin."""
    return {
        "format": FORMAT,
        "version": __version__,
        "settings": settings,
        "matrix": matrix,
        "writer": uuid4().hex,  # the process that writes, or was the last one to write
        "overwrites": overwrite,  # whether it was begun with overwrite: the same call then goes on with it
        "pass": None,
        "outcome": None,  # of the last pass: why it is the last one, an `Outcome`
        "message": None,  # the outcome as a sentence
        "final": False,  # whether no pass is to follow
        "finished": False,  # whether nothing is left to do
        "layout": None,
        "commit": None,  # the folder of the last commit
        "carried": {},  # the paths of the carried W, by slot
        "previous": None,  # the commit before the last one
        "starts": None,  # of several starts, at the end: their objectives, and which one is kept
        "result": None,
        "weighs_columns": True,  # whether the result has `column_weight` if entries of V may not count
        "encoding": 1,  # the chunk key encoding by which arrays are shown: see `links`
    }


def settings_of(record: dict[str, Any]) -> Settings:
    """Return the settings of a fit; raise `ValueError` if a record holds no valid ones."""
    stored = record["settings"]
    known = {field.name: stored[field.name] for field in fields(Settings) if field.name in stored}
    try:
        return Settings(**known)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"its settings: {error}") from None


def is_masked(record: dict[str, Any]) -> bool:
    """Return whether entries of V may be missing, or of weight 0."""
    return any(record["settings"].get(name) is not None for name in ("missing", "weights"))


def carried_columns(record: dict[str, Any]) -> int:
    """Return how many columns the W has that is carried from pass to pass."""
    return settings_of(record).carried


def orientation_of(record: dict[str, Any]) -> Orientation:
    """Return the orientation of the panels of a fit."""
    return Orientation.COLUMNS if record["matrix"]["transposed"] else Orientation.ROWS


def panel_shape(record: dict[str, Any]) -> tuple[int, int]:
    """Return the rows and columns of V in panel orientation."""
    m, n = record["matrix"]["shape"]
    return orientation_of(record).turn((m, n))


def digest_spans(record: dict[str, Any]) -> int:
    """Return into how many spans of rows the digests of V and its weights are cut."""
    return spans_in(panel_shape(record)[0])


def current_folders(record: dict[str, Any]) -> set[str]:
    """Return the folders of data that a record names: those that are current."""
    parts = [record, record["previous"] or {}]
    folders = [part.get("commit") for part in parts]
    folders += [folder_of(path) for part in parts for path in part.get("carried", {}).values()]
    folders += [(record[name] or {}).get("folder") for name in ("layout", "result")]
    folders += [part["labels"]["folder"] for part in (record, record["result"] or {}) if "labels" in part]
    return {folder for folder in folders if folder is not None}


def before_last(record: dict[str, Any]) -> dict[str, Any]:
    """Return the record as the commit before the last one left it."""
    done = record["previous"]["pass"]
    history = {name: values[:done] for name, values in record["history"].items()}
    return {**record, **record["previous"], "history": history, "previous": None}


def summarize(record: dict[str, Any]) -> dict[str, Any]:
    """Return a summary of a run for people and programs, as JSON holds it."""
    history, result = record.get("history", {"relative_error": [], "seconds": []}), record["result"]
    matrix, settings = record["matrix"], settings_of(record)
    current = result if result is not None and _is_of(result, record) else None
    return {
        "state": "finished" if record["finished"] else "stopped" if current else "unfinished",
        "outcome": record["outcome"],
        "message": record["message"],
        "source": matrix["source"],
        "shape": (current or record)["matrix"]["shape"],
        "dtype": matrix["dtype"],
        "n_components": settings.n_components,
        "solver": settings.solver,
        "passes": record["pass"],
        "seconds": round(sum(history["seconds"]), 3),
        "validation_error": None if current is None else current["validation_error"],
        "unobserved_rows": record.get("measures", {}).get("unobserved_rows"),
        "unobserved_columns": record.get("measures", {}).get("unobserved_columns"),
        "relative_error": (history["relative_error"] or [None])[-1] if current is None else _error(current),
        **({"error_is_estimate": True} if current and current.get("estimated") else {}),
        "error_history": history["relative_error"],
        **({"starts": record.get("starts")} if settings.n_init > 1 else {}),
        **({"expected": known["expected"]} if "expected" in (known := current or record) else {}),
        **({"work": total_work(current["work"])} if current and current.get("work") else {}),
        **({"names": known["labels"]["named"]} if "labels" in known else {}),
        **({"lineage": current["lineage"]} if current and "lineage" in current else {}),
        "result": None if result is None else _result_summary(result),
        "settings": record["settings"],
        "environments": record.get("environments", []),
    }


def _result_summary(result: dict[str, Any]) -> dict[str, Any]:
    """Return a summary of the W and H that can be read now, which may be of an earlier fit."""
    return {
        "n_components": settings_of(result).n_components,
        "passes": result["pass"],
        "relative_error": _error(result),
        "outcome": result["outcome"],
        "message": result["message"],
        "source": result["matrix"]["source"],
    }


def _is_of(result: dict[str, Any], record: dict[str, Any]) -> bool:
    """Return whether a result is that of the last pass of the fit in progress, with other rows or not."""
    parts = ("settings", "pass", "history") + (() if "lineage" in result else ("matrix",))
    return all(result[name] == record.get(name) for name in parts)


def _error(result: dict[str, Any]) -> float | None:
    """Return the relative error of a result; None if it is infinite, or V is 0."""
    baseline = result["measures"]["baseline"]
    known = result["loss"] is not None and baseline  # else the divergence is infinite
    return relative_error(result["loss"], baseline) if known else None
