"""The record of a run, as it must be: what a run says of itself may come from anybody."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from itertools import pairwise
from math import prod
from sys import float_info
from typing import Any

import numpy as np

from dask_nmf.digests import span_of
from dask_nmf.fit import relative_error
from dask_nmf.settings import Settings
from dask_nmf.solvers import SLOTS, State

MOST = 2**53  # integers that JSON and float64 hold
MEASURES = ("mean", "baseline", "stored", "empty", "unobserved_rows", "unobserved_columns")
DTYPES = ("float32", "float64")
SLOTTED = ("slot", "best_slot", "good_slot")  # of a state: which W belongs to it
STORED = ("entering", "best", "good")  # of a state, below the checkpoint
LATER = {"scales", "good_scales"}  # of a state: runs that were begun before have none
UNITS = ("scale", "right_unit")  # of measures: those runs have none either
FACTORS = ("h", *STORED)
SOURCES = ("V", "weights")  # of which a run knows the content and the files


def check(record: dict[str, Any]) -> None:
    """Refuse a record that no commit made.

    Raises
    ------
    ValueError
        With the first part that is wrong.
    """
    parts: list[tuple[str, Callable[[Any], bool]]] = [
        ("settings", _is_object),
        ("matrix", _is_object),
        ("pass", lambda value: value is None or _is_count(value)),
        ("outcome", lambda value: value is None or isinstance(value, str)),
        *((name, _is_bool) for name in ("final", "answered", "finished")),
    ]
    _check(record, parts)
    _check(
        record["matrix"],
        [
            ("source", lambda value: isinstance(value, str)),
            ("shape", _is_shape),
            ("dtype", lambda value: value in DTYPES),
            ("transposed", _is_bool),
        ],
    )
    settings(record).check_rank(tuple(record["matrix"]["shape"]))
    if record["pass"] is not None:
        _check_pass(record)
    elif record["answered"] or record["finished"] or record["final"]:
        raise ValueError("it has an answer and no pass")
    if record["answered"]:
        _check(
            record,
            [
                ("loss", lambda value: value is None or _is_size(value)),
                ("held", lambda value: value is None or _is_size(value)),
            ],
        )
    elif record["finished"]:
        raise ValueError("it is finished and has no answer")


def settings(record: dict[str, Any]) -> Settings:
    """Those of a run; `ValueError` if there are no such settings."""
    asked = record["settings"]
    known = {field.name: asked[field.name] for field in fields(Settings) if field.name in asked}
    try:
        return Settings(**known)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"its settings: {error}") from None


def partial(record: dict[str, Any]) -> bool:
    """Whether the entries of V may be missing, or of weight 0: see `observed.Rule.partial`."""
    return any(record["settings"].get(name) is not None for name in ("missing", "weights"))


def summary(told: dict[str, Any]) -> dict[str, Any]:
    """What a person wants to know of the run, as JSON holds it."""
    history = told.get("history", {"loss": [], "seconds": []})
    matrix, asked = told["matrix"], settings(told)
    baseline = told["measures"]["baseline"] if "measures" in told else None
    known = told["answered"] and told["loss"] is not None  # else the divergence is infinite
    error = relative_error(told["loss"], baseline) if known and baseline else None
    return {
        "state": "finished" if told["finished"] else "stopped" if told["answered"] else "unfinished",
        "outcome": told["outcome"],
        "source": matrix["source"],
        "shape": matrix["shape"],
        "dtype": matrix["dtype"],
        "rank": asked.rank,
        "solver": asked.solver,
        "passes": told["pass"],
        "seconds": round(sum(history["seconds"]), 3),
        "validation_error": told.get("held"),
        "unobserved_rows": told.get("measures", {}).get("unobserved_rows"),
        "unobserved_columns": told.get("measures", {}).get("unobserved_columns"),
        "relative_error": error if error is not None or told["answered"] else (history["loss"] or [None])[-1],
        "loss_history": history["loss"],
        "settings": told["settings"],
    }


def check_edges(edges: Sequence[int], size: int) -> None:
    """Refuse edges of panels that do not cover ``size`` rows in order."""
    if len(edges) < 2 or (edges[0], edges[-1]) != (0, size) or any(a >= b for a, b in pairwise(edges)):
        raise ValueError(f"its panels do not cover {size} rows in order")


def check_array(
    record: dict[str, Any], name: str, shape: tuple[int, ...], cuts: tuple[int, ...], dtype: np.dtype[Any]
) -> None:
    """Refuse an array of another shape than the run's, of larger chunks, or of what are no numbers."""
    expected = _shape(record, name)
    if expected not in (None, shape) or dtype.kind not in "fi":
        raise ValueError(
            f"{name} has shape {shape} and type {dtype}, and the run is for {expected or 'numbers'}"
        )
    if any(cut > max(size, 1) for cut, size in zip(cuts, shape, strict=True)):
        raise ValueError(f"{name} has shape {shape}, in chunks of shape {cuts}")


def across(record: dict[str, Any]) -> tuple[int, int]:
    """Rows and columns of V in panel orientation."""
    m, n = record["matrix"]["shape"]
    return (n, m) if record["matrix"]["transposed"] else (m, n)


def _shape(record: dict[str, Any], name: str) -> tuple[int, ...] | None:
    """Of an array of the run; None where it is free."""
    (m, n), (rows, columns), asked = record["matrix"]["shape"], across(record), settings(record)
    folder, _, last = name.rpartition("/")
    if folder == "digests":
        return (-(-rows // span_of(rows)),)
    if folder == "checkpoint":
        return (rows, asked.carried) if last[0] == "w" else None
    if folder:
        return (asked.carried, columns)
    return {"W": (m, asked.rank), "H": (asked.rank, n), "row_mean": (m,), "column_mean": (n,)}.get(name)


def _check_pass(record: dict[str, Any]) -> None:
    """What there is from the start on."""
    _check(record, [(name, _is_object) for name in ("measures", "history", "state")])
    _check(record["measures"], [(name, _is_size) for name in MEASURES])
    _check(record["measures"], [(name, _is_unit) for name in UNITS if name in record["measures"]])
    if not _is_unit(prod(record["measures"].get(name, 1.0) for name in UNITS)):
        raise ValueError("measures has units that are none")
    if set(record["measures"]) - set(UNITS) != set(MEASURES):
        raise ValueError(f"measures has {sorted(record['measures'])}")
    _check(record, [("listing", _is_listing)])
    several = [
        ("loss", lambda value: _is_list(value, lambda one: one is None or _is_size(one))),
        ("seconds", lambda value: _is_list(value, _is_size)),
    ]
    _check(record["history"], several)
    if {len(record["history"][name]) for name, _ in several} != {record["pass"]}:
        raise ValueError(f"history is not of {record['pass']} passes")
    _check(record, [("factors", lambda value: _is_list(value, lambda one: one in FACTORS))])
    defaults = {field.name: field.default for field in fields(State)}
    for name in set(State.SCALARS) - (LATER - set(record["state"])):
        _check(record["state"], [(name, _like(name, defaults[name]))])
    if unknown := set(record["state"]) - set(State.SCALARS):
        raise ValueError(f"state has {sorted(unknown)}")


def _check(part: dict[str, Any], wanted: Sequence[tuple[str, Callable[[Any], bool]]]) -> None:
    for name, holds in wanted:
        if name not in part:
            raise ValueError(f"it has no {name}")
        if not holds(part[name]):
            raise ValueError(f"{name} is {_short(part[name])}")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


def _like(name: str, default: Any) -> Callable[[Any], bool]:
    """Whether a value is one that a scalar of a state can have."""
    if name in SLOTTED:
        return lambda value: type(value) is int and -1 <= value < SLOTS
    if isinstance(default, tuple):
        return lambda value: _is_list(value, lambda one: _is_number(one) and one > 0)
    if isinstance(default, bool):
        return _is_bool
    if isinstance(default, int):
        return _is_count
    return lambda value: value is None or _is_number(value)


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


def _is_listing(value: Any) -> bool:
    return _is_object(value) and all(
        name in SOURCES and (digest is None or isinstance(digest, str)) for name, digest in value.items()
    )


def _is_list(value: Any, holds: Callable[[Any], bool]) -> bool:
    return isinstance(value, list) and all(map(holds, value))


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < MOST


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) <= float_info.max


def _is_size(value: Any) -> bool:
    return _is_number(value) and value >= 0


def _is_unit(value: Any) -> bool:
    return _is_number(value) and float_info.min <= value <= 1 / float_info.min


def _is_shape(value: Any) -> bool:
    return _is_list(value, lambda one: _is_count(one) and one > 0) and len(value) == 2
