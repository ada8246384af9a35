"""How a run stores the state of a solver: by the fields of its records, whatever the solver."""

import json
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest

from dask_nmf.runs.record import states
from dask_nmf.solvers.hals import HALS
from dask_nmf.solvers.parts.state import Extrapolation, HeldOut, Snapshot, State, leaves
from dask_nmf.types import Array

H = np.arange(6.0).reshape(2, 3)


@dataclass(frozen=True)
class Momentum:
    """The record of a solver that the package does not have."""

    speed: Array | None = None
    lengths: tuple[float, ...] = ()
    shrink: Extrapolation = field(default_factory=Extrapolation)
    far_slot: int = -1


def state_of(own: Any, **parts: Any) -> State[Any]:
    return State(H, H + 1, own, **parts)


STATES = {
    "first": state_of(Momentum()),
    "later": state_of(
        Momentum(H * 2, (1.5, 0.25), Extrapolation(0.1, 0.2, 1 / 3), 3), loss=0.1, level=2, accepted=False
    ),
    "held out": state_of(
        Momentum(), w_slot=2, measured=Snapshot(H, 1), held_out=HeldOut(0.5, Snapshot(H - 1, 0), 0.25, 7)
    ),
}


@pytest.mark.parametrize("case", STATES)
def test_a_state_is_the_same_after_json(case: str) -> None:
    state = STATES[case]
    scalars, arrays = states.to_record(state)
    first = State(np.empty((2, 0)), np.empty((2, 0)), Momentum())
    again = states.from_record(first, json.loads(json.dumps(scalars, allow_nan=False)), arrays)
    for (name, value), other in zip(leaves(state).items(), leaves(again).values(), strict=True):
        np.testing.assert_array_equal(value, other, err_msg=name)
    assert type(again.own) is Momentum


def test_a_slot_that_any_record_names_is_not_the_next() -> None:
    state = STATES["held out"]
    assert state.next_slot == 3
    assert replace(state, own=Momentum(far_slot=3), measured=Snapshot()).next_slot == 1
    assert states.slots_of(states.to_record(state)[0]) == {"-1", "0", "1", "2"}


def test_a_pass_that_is_rejected_is_no_pass_since_the_best() -> None:
    state = HALS().begin(H)
    track = HeldOut().after(4.0, Snapshot(H), True).after(5.0, Snapshot(H + 1), True)
    assert (track.best_mse, track.passes_since_best, track.mse) == (4.0, 1, 5.0)
    assert track.after(5.0, Snapshot(H), False).passes_since_best == 1
    better = track.after(3.0, Snapshot(H), False)  # a rejected pass may find the least error too
    assert (better.best_mse, better.passes_since_best) == (3.0, 0)
    assert replace(state, held_out=track).best[0] is H
    assert state.best[0] is H
