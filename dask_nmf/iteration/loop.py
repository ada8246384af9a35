"""The loop over passes, and the rules that end it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from dask_nmf.iteration.outcome import Ending, Outcome, judged, relative_error
from dask_nmf.solvers.parts.state import State
from dask_nmf.solvers.solver import FINEST, Solver

LARGE = float(np.finfo(np.float64).max)
# Below this share of ‖V‖² the rounding of the expanded form, some 1e-7 and 1e-15, hides what a pass gains.
CANCELS = {np.dtype(np.float32): 1e-4, np.dtype(np.float64): 1e-11}
PATIENCE = 3  # passes without a better error of the entries held out
# Below this share nothing is left to explain: a relative error of 1e-6 and of 3e-8.
EXPLAINED = {np.dtype(np.float32): 1e-12, np.dtype(np.float64): 1e-15}
CLOSER = 0.05  # times tol, where equations are solved more exactly: there passes gain little, but for long
NEARLY = 1e-4  # of the baseline: the tolerance of inner solves may hide what a pass gains of a loss below


@dataclass(frozen=True)
class Stop:
    """The rules that end a fit."""

    max_iter: int
    tol: float
    deadline: float = float("inf")  # of time.monotonic()
    below: float = 0.0  # ‖V − W H‖ that is enough
    finest: int = FINEST  # level of the solver (see `Solver.at_level`) that is gone to before the end
    unit: float = 1.0  # of `below`, in that of the losses


class Step(NamedTuple):
    """A pass that is done. The last one has an outcome."""

    number: int
    state: State
    relative_error: float  # over the entries that count; NaN if it is not known
    seconds: float
    outcome: Outcome | None = None
    message: str | None = None  # the outcome as a sentence
    bytes_read: int = 0  # of V
    validation_error: float = float("nan")  # root mean squared error of what is held out, before the pass

    @property
    def ending(self) -> Ending | None:
        """Why the fit ended, with the sentence; None where this is not the last pass."""
        return None if self.outcome is None else Ending(self.outcome, self.message or "")

    @property
    def final(self) -> bool:
        """Whether no pass is to follow: False where the time was up."""
        return self.outcome is not None and self.outcome.final


def iterate(
    sweep: Callable[[State, bool], Any],
    solver: Solver,
    state: State,
    baseline: float,
    stop: Stop,
    done: int = 0,
) -> Iterator[Step]:
    """Yield a `Step` for each pass until a stop rule holds.

    Parameters
    ----------
    sweep : makes one pass: from the state, and whether to take the residual entry by entry, to its sums.
    baseline : what the loss is compared with: ‖V‖², or for a divergence that of V from its mean.
    done : passes that led to ``state``.
    """
    number = done
    while number < stop.max_iter:
        number += 1
        started = time.monotonic()
        exact = state.level > 0 or state.loss < CANCELS[state.h.dtype] * baseline
        if exact and not state.exact:
            state = replace(state, loss=float("inf"))  # the two ways to take it do not compare
        totals = sweep(state, exact)
        previous, state = state, solver.at_level(state.level).update(state, totals, baseline)
        reason = _convergence(number, previous, state, baseline, stop)
        if reason and _may_be_noise(state, baseline) and state.level < min(solver.finest, stop.finest):
            exact = state.level > 0  # the loss of equations that are not exact does not compare either
            reason, state = None, replace(state, level=state.level + 1, exact=exact, stalled=False, rate=1.0)
        ending = _ending(number, state, reason, baseline, stop)
        seconds = time.monotonic() - started
        if _enough(state, stop):
            state = state.as_measured
        known = np.isfinite(state.loss)  # not where all sweeps of sgd so far are undone
        error = relative_error(state.loss - state.penalty, baseline) if known else float("nan")
        step = Step(number, state, error, seconds, validation_error=float(np.sqrt(state.held_out_mse)))
        yield step if ending is None else step._replace(**ending._asdict())
        if ending is not None:
            return


def _ending(number: int, state: State, reason: Ending | None, baseline: float, stop: Stop) -> Ending | None:
    """Return why the pass is the last one, judged by its relative error; None where it is not the last."""
    ending = _stopped(number, state, reason, baseline, stop)
    error = min(relative_error(state.loss - state.penalty, baseline), LARGE)
    return ending and judged(ending, error)


def _stopped(number: int, state: State, reason: Ending | None, baseline: float, stop: Stop) -> Ending | None:
    """Return the first stop rule that holds, ``reason`` among them, which says that the passes converged."""
    if baseline == 0:
        return Ending(Outcome.ZERO, "V is zero everywhere: so are W and H")
    if state.diverged:
        return Ending(
            Outcome.DIVERGED, "diverged: the loss rose however short the step; give a smaller learning_rate"
        )
    if state.accepted and _enough(state, stop):
        return Ending(Outcome.TARGET, f"stopped: ‖V − W H‖ is below {stop.below:g}")
    if state.passes_since_best >= PATIENCE:
        return Ending(
            Outcome.HELD_OUT,
            f"stopped: the error of the entries held out did not fall in the last {PATIENCE} passes",
        )
    if reason is not None:
        return reason
    if number >= stop.max_iter:
        short = f", not converged to tol = {stop.tol:g}" if stop.tol > 0 else ""
        return Ending(Outcome.MAX_ITER, f"stopped after max_iter = {stop.max_iter} passes{short}")
    if time.monotonic() >= stop.deadline:
        return Ending(
            Outcome.TIME_LIMIT, f"stopped by the time limit after {number} passes; run it again to go on"
        )
    return None


def _convergence(number: int, previous: State, state: State, baseline: float, stop: Stop) -> Ending | None:
    """Return why the passes seem to have converged; None where they do not."""
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
    compares = previous.accepted or state.epoch == 0  # not in sgd, where shorter steps meet a larger loss
    if state.accepted and compares and np.isfinite(previous.loss) and 0 <= fell <= small:
        return Ending(
            Outcome.CONVERGED,
            f"converged: pass {number} changed the loss by less than tol = {stop.tol:g}",
        )
    return None


def _may_be_noise(state: State, baseline: float) -> bool:
    """Return whether what ended the passes may be the rounding and the tolerance of their equations."""
    if _is_explained(state, baseline):
        return False
    return state.stalled or _explains_nearly_all(state, baseline)


def _explains_nearly_all(state: State, baseline: float) -> bool:
    """Return whether W H explains nearly all of V."""
    return state.loss - state.penalty < NEARLY * baseline


def _is_explained(state: State, baseline: float) -> bool:
    """Return whether nothing is left of V that W H does not explain."""
    return state.exact and state.loss <= EXPLAINED[state.h.dtype] * baseline


def _enough(state: State, stop: Stop) -> bool:
    """Return whether ‖V − W H‖ is as small as was asked for."""
    reached = max(state.loss - state.penalty, 0.0)  # the expanded form may be below 0
    return reached < (stop.below * stop.unit) ** 2
