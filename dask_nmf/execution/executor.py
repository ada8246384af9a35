"""The loop over passes, and the only module that computes."""

from __future__ import annotations

import logging
import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from functools import reduce
from operator import add
from typing import Any, NamedTuple
from uuid import uuid4

import dask
import dask.array as da
import numpy as np
from dask.delayed import Delayed, delayed
from distributed import Client, Future, wait

from dask_nmf import progress
from dask_nmf.cluster.client import (
    WORKER_LOSS,
    active_client,
    assign_contiguous,
    call_watched,
    compute_watched,
    explain_loss,
    guard_persisted,
    run_on_workers,
    shares_memory,
    wait_for_workers,
)
from dask_nmf.errors import NoWorkers, WorkersLost
from dask_nmf.execution import block_cache, graphs
from dask_nmf.execution.block_cache import Keeping
from dask_nmf.execution.blocks import strata
from dask_nmf.execution.blocks.strata import Grid, Source, Sweep
from dask_nmf.execution.graphs import Given, Weighing
from dask_nmf.execution.prefetch import one_thread_more
from dask_nmf.kernels.blocks.masking import Rule
from dask_nmf.kernels.least_squares import Sums
from dask_nmf.kernels.summary.row_sample import Draw, Summary
from dask_nmf.process_settings import SharedSetting
from dask_nmf.solvers.hals import FINEST, Solver, State
from dask_nmf.solvers.sgd import Swept
from dask_nmf.sources.matrix import Matrix, Wrapper
from dask_nmf.types import Array, Block

logger = logging.getLogger(__name__)

UNCONVERGED = "not converged"  # how outcomes begin where the passes ended at no solution
LARGE = float(np.finfo(np.float64).max)
QUIET = {"distributed.admin.large-graph-warning-threshold": "1 GiB"}  # H is part of the graph
ATTEMPTS = 4  # at a pass whose data was lost with its workers
# Below this share of ‖V‖² the rounding of the expanded form, some 1e-7 and 1e-15, hides what a pass gains.
CANCELS = {np.dtype(np.float32): 1e-4, np.dtype(np.float64): 1e-11}
_quiet = SharedSetting(lambda: dask.config.set(QUIET))
EVERYTHING = Rule()
BESIDE = "-weights"
ROUNDING = 1e-6  # of a relative error: zero factors have 1, about
PATIENCE = 3  # passes without a better error of the entries held out
# Below this share nothing is left to explain: a relative error of 1e-6 and of 3e-8.
EXPLAINED = {np.dtype(np.float32): 1e-12, np.dtype(np.float64): 1e-15}
CLOSER = 0.05  # times tol, where equations are solved more exactly: there passes gain little, but for long
NEARLY = 1e-4  # of the baseline: of a loss below, inner solves may hide what a pass gains


class Panels:
    """V cut by a plan, with the weights of its entries, and the rule by which they count."""

    def __init__(
        self,
        matrix: Matrix,
        edges: tuple[int, ...],
        weights: Matrix | None = None,
        rule: Rule = EVERYTHING,
        room: int = 0,
        ahead: bool = False,
    ) -> None:
        self.matrix = matrix
        self.edges = edges
        self.weights = weights
        self.rule = rule
        self.room = room  # bytes of V that a process may keep from pass to pass
        self.ahead = ahead  # whether a process may read one panel while it works on others
        self.scale = 1.0  # a power of two, by which V counts: known from the first read on
        self.name = uuid4().hex
        self.names = (self.name, f"{self.name}{BESIDE}") if room else ()  # of what is kept
        self.lease = block_cache.Lease(*self.names)  # of this process
        self.leases: dict[str, Future] = {}  # of workers, by their addresses
        self.renew()

    @property
    def bytes(self) -> int:
        """Of V and its weights in memory: what a pass reads."""
        parts = (self.matrix,) if self.weights is None else (self.matrix, self.weights)
        return sum(part.bytes for part in parts)

    def renew(self) -> None:
        """Take V from its source again: what was in the memory of workers is lost."""
        self.blocks = self.matrix.panels(self.edges, self.through(self.matrix))
        if not self.rule.uses_whole_blocks:
            beside = self.weights and self.weights.panels(self.edges, self.through(self.weights))
            self.blocks = graphs.observe(self.blocks, beside, self.edges, self.rule)

    def through(self, matrix: Matrix) -> Wrapper | None:
        """How tasks read: so that what they read stays, as far as there is room."""
        if not self.room or not matrix.worth_caching:
            return None
        name = self.names[matrix is not self.matrix]
        return lambda reader: Keeping(reader, name, self.room)

    def homes(self) -> dict[int, str]:
        """The workers that read panels best, by the number of the panel: they keep it, or its neighbours."""
        client = active_client()
        if client is None:
            return {}
        threads = client.nthreads()
        if self.room:
            self.let_keep(client, threads)
        if not self.matrix.workers_can_read:
            return {}
        homes = dict(enumerate(assign_contiguous(len(self.edges) - 1, threads)))
        if self.through(self.matrix) is not None:
            numbers = {first: number for number, first in enumerate(self.edges[:-1])}
            found = run_on_workers(block_cache.held, self.name, on_error="ignore")
            homes |= {numbers[place[0]]: address for address, places in found.items() for place in places}
        return homes

    def let_keep(self, client: Client, workers: Iterable[str]) -> None:
        """Have each worker keep what it reads, until this is released or the client is gone."""
        there = {address: self.leases.get(address) for address in workers}
        self.leases = {
            address: client.submit(
                block_cache.Lease,
                *self.names,
                key=f"dask-nmf-lease-{uuid4().hex}",
                workers=[address],
                priority=1,  # ahead of the first panels
            )
            if lease is None or lease.status not in ("pending", "finished")
            else lease
            for address, lease in there.items()
        }

    def release(self) -> None:
        """What is kept may go."""
        client = active_client()
        self.leases.clear()
        for name in self.names:
            block_cache.drop(name)
            if client is not None and client.status == "running":
                with suppress(*WORKER_LOSS, NoWorkers):  # a cluster that is gone keeps nothing
                    run_on_workers(block_cache.drop, name, on_error="ignore")


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


def summarise(panels: Panels, draw: Draw) -> Summary:
    """The first read of V."""
    nothing = np.empty((0, panels.matrix.layout.columns))
    summary: Summary = compute(panels, nothing, lambda given: graphs.summarise(panels.blocks, given, draw))
    return summary


def sweep(panels: Panels, h: Array, weighing: Weighing, left: Array | da.Array | None = None) -> Sums:
    """One pass over V with the given H; and W, (rows, k), if it is at hand, or in blocks like the panels."""
    held = left if isinstance(left, da.Array) else None
    here = None if isinstance(left, da.Array) else left
    totals: Sums = compute(panels, h, lambda given: graphs.sweep(panels.blocks, given, weighing, held), here)
    return totals


def sweep_blocks(panels: Panels, grid: Grid, right: Array, what: Sweep) -> Swept:
    """One sweep of `SGD` over V, from H (k + 1, n)."""
    matrix, rule = panels.matrix, panels.rule

    def build(given: Delayed) -> Delayed:
        if not matrix.workers_can_read:
            return strata.sweep(panels.blocks, None, grid, given, what)
        through = panels.through(matrix)
        reader = matrix.reader if through is None else through(matrix.reader)
        source = delayed(Source(reader, rule), traverse=False)
        return strata.sweep(None, source, grid, given, what)

    swept: Swept = compute(panels, right, build)
    return swept


@contextmanager
def in_threads(rows: list[Block]) -> Iterator[Callable[[Array, Weighing], Sums]]:
    """Passes over rows in this process's memory, in its threads; each begins at the W of the one before."""
    known: list[Array | None] = [None] * len(rows)

    def look(number: int, h: Array, weighing: Weighing) -> Sums:
        known[number], sums = graphs.look(rows[number], h, weighing, known[number])
        return sums

    with graphs.one_blas_thread(), ThreadPoolExecutor(min(len(rows), os.cpu_count() or 1)) as pool:
        each = pool.map if len(rows) > 1 else map  # to hand a small block to a thread takes as long as a pass

        def sweep(h: Array, weighing: Weighing) -> Sums:
            return reduce(add, each(lambda number: look(number, h, weighing), range(len(rows))))

        yield sweep


def weigh_all(
    panels: Panels, h: Array, weighing: Weighing, left: Array | None = None
) -> tuple[da.Array, Sums, da.Array | None]:
    """One pass that keeps W: as a Dask array whose blocks are in (distributed) memory, with the sums.

    The means of the rows come the same way, if they are taken.
    """
    pairs: list[Any] = []

    def build(given: Delayed) -> Delayed:
        nodes = graphs.weigh_all(panels.blocks, given, weighing)
        _prefer(nodes, panels.homes())
        pairs[:] = dask.persist(*nodes)
        return graphs.add_up([graphs.item(pair, 1) for pair in pairs])

    totals: Sums = compute(panels, h, build, left)
    heights = graphs.heights(panels.edges)

    def whole(index: int, *width: int, dtype: Any) -> da.Array:
        parts = zip(pairs, heights, strict=True)
        blocks = [da.from_delayed(graphs.item(pair, index), (rows, *width), dtype) for pair, rows in parts]
        return guard_persisted(da.concatenate(blocks))

    means = whole(2, dtype=h.dtype) if weighing.averages else None
    return whole(0, h.shape[0], dtype=h.dtype), totals, means


def compute(panels: Panels, h: Array, build: Callable[[Delayed], Delayed], left: Array | None = None) -> Any:
    """Build the graph of a pass and compute it: see `compute_all`."""
    return compute_all(panels, h, lambda given: [build(given)], left)[0]


def compute_all(
    panels: Panels, h: Array, build: Callable[[Delayed], list[Delayed]], left: Array | None = None
) -> list[Any]:
    """Build the graph of a pass and compute it: see `persistently`.

    H is a node of the graph, so the scheduler can make it anew when the worker that had it dies.
    """

    on_cluster = active_client() is not None

    def graph() -> list[Delayed]:
        given = Given(h, panels.edges, left, panels.ahead, on_cluster, panels.scale)
        return build(delayed(given, traverse=False))

    here = panels.ahead and not on_cluster and shares_memory()
    with one_thread_more() if here else nullcontext():
        return persistently(graph, panels.renew, panels.homes, len(panels.edges) - 1)


def hold(*arrays: da.Array) -> tuple[da.Array, ...]:
    """Arrays computed, their blocks in (distributed) memory."""
    held: tuple[da.Array, ...] = dask.persist(*arrays)
    if active_client() is not None:
        call_watched(lambda: wait(held))
    return tuple(map(guard_persisted, held))


def persistently(
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
                progress.read(reads)
            with graphs.one_blas_thread(), _quiet.held():
                nodes = graph()  # which may compute a part of it already
                _prefer(nodes, homes())
                return compute_watched(nodes)
        except WORKER_LOSS as error:
            if attempt == ATTEMPTS:
                raise WorkersLost(f"a pass was lost {ATTEMPTS} times: {explain_loss(error)}") from error
            logger.warning("the pass starts again: %s", explain_loss(error))
    raise AssertionError("unreachable")


def _prefer(nodes: list[Delayed], homes: dict[int, str]) -> None:
    """Annotate the graphs: tasks of panels, and of their sums, are best sent to these workers.

    `dask.annotate` would hold for all threads of this process, and another may be fitting something else.
    """
    for layer in {id(layer): layer for node in nodes for layer in node.dask.layers.values()}.values():
        chosen = layer.annotations or {}  # by the caller
        numbers = () if "workers" in chosen else ((key, graphs.panel_of(key)) for key in layer)
        places = {key: (homes[number],) for key, number in numbers if number in homes}
        if places:
            # a function that the scheduler can load, though it may not have this package
            workers = defaultdict(tuple, places).__getitem__
            layer.annotations = chosen | {"workers": workers, "allow_other_workers": True}
