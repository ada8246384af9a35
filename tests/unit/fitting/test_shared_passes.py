"""Passes that several starts share: when the time limit ends them, and which start is kept."""

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from dask_nmf.execution.engines.panels import PanelEngine
from dask_nmf.fitting.passes.best import least_loss
from dask_nmf.fitting.passes.shared import RunningModel, make_shared_pass
from dask_nmf.iteration.loop import Passes, Stop
from dask_nmf.iteration.outcome import Outcome
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
