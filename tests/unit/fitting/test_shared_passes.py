"""Passes that several starts share: when the time limit ends them, and which start is kept."""

import time
from collections.abc import Sequence
from dataclasses import replace
from threading import Event
from typing import Any

import numpy as np
import pytest

from dask_nmf.execution.engines.panels import PanelEngine
from dask_nmf.fitting.cuts.cut import FitProgress
from dask_nmf.fitting.cuts.panel_cut import cut_in_panels
from dask_nmf.fitting.fit import first_read
from dask_nmf.fitting.passes import shared
from dask_nmf.fitting.passes.best import best_of, least_loss
from dask_nmf.fitting.passes.shared import RunningModel, iter_steps, make_shared_pass
from dask_nmf.fitting.request import FitRequest
from dask_nmf.iteration.loop import Passes, Stop
from dask_nmf.iteration.outcome import Ending, Outcome
from dask_nmf.options.settings import Settings
from dask_nmf.planning.model_groups import ModelGroups
from dask_nmf.planning.row_panels import plan_panels
from dask_nmf.solvers.hals import HALS
from dask_nmf.solvers.parts.state import State
from dask_nmf.sources.registry import open_matrix

V = np.random.default_rng(0).random((8, 4))


class Slow(HALS):
    """A solver whose updates take a second of a clock."""

    def __init__(self, clock: list[float]) -> None:
        object.__setattr__(self, "clock", clock)

    def update(self, state: State[Any], totals: Any, baseline: float) -> State[Any]:
        self.clock[0] += 1  # type: ignore[attr-defined]
        return replace(state, loss=baseline / 2)


@pytest.mark.parametrize("deadline", [0.5, 1.5, 2.5, 3.5])
def test_a_time_limit_ends_all_models_with_the_same_pass(
    deadline: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, matrix = [0.0], open_matrix(V)
    engine, plan = PanelEngine(matrix, (0, 8)), plan_panels(matrix.layout, 2, None, 1)
    solver = Slow(clock)
    models = [RunningModel(Passes(solver, solver.begin(V[:2]), 1.0, Stop(9, 0, deadline))) for _ in range(3)]
    monkeypatch.setattr(engine, "sweep", lambda models: [None for _ in models])
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    outcomes = [step.outcome for step in make_shared_pass(engine, plan, models)]
    assert outcomes == [Outcome.TIME_LIMIT if deadline < 3 else None] * 3


GROUPS = ModelGroups(((0, 2), (1,)), 0, 2)


class Watched(HALS):
    """A solver that tells when it updates a model."""

    def __init__(self, begun: Event) -> None:
        object.__setattr__(self, "begun", begun)

    def update(self, state: State[Any], totals: Any, baseline: float) -> State[Any]:
        self.begun.set()  # type: ignore[attr-defined]
        return state


def running(solver: HALS) -> list[RunningModel]:
    starts = np.random.default_rng(1).random((3, 2, V.shape[1]))
    return [RunningModel(Passes(solver, solver.begin(h), float((V * V).sum()), Stop(9, 0))) for h in starts]


@pytest.mark.parametrize("overlap", [True, False])
def test_models_are_updated_during_the_read_of_the_next_group_if_there_is_room(
    overlap: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, reads = Event(), list[bool]()
    engine = PanelEngine(open_matrix(V), (0, 8))

    def sweep(models: Sequence[Any]) -> list[None]:
        if reads and overlap:
            begun.wait(60)
        reads.append(begun.is_set())
        return [None] * len(models)

    monkeypatch.setattr(shared, "IN_ONE_GO", 0)
    monkeypatch.setattr(engine, "sweep", sweep)
    steps = iter_steps(engine, running(Watched(begun)), GROUPS, overlap)
    first = next(steps)[0]
    assert len(reads) == (2 if overlap else 1)  # a step comes after the read beside which it is made
    assert [first, *(number for number, _ in steps)] == [0, 2, 1]
    assert reads == [False, True]


def test_no_further_model_is_updated_after_an_interrupt(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, updates = Event(), list[State[Any]]()
    engine = PanelEngine(open_matrix(V), (0, 8))

    class Slow(Watched):
        def update(self, state: State[Any], totals: Any, baseline: float) -> State[Any]:
            updates.append(super().update(state, totals, baseline))
            time.sleep(0.2)
            return state

    def sweep(models: Sequence[Any]) -> list[None]:
        if len(models) == 1:  # the second group, during whose read the first one is updated
            begun.wait(60)
            raise KeyboardInterrupt
        return [None] * len(models)

    monkeypatch.setattr(shared, "IN_ONE_GO", 0)
    monkeypatch.setattr(shared, "UPDATED_AT_ONCE", 1)
    monkeypatch.setattr(engine, "sweep", sweep)
    with pytest.raises(KeyboardInterrupt):
        list(iter_steps(engine, running(Slow(begun)), GROUPS))
    assert len(updates) == 1


@pytest.mark.parametrize("overlap", [True, False])
def test_updates_in_threads_give_the_same_as_in_turn(overlap: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = PanelEngine(open_matrix(V), (0, 4, 8))
    in_turn = dict(iter_steps(engine, running(HALS()), GROUPS))
    monkeypatch.setattr(shared, "IN_ONE_GO", 0)
    threaded = dict(iter_steps(engine, running(HALS()), GROUPS, overlap))
    for number, step in in_turn.items():
        np.testing.assert_array_equal(threaded[number].state.h_input, step.state.h_input)
        assert threaded[number].relative_error == step.relative_error


@pytest.mark.parametrize(
    ("losses", "kept"),
    [
        ([2.0, 1.0, 1.0], 1),
        ([np.nan, 3.0, 2.0], 2),
        ([np.nan, np.inf], 1),
        ([np.nan, np.nan], 0),
        ([0.0, -1e-9], 0),  # both explain all of V, up to rounding
        ([1e-12, -1e-9, 0.0], 1),
    ],
)
def test_the_start_with_the_least_loss_is_kept(losses: Sequence[float], kept: int) -> None:
    assert least_loss(losses) == kept


def test_a_tie_within_a_margin_goes_to_the_first_start() -> None:
    assert least_loss([2.0, 1.0 + 1e-9, 1.0], margin=1e-8) == 1
    assert least_loss([np.nan, np.nan], margin=1.0) == 0


@pytest.mark.parametrize("solver", ["hals", "mu"])
def test_an_exact_loss_and_an_expanded_one_are_compared_by_the_same_formula(solver: str) -> None:
    """The second start is better by 1e-9 of V, which the expanded loss of the first one does not show."""
    rng = np.random.default_rng(0)
    w, h = (rng.uniform(1, 2, shape).astype(np.float32) for shape in ((300, 3), (3, 40)))
    settings = Settings(3, solver=solver, init="random", n_init=2)
    cut = cut_in_panels(open_matrix(w @ h), FitRequest(settings), None)
    measures = first_read(cut).measures
    own = cut.solver(measures)
    ended = Ending(Outcome.CONVERGED, "converged")
    starts = []
    for noise, loss, exact in ((1e-4, 0.0, False), (1e-6, 1e-10 * measures.baseline, True)):
        slots = cut.slots(None)
        near = np.asarray(h * (1 + noise * rng.standard_normal(h.shape)), np.float32)
        if slots is not None:
            slots.new_factor(0).write(0, w * np.float32(1 + noise))
        state = replace(own.begin(near, 0 if slots else -1), loss=loss, exact=exact)
        starts.append(FitProgress(own, measures, slots, state, ending=ended))
    kept, best = best_of(cut, starts)
    assert kept == 1
    assert best.objectives[1] < best.objectives[0]


def test_losses_of_one_formula_cost_no_further_read(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(2, init="random", n_init=2)
    cut = cut_in_panels(open_matrix(V), FitRequest(settings), None)
    measures, own = first_read(cut).measures, HALS()
    monkeypatch.setattr(PanelEngine, "sweep", None)
    ended = Ending(Outcome.CONVERGED, "converged")
    for losses, exact in (((1.0, 1.0), (False, False)), ((1.0, 0.5), (True, False))):
        states = [
            replace(own.begin(V[:2]), loss=loss * measures.baseline, exact=one)
            for loss, one in zip(losses, exact, strict=True)
        ]
        starts = [FitProgress(own, measures, None, state, ending=ended) for state in states]
        assert best_of(cut, starts)[0] == int(np.argmin(losses))
