"""The state of a solver as a run stores it: scalars in the record, and arrays."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np

from dask_nmf.solvers.parts.state import N_W_SLOTS as N_W_SLOTS
from dask_nmf.solvers.parts.state import State
from dask_nmf.types import Array

SLOT_NAMES = ("w_slot", "best_slot", "previous_slot")  # scalars: the slots of the W that belong to a state
PANEL_FACTORS = ("h_input", "best", "h_previous")  # arrays in panel orientation
FACTORS = ("h", *PANEL_FACTORS)
OPTIONAL_SCALARS = {"scales", "previous_scales"}
DEFAULTS = {field.name: field.default for field in fields(State) if field.name in State.SCALARS}


def to_record(state: State) -> tuple[dict[str, Any], dict[str, Array]]:
    """Return the scalars of a state as JSON holds them, and its arrays that have entries."""
    factors = {name: getattr(state, name) for name in FACTORS}
    scalars = {name: _as_json(getattr(state, name)) for name in State.SCALARS}
    return scalars, {name: array for name, array in factors.items() if array is not None and array.size}


def from_record(scalars: dict[str, Any], arrays: dict[str, Array], empty: Array) -> State:
    """Return the state that `to_record` took apart; ``empty`` stands for an H without entries."""
    known = {name: value for name, value in scalars.items() if value is not None}
    lists = {name: tuple(value) for name, value in known.items() if isinstance(value, list)}
    factors: dict[str, Any] = {"h": empty, "h_input": empty, **arrays}
    return State(**factors, **known | lists)


def slots_of(scalars: dict[str, Any]) -> set[str]:
    """Return the slots of the carried W that belong to a state, as keys of the record."""
    return {str(scalars[name]) for name in SLOT_NAMES}


def or_none(number: float) -> float | None:
    """Return a number as JSON holds it: None stands for infinity and NaN, which are the defaults."""
    return number if np.isfinite(number) else None


def _as_json(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else or_none(value)
