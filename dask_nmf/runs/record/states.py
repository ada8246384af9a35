"""The state of a solver as a run stores it: scalars in the record, and arrays, named as by `leaves`."""

from __future__ import annotations

from typing import Any

import numpy as np

from dask_nmf.runs.record.contents import orientation_of, settings_of
from dask_nmf.solvers.parts.penalties import NO_PENALTY
from dask_nmf.solvers.parts.state import N_W_SLOTS as N_W_SLOTS
from dask_nmf.solvers.parts.state import State, is_slot, leaves, with_leaves
from dask_nmf.solvers.piecewise import PiecewiseHALS
from dask_nmf.solvers.select import select_solver
from dask_nmf.solvers.solver import Problem, Solver
from dask_nmf.types import Array


def to_record(state: State[Any]) -> tuple[dict[str, Any], dict[str, Array]]:
    """Return the scalars of a state as JSON holds them, and its arrays that have entries."""
    parts = leaves(state)
    scalars = {name: _as_json(value) for name, value in parts.items() if not is_array(value)}
    arrays = {name: value for name, value in parts.items() if isinstance(value, np.ndarray) and value.size}
    return scalars, arrays


def from_record(first: State[Any], scalars: dict[str, Any], arrays: dict[str, Array]) -> State[Any]:
    """Return the state that `to_record` took apart; ``first`` is one of the same solver."""
    known = {name: value for name, value in scalars.items() if value is not None}
    lists = {name: tuple(value) for name, value in known.items() if isinstance(value, list)}
    state: State[Any] = with_leaves(first, known | lists | arrays)
    return state


def first_state(record: dict[str, Any]) -> State[Any]:
    """Return a state, before the first pass, of the solver of a fit; its H has no columns."""
    settings, dtype = settings_of(record), np.dtype(record["matrix"]["dtype"])
    problem = Problem(settings, NO_PENALTY, 1.0, 1.0, dtype, 1, orientation_of(record))
    solver: Solver = PiecewiseHALS() if record["layout"]["pieces"] else select_solver(problem)
    return solver.begin(np.empty((settings.n_components, 0), dtype))


def slots_of(scalars: dict[str, Any]) -> set[str]:
    """Return the slots of the carried W that belong to a state, as keys of the record."""
    return {str(value) for name, value in scalars.items() if is_slot(name)}


def is_array(value: Any) -> bool:
    """Return whether a field of a state with this value is an array; None: there is none yet."""
    return value is None or isinstance(value, np.ndarray)


def or_none(number: float) -> float | None:
    """Return a number as JSON holds it: None stands for infinity and NaN, which are the defaults."""
    return number if np.isfinite(number) else None


def _as_json(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else or_none(value)
