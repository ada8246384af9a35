"""The loop over passes, and the only module that computes."""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import dask
import dask.array as da
import numpy as np
from dask.delayed import Delayed
from distributed import wait

from dask_nmf import progress
from dask_nmf.cluster.client import (
    WORKER_LOSS,
    active_client,
    call_watched,
    compute_watched,
    explain_loss,
    guard_persisted,
    wait_for_workers,
)
from dask_nmf.errors import WorkersLost
from dask_nmf.execution.graphs import reduction
from dask_nmf.execution.tasks import blas
from dask_nmf.process_settings import SharedSetting
from dask_nmf.solvers.hals import FINEST, Solver, State

logger = logging.getLogger(__name__)

UNCONVERGED = "not converged"  # how outcomes begin where the passes ended at no solution
LARGE = float(np.finfo(np.float64).max)
QUIET = {"distributed.admin.large-graph-warning-threshold": "1 GiB"}  # H is part of the graph
ATTEMPTS = 4  # at a pass whose data was lost with its workers
# Below this share of ‖V‖² the rounding of the expanded form, some 1e-7 and 1e-15, hides what a pass gains.
CANCELS = {np.dtype(np.float32): 1e-4, np.dtype(np.float64): 1e-11}
_quiet = SharedSetting(lambda: dask.config.set(QUIET))
ROUNDING = 1e-6  # of a relative error: zero factors have 1, about
PATIENCE = 3  # passes without a better error of the entries held out
# Below this share nothing is left to explain: a relative error of 1e-6 and of 3e-8.
EXPLAINED = {np.dtype(np.float32): 1e-12, np.dtype(np.float64): 1e-15}
CLOSER = 0.05  # times tol, where equations are solved more exactly: there passes gain little, but for long
NEARLY = 1e-4  # of the baseline: of a loss below, inner solves may hide what a pass gains


@dataclass(frozen=True)
class Stop:
    """When to stop."""

    max_iter: int
    tol: float
    deadline: float = float("inf")  # of time.monotonic()
    below: float = 0.0  # ‖V − W H‖ that is enough
    finest: int = FINEST  # level of the solver (see `Solver.at_level`) that is gone to before the end
    unit: float = 1.0  # of it, in that of the losses


class Step(NamedTuple):
    """A pass that is done. The last one has an outcome."""

    number: int
    state: State
    loss: float  # relative error, over the entries that count; NaN if it is not known
    seconds: float
    outcome: str | None
    final: bool  # False where going on would be of use: the time was up
    read: int = 0  # bytes of V
    held: float = float("nan")  # root mean squared error of the entries held out, before the pass


def iterate(
    sweep: Callable[[State, bool], Any],
    solver: Solver,
    state: State,
    baseline: float,
    stop: Stop,
    done: int = 0,
) -> Iterator[Step]:
    """Passes until a stop rule holds: each yields its `Step`.

    Parameters
    ----------
    sweep : one pass: (the state, whether to take the residual entry by entry) to its sums.
    baseline : what the loss is compared with: ‖V‖², or of a divergence that of V from its mean.
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
            reason, state = None, replace(state, level=state.level + 1, exact=exact, settled=False, rate=1.0)
        outcome, final = _outcome(number, state, reason, baseline, stop)
        seconds = time.monotonic() - started
        if _enough(state, stop):
            state = state.measured
        known = np.isfinite(state.loss)  # not where all sweeps of sgd so far are undone
        error = relative_error(state.loss - state.penalty, baseline) if known else float("nan")
        yield Step(number, state, error, seconds, outcome, final, held=float(np.sqrt(state.held)))
        if outcome is not None:
            return


def judged(outcome: str, error: float) -> str:
    """Return an outcome, which is no convergence where W H is no better than the mean of V.

    ``error`` is the relative error, infinite where W H is 0 and V is not and the loss is a divergence.
    """
    if error == np.inf:
        return (
            f"{UNCONVERGED}: W H is 0 at entries where V is not, so the divergence is infinite; "
            "leave the factor that was given out, or give one without zeros there"
        )
    if error > 1 + ROUNDING and outcome.startswith("converged"):
        return (
            f"{UNCONVERGED}: the passes end at relative error {error:.4g}, where the mean of V has 1; "
            "give another seed, or init='random'"
        )
    return outcome


def _outcome(
    number: int, state: State, convergence: str | None, baseline: float, stop: Stop
) -> tuple[str | None, bool]:
    outcome, final = _stopped(number, state, convergence, baseline, stop)
    if outcome is None:
        return None, False
    return judged(outcome, min(relative_error(state.loss - state.penalty, baseline), LARGE)), final


def _stopped(
    number: int, state: State, convergence: str | None, baseline: float, stop: Stop
) -> tuple[str | None, bool]:
    if baseline == 0:
        return "V is zero everywhere: so are W and H", True
    if state.diverged:
        return "diverged: the loss rose however short the step; give a smaller learning_rate", True
    if state.accepted and _enough(state, stop):
        return f"stopped: ‖V − W H‖ is below {stop.below:g}", True
    if state.stale >= PATIENCE:
        return f"stopped: the error of the entries held out did not fall in the last {PATIENCE} passes", True
    if convergence is not None:
        return f"converged: {convergence}", True
    if number >= stop.max_iter:
        short = f", not converged to tol = {stop.tol:g}" if stop.tol > 0 else ""
        return f"stopped after max_iter = {stop.max_iter} passes{short}", True
    if time.monotonic() >= stop.deadline:
        return f"stopped by the time limit after {number} passes; run it again to go on", False
    return None, False


def _convergence(number: int, previous: State, state: State, baseline: float, stop: Stop) -> str | None:
    """Return why the passes seem to have converged; None where they do not."""
    if stop.tol <= 0:
        return None
    if _is_explained(state, baseline):
        return f"the relative error is below {np.sqrt(EXPLAINED[state.h.dtype]):.0e}"
    if state.settled:
        return f"pass {number} did not lower the loss, however exactly its equations were solved"
    fell = previous.loss - state.loss
    tol = stop.tol * (CLOSER if state.level > 0 and _explains_nearly_all(state, baseline) else 1.0)
    small = tol * min(max(state.loss, 0.0), max(baseline - state.loss, 0.0))
    compares = previous.accepted or state.epoch == 0  # not in sgd, where shorter steps meet a larger loss
    if state.accepted and compares and np.isfinite(previous.loss) and 0 <= fell <= small:
        return f"pass {number} changed the loss by less than tol = {stop.tol:g}"
    return None


def _may_be_noise(state: State, baseline: float) -> bool:
    """Return whether what ended the passes may be the rounding and the tolerance of their equations."""
    if _is_explained(state, baseline):
        return False
    return state.settled or _explains_nearly_all(state, baseline)


def _explains_nearly_all(state: State, baseline: float) -> bool:
    """Return whether W H explains nearly all of V."""
    return state.loss - state.penalty < NEARLY * baseline


def _is_explained(state: State, baseline: float) -> bool:
    return state.exact and state.loss <= EXPLAINED[state.h.dtype] * baseline


def _enough(state: State, stop: Stop) -> bool:
    reached = max(state.loss - state.penalty, 0.0)  # the expanded form may be below 0
    return reached < (stop.below * stop.unit) ** 2


def relative_error(loss: float, baseline: float) -> float:
    """‖V − W H‖ / ‖V‖ from their squares, or √(D(V | W H) / D(V | mean)); 0 where V is 0."""
    return float(np.sqrt(max(loss, 0.0) / baseline)) if baseline > 0 else 0.0


def persist(*arrays: da.Array) -> tuple[da.Array, ...]:
    """Arrays computed, their blocks in (distributed) memory."""
    held: tuple[da.Array, ...] = dask.persist(*arrays)
    if active_client() is not None:
        call_watched(lambda: wait(held))
    return tuple(map(guard_persisted, held))


def compute_with_retries(
    graph: Callable[[], list[Delayed]],
    renew: Callable[[], None] = lambda: None,
    homes: Callable[[], dict[int, str]] = dict,
    reads: int = 0,
) -> list[Any]:
    """Build a graph and compute it; again, from the sources, if workers took V with them.

    ``homes``: the workers that panels are best sent to; another that is idle may take them. ``reads``: so
    many panels or blocks of V are read, which `progress` then follows.
    """
    for attempt in range(1, ATTEMPTS + 1):
        wait_for_workers()
        try:
            if attempt > 1:
                renew()
            if reads:
                progress.report_read(reads)
            with blas.one_blas_thread(), _quiet.held():
                nodes = graph()  # which may compute a part of it already
                prefer_workers(nodes, homes())
                return compute_watched(nodes)
        except WORKER_LOSS as error:
            if attempt == ATTEMPTS:
                raise WorkersLost(f"a pass was lost {ATTEMPTS} times: {explain_loss(error)}") from error
            logger.warning("the pass starts again: %s", explain_loss(error))
    raise AssertionError("unreachable")


def prefer_workers(nodes: list[Delayed], homes: dict[int, str]) -> None:
    """Annotate the graphs: tasks of panels, and of their sums, are best sent to these workers.

    `dask.annotate` would hold for all threads of this process, and another may be fitting something else.
    """
    for layer in {id(layer): layer for node in nodes for layer in node.dask.layers.values()}.values():
        chosen = layer.annotations or {}  # by the caller
        numbers = () if "workers" in chosen else ((key, reduction.panel_of(key)) for key in layer)
        places = {key: (homes[number],) for key, number in numbers if number in homes}
        if places:
            # a function that the scheduler can load, though it may not have this package
            workers = defaultdict(tuple, places).__getitem__
            layer.annotations = chosen | {"workers": workers, "allow_other_workers": True}
