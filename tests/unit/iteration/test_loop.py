"""The loop over passes: its stop rules, and what it says of why it ended."""

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Self

import numpy as np
import pytest
from support.matrices import low_rank

from dask_nmf import nmf
from dask_nmf.iteration.loop import Step, Stop, iterate
from dask_nmf.iteration.outcome import Outcome, relative_error
from dask_nmf.kernels.row_sums import Sums, block_sums
from dask_nmf.solvers.hals import HALS
from dask_nmf.solvers.parts.state import State


class Scripted(HALS):
    """A solver whose losses are known before."""

    def __init__(self, losses: list[float]) -> None:
        object.__setattr__(self, "script", iter(losses))

    def at_level(self, level: int) -> Self:
        return self

    def update(self, state: State[Any], totals: Sums, baseline: float) -> State[Any]:
        loss = next(self.script)  # type: ignore[attr-defined]
        accepted = loss <= state.loss
        stalled = not accepted and np.array_equal(state.h_input, state.h)
        reached = min(loss, state.loss)
        h_input = state.h + accepted
        return replace(state, h_input=h_input, loss=reached, accepted=accepted, stalled=stalled, exact=True)


def steps(losses: list[float], baseline: float = 100, done: int = 0, **stop: Any) -> list[Step]:
    nothing = Sums(np.zeros((1, 1)), np.zeros((1, 1)), np.nan)
    h = np.ones((1, 1))
    asked = Stop(**{"max_iter": len(losses) + done, "tol": 1e-2, **stop})
    solver = Scripted(losses)
    return list(iterate(lambda *_: nothing, solver, solver.begin(h), baseline, asked, done))


def test_losses_are_relative_errors_of_the_best_state() -> None:
    found = steps([25, 36, 16], tol=0)
    assert [step.relative_error for step in found] == pytest.approx([0.5, 0.5, 0.4])
    assert [step.number for step in found] == [1, 2, 3]


@pytest.mark.parametrize(
    ("losses", "converged"),
    [
        ([50, 40, 39.7], True),  # by less than 1 % of the loss
        ([50, 40, 39.5], False),
        ([99.9, 99.85, 99.8494], True),  # little is explained: by less than 1 % of that
        ([99.9, 99.85, 99.84], False),
        ([50, 60], False),  # a step undone is no convergence
        ([50, 60, 49.9], True),
        ([50, 60, 60], False),  # undone without a step: it may be the tolerance of the inner solves
        ([50, 60, 60, 60], False),
        ([50, 60, 60, 60, 60], True),  # nor does a pass lead further that solves more exactly
        ([50, 60, 60, 49, 48.98], True),
        ([0.009, 0.00899], False),  # of nearly nothing: so it may be here
        ([0.009, 0.00899, 0.008989, 0.0089], False),
        ([0.009, 0.00899, 0.008989, 0.008988], False),  # the loss of the first level is no measure
        ([0.009, 0.00899, 0.008989, 0.008988, 0.008987], True),  # by less than .1 % of it
    ],
)
def test_converged_is_a_small_fall_of_the_loss(losses: list[float], converged: bool) -> None:
    found = steps(losses)
    assert len(found) == len(losses)
    assert (found[-1].outcome is Outcome.CONVERGED) == converged


def test_outcomes_say_why() -> None:
    assert [step.outcome for step in steps([50, 40, 30])[:2]] == [None, None]
    last = steps([50, 40, 30])[-1]
    assert last.message == "stopped after max_iter = 3 passes, not converged to tol = 0.01"
    assert last.final
    assert steps([50, 49.9])[-1].message == "converged: pass 2 changed the loss by less than tol = 0.01"
    assert steps([0, 0], baseline=0)[0].message == "V is zero everywhere: so are W and H"


def test_the_time_limit_ends_after_a_pass_that_is_not_final() -> None:
    (only,) = steps([50, 40, 30], deadline=time.monotonic())
    assert "time limit after 1 pass;" in str(only.message)
    assert not only.final


def test_passes_done_before_count() -> None:
    assert [step.number for step in steps([50, 40], done=3)] == [4, 5]


def test_the_residual_is_asked_for_where_the_expanded_loss_cancels() -> None:
    w, h = low_rank(30, 2, 2, dtype=np.float32), low_rank(2, 20, 2, seed=1, dtype=np.float32)
    v = w @ h
    asked: list[bool] = []

    def sweep(state: State[Any], exact: bool) -> Sums:
        asked.append(exact)
        given = state.h_input
        return block_sums(v, HALS().solve_w(v, given, None), given if exact else None)

    start = h + np.float32(0.05)
    baseline = float(np.sum(v.astype(np.float64) ** 2))
    found: Iterator[Step] = iterate(sweep, HALS(), HALS().begin(start), baseline, Stop(40, 1e-4))
    losses = [step.relative_error for step in found]
    assert not asked[0]
    assert asked[-1]
    assert losses[-1] < 1e-3


@pytest.mark.parametrize(("loss", "baseline", "error"), [(4, 16, 0.5), (-1e-9, 1, 0), (0, 0, 0)])
def test_relative_error(loss: float, baseline: float, error: float) -> None:
    assert relative_error(loss, baseline) == error


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("noise", [0.01, 0.03, 0.1, 0.3])
def test_a_fit_that_no_pass_betters_stops(noise: float, dtype: str) -> None:
    random = np.random.default_rng(0)
    v = random.exponential(size=(300, 5)) @ random.exponential(size=(5, 40))
    v += noise * random.random(v.shape)
    assert nmf(v.astype(dtype), 5).n_iter < 20
