"""Models of a selection as arrays, stacked over the models, and JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from dask_nmf.iteration.outcome import Ending, Outcome
from dask_nmf.runs.record import states
from dask_nmf.runs.record.states import or_none
from dask_nmf.selection.models import Model, ModelKey
from dask_nmf.solvers.parts.state import State
from dask_nmf.types import Array

Begin = Callable[[ModelKey], State[Any]]  # makes a state of a model before its first pass


def stacked(models: Sequence[Model]) -> tuple[dict[str, Array], list[dict[str, Any]]]:
    """Return the arrays of all states, each stacked over the models, and the rest of the models as JSON."""
    parts: list[dict[str, Any]] = []
    arrays: dict[str, list[Array]] = {}
    rows: dict[str, int] = {}
    for model in models:
        scalars, own = states.to_record(model.state)
        places = {}
        for name, array in own.items():
            first = rows.get(name, 0)
            places[name] = [first, first + len(array)]
            rows[name] = first + len(array)
            arrays.setdefault(name, []).append(array)
        ending = model.ending
        parts.append(
            {
                "key": list(model.key),
                "state": scalars,
                "places": places,
                "history": [or_none(error) for error in model.history],
                "validation_error": or_none(model.validation_error),
                "ending": None if ending is None else [str(ending.outcome), ending.message],
            }
        )
    return {name: np.concatenate(each) for name, each in arrays.items()}, parts


def model_of(part: Mapping[str, Any], arrays: Mapping[str, Array], begin: Begin) -> Model:
    """Return a model from its JSON and the stacked arrays of all models."""
    own = {name: np.ascontiguousarray(arrays[name][slice(*place)]) for name, place in part["places"].items()}
    key = ModelKey(*part["key"])
    state = states.from_record(begin(key), part["state"], own)
    nan = float("nan")
    history = tuple(nan if error is None else error for error in part["history"])
    held = nan if part["validation_error"] is None else part["validation_error"]
    ending = part["ending"] and Ending(Outcome(part["ending"][0]), part["ending"][1])
    return Model(key, state, history, held, ending)
