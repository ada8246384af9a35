"""The loop over passes, and the rules that end it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from dask_nmf.errors import DataError
from dask_nmf.iteration.outcome import Ending, Outcome, judged, relative_error
from dask_nmf.solvers.parts.state import State
from dask_nmf.solvers.solver import FINEST, Solver
from dask_nmf.wording import counted

LARGE = float(np.finfo(np.float64).max)
# Below this share of ‖V‖², the rounding of the expanded form (about 1e-7 and 1e-15) hides what a pass gains.
CANCELS = {np.dtype(np.float32): 1e-4, np.dtype(np.float64): 1e-11}
PATIENCE = 3  # passes without a lower held-out error after which a fit ends
# Below this share of ‖V‖² nothing is left to explain: it is a relative error of 1e-6 and of 3e-8.
EXPLAINED = {np.dtype(np.float32): 1e-12, np.dtype(np.float64): 1e-15}
CLOSER = 0.05  # times tol, at the higher levels: their passes gain little, but for long
NEARLY = 1e-4  # share of the baseline: the tolerance of inner solves may hide the gain of a pass below it


@dataclass(frozen=True)
class Stop:
    """The rules that end a fit."""

    max_iter: int
    tol: float
    deadline: float = float("inf")  # seconds, on the clock of time.monotonic()
    below: float = 0.0  # the target of ‖V − W H‖, in the units of the user
    finest: int = FINEST  # the highest level of the solver, see `Solver.at_level`
    unit: float = 1.0  # the unit of `below`, in the units of the fit


class Step(NamedTuple):
    """A finished pass. The last one has an outcome."""

    number: int
    state: State[Any]
    relative_error: float  # over the entries that count; NaN if it is not known
    seconds: float
    outcome: Outcome | None = None
    message: str | None = None  # the outcome as a sentence
    bytes_read: int = 0  # bytes of V
    validation_error: float = float("nan")  # root mean squared held-out error, before the pass

    @property
    def ending(self) -> Ending | None:
        """The reason why the fit ended, and its message; None if this is not the last pass."""
        return None if self.outcome is None else Ending(self.outcome, self.message or "")

    @property
    def final(self) -> bool:
        """True if no pass follows; False after the time limit, since the same call continues the fit."""
        return self.outcome is not None and self.outcome.final


class Passes:
    """The passes of one model, one at a time: `begin` a pass, make it, and `end` it with its totals.

    Parameters
    ----------
    baseline : the loss of a relative error of 1: ‖V‖², or the divergence of V from its mean.
    done : the number of passes that led to ``state``.
    """

    def __init__(self, solver: Solver, state: State[Any], baseline: float, stop: Stop, done: int = 0) -> None:
        self.solver = solver
        self.state = state
        self.baseline = baseline
        self.stop = stop
        self.number = done
        self._started = 0.0

    def begin(self) -> tuple[State[Any], bool]:
        """Return the state that the next pass begins with, and whether it takes the loss entry by entry."""
        self.number += 1
        self._started = time.monotonic()
        state = self.state
        exact = state.level > 0 or state.loss < CANCELS[state.h.dtype] * self.baseline
        if exact and not state.exact:
            state = replace(state, loss=float("inf"))  # the exact and the expanded loss do not compare
        self.state = state
        return state, exact

    def end(self, totals: Any) -> Step:
        """Return the step of the pass that gave these totals; it has an outcome if it is the last one.

        It has none if only the time is over: see `end_in_time`.

        Raises
        ------
        DataError
            If neither the loss nor H is finite.
        """
        stop, baseline, previous = self.stop, self.baseline, self.state
        state = self.solver.at_level(previous.level).update(previous, totals, baseline)
        if np.isnan(state.loss) and not np.isfinite(state.h).all():
            raise DataError(
                "entries of V differ so much in size that the loss is no number in float64; "
                "correct the entries that are far larger than all others, or scale rows or columns"
            )
        reason = _convergence(self.number, previous, state, baseline, stop)
        if reason and _may_be_noise(state, baseline) and state.level < min(self.solver.finest, stop.finest):
            exact = state.level > 0  # nor does the loss of equations that are solved less exactly
            reason, state = None, replace(state, level=state.level + 1, exact=exact, stalled=False)
        ending = _ending(self.number, state, reason, baseline, stop)
        seconds = time.monotonic() - self._started
        if _enough(state, stop):
            state = state.as_measured
        self.state = state
        known = np.isfinite(state.loss)  # it is infinite if all sweeps of sgd so far are rejected
        error = relative_error(state.loss - state.penalty, baseline) if known else float("nan")
        step = Step(self.number, state, error, seconds, validation_error=float(np.sqrt(state.held_out.mse)))
        return step if ending is None else step._replace(**ending._asdict())


def iterate(
    sweep: Callable[[State[Any], bool], Any],
    solver: Solver,
    state: State[Any],
    baseline: float,
    stop: Stop,
    done: int = 0,
) -> Iterator[Step]:
    """Yield a `Step` for each pass until a stop rule holds.

    Parameters
    ----------
    sweep : makes one pass and returns its sums, from the state and whether to take the loss entry by entry.
    baseline, done : those of `Passes`.
    """
    passes = Passes(solver, state, baseline, stop, done)
    while passes.number < stop.max_iter:
        (step,) = end_in_time([passes.end(sweep(*passes.begin()))], [stop.deadline])
        yield step
        if step.outcome is not None:
            return


def end_in_time(steps: Sequence[Step], deadlines: Sequence[float]) -> list[Step]:
    """Return the steps of models that share a pass; the time limit ends those that would go on after theirs.

    The clock is read once, so that a limit that is reached meanwhile does not leave a pass to some of them.
    """
    now = time.monotonic()
    return [
        step if step.outcome is not None or now < deadline else _stopped_by_time(step)
        for step, deadline in zip(steps, deadlines, strict=True)
    ]


def _stopped_by_time(step: Step) -> Step:
    message = f"stopped by the time limit after {counted(step.number, 'pass')}; run it again to go on"
    return step._replace(outcome=Outcome.TIME_LIMIT, message=message)


def _ending(
    number: int, state: State[Any], reason: Ending | None, baseline: float, stop: Stop
) -> Ending | None:
    """Return why the fit ends with this pass, judged by its relative error; None if it goes on."""
    ending = _stopped(number, state, reason, baseline, stop)
    error = min(relative_error(state.loss - state.penalty, baseline), LARGE)
    return ending and judged(ending, error)


def _stopped(
    number: int, state: State[Any], reason: Ending | None, baseline: float, stop: Stop
) -> Ending | None:
    """Return the ending by the first stop rule that holds; ``reason`` is that of convergence, if any."""
    if baseline == 0:
        return Ending(Outcome.ZERO, "V is zero everywhere: so are W and H")
    if state.diverged:
        return Ending(
            Outcome.DIVERGED, "diverged: the loss rose however short the step; give a smaller learning_rate"
        )
    if state.accepted and _enough(state, stop):
        return Ending(Outcome.TARGET, f"stopped: ‖V − W H‖ is below {stop.below:g}")
    if state.held_out.passes_since_best >= PATIENCE:
        return Ending(
            Outcome.HELD_OUT,
            f"stopped: the error of the entries held out did not fall in the last {PATIENCE} passes",
        )
    if reason is not None:
        return reason
    if number >= stop.max_iter:
        short = f", not converged to tol = {stop.tol:g}" if stop.tol > 0 else ""
        return Ending(Outcome.MAX_ITER, f"stopped after max_iter = {counted(stop.max_iter, 'pass')}{short}")
    return None


def _convergence(
    number: int, previous: State[Any], state: State[Any], baseline: float, stop: Stop
) -> Ending | None:
    """Return why the passes seem to have converged; None if they do not."""
    if stop.tol <= 0:
        return None
    if _is_explained(state, baseline):
        share = np.sqrt(EXPLAINED[state.h.dtype])
        return Ending(Outcome.EXPLAINED, f"converged: the relative error is below {share:.0e}")
    if state.stalled:
        return Ending(
            Outcome.CONVERGED,
            f"converged: pass {number} did not lower the loss, however exactly its equations were solved",
        )
    fell = previous.loss - state.loss
    tol = stop.tol * (CLOSER if state.level > 0 and _explains_nearly_all(state, baseline) else 1.0)
    small = tol * min(max(state.loss, 0.0), max(baseline - state.loss, 0.0))
    if state.accepted and state.comparable and np.isfinite(previous.loss) and 0 <= fell <= small:
        return Ending(
            Outcome.CONVERGED,
            f"converged: pass {number} changed the loss by less than tol = {stop.tol:g}",
        )
    return None


def _may_be_noise(state: State[Any], baseline: float) -> bool:
    """Return whether rounding or the tolerance of the inner solves may have ended the passes."""
    if _is_explained(state, baseline):
        return False
    return state.stalled or _explains_nearly_all(state, baseline)


def _explains_nearly_all(state: State[Any], baseline: float) -> bool:
    """Return whether W H explains nearly all of V."""
    return state.loss - state.penalty < NEARLY * baseline


def _is_explained(state: State[Any], baseline: float) -> bool:
    """Return whether W H explains all of V, up to rounding."""
    return state.exact and state.loss <= EXPLAINED[state.h.dtype] * baseline


def _enough(state: State[Any], stop: Stop) -> bool:
    """Return whether ‖V − W H‖ is below its target."""
    reached = max(state.loss - state.penalty, 0.0)  # the expanded form may be below 0
    return reached < (stop.below * stop.unit) ** 2
