"""Models of a selection as arrays, stacked over the models, and JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

import numpy as np

from dask_nmf.iteration.outcome import Ending, Outcome
from dask_nmf.runs.record import states
from dask_nmf.runs.record.states import or_none
from dask_nmf.selection.models import Model, ModelKey
from dask_nmf.solvers.parts.state import State
from dask_nmf.storage.arrays.commits import Record
from dask_nmf.types import Array

FACTOR = "h"  # the array of a model that has ended: its best factor

Begin = Callable[[ModelKey], State[Any]]  # makes a state of a model before its first pass


class Stack(NamedTuple):
    """Arrays of several models, by name, below each other in the order of the models."""

    pieces: dict[str, list[Array]]
    places: list[dict[str, list[int]]]  # first row and the one after the last, of each array of each model


def stacked(models: Sequence[Model]) -> Stack:
    """Return the arrays of the states of models, which are not copied."""
    pieces: dict[str, list[Array]] = {}
    places: list[dict[str, list[int]]] = []
    rows: dict[str, int] = {}
    for model in models:
        _, own = states.to_record(model.state)
        places.append({})
        for name, array in own.items():
            first = rows.get(name, 0)
            rows[name] = first + len(array)
            places[-1][name] = [first, rows[name]]
            pieces.setdefault(name, []).append(array)
    return Stack(pieces, places)


def factors_stacked(models: Sequence[Model]) -> Stack:
    """Return the best factors of models that have ended."""
    factors = [model.best_factor for model in models]
    ends = [0, *accumulate(map(len, factors))]
    return Stack({FACTOR: factors} if factors else {}, [{FACTOR: list(pair)} for pair in pairwise(ends)])


def replicate_of(part: Mapping[str, Any], first: Model, arrays: dict[str, Array]) -> Model:
    """Return a bootstrap replicate from its JSON, its arrays, and the replicate before its first pass.

    Samples of the columns of a factor differ in their number; the zeros that stand beside the narrower ones
    where arrays are stored below each other are left out.
    """
    width = first.state.h.shape[1]
    own = {name: np.ascontiguousarray(array[:, :width]) for name, array in arrays.items()}
    model = model_of(part, lambda key: first.state, own)
    return model if model.runs else model.with_factor(model.state.h)


def part_of(model: Model, kind: str | None = None, places: dict[str, list[int]] | None = None) -> Record:
    """Return a model as JSON, with the kind of folder that has its arrays, and their rows there."""
    ending = model.ending
    return {
        "key": list(model.key),
        "state": states.to_record(model.state)[0],
        "kind": kind,
        "places": places or {},
        "history": [or_none(error) for error in model.history],
        "held_out": [or_none(error) for error in model.held_out],
        "ending": None if ending is None else [str(ending.outcome), ending.message],
    }


def model_of(part: Mapping[str, Any], begin: Begin, arrays: dict[str, Array] | None = None) -> Model:
    """Return a model from its JSON and its arrays; without them its factor has no columns."""
    key = ModelKey(*part["key"])
    state = states.from_record(begin(key), part["state"], arrays or {})
    ending = part["ending"] and Ending(Outcome(part["ending"][0]), part["ending"][1])
    return Model(key, state, _floats(part["history"]), _floats(part["held_out"]), ending)


def _floats(numbers: Sequence[float | None]) -> tuple[float, ...]:
    return tuple(float("nan") if number is None else number for number in numbers)
