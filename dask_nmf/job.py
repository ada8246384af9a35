"""One fit, from its first read to its answer, in a run or in memory."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import dask.array as da
import numpy as np

from dask_nmf import cluster, components, fit, plan, start, svd
from dask_nmf.beta import Newton
from dask_nmf.fit import Panels, Step, Stop
from dask_nmf.kernels import Array, Sums
from dask_nmf.matrix import Matrix
from dask_nmf.observed import Rule
from dask_nmf.passes import HeldWeights, Weighing, Weights, as_it_is
from dask_nmf.resume import identity
from dask_nmf.settings import Settings
from dask_nmf.sgd import SGD, Plain, Swept
from dask_nmf.solvers import HALS, SLOTS, Solver, State, loss
from dask_nmf.start import Factors, Measures
from dask_nmf.store import Run
from dask_nmf.strata import Grid, Sweep

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """What to factorise and how; everything but V that `nmf` takes."""

    settings: Settings
    W: Array | None = None
    H: Array | None = None
    fixed_W: Array | None = None
    fixed_H: Array | None = None
    weights: Matrix | None = None  # of V's entries
    dtype: str | None = None
    store: str | None = None
    overwrite: bool = False
    time_limit: float | None = None  # seconds
    callback: Callable[[Step], None] | None = None
    began: float = field(default_factory=time.monotonic)

    @property
    def fixed(self) -> bool:
        """Whether one factor is as given, and stays so."""
        return self.fixed_W is not None or self.fixed_H is not None

    @property
    def carries(self) -> bool:
        """Whether a W (or H, in panels of columns) is kept outside of the graphs between passes."""
        return not self.fixed and (self.settings.solver != "hals" or self.settings.start == "custom")

    @property
    def given(self) -> dict[str, Array | Matrix | None]:
        """What a fit is given beside V and its settings."""
        factors = {"W": self.W, "H": self.H, "fixed_W": self.fixed_W, "fixed_H": self.fixed_H}
        return {**factors, "weights": self.weights}

    def rule(self, matrix: Matrix) -> Rule:
        """By which the entries of V count."""
        asked = self.settings
        weighted = self.weights is not None
        return Rule(
            asked.missing, asked.validation_fraction, asked.seed, matrix.transposed, weighted, asked.beta
        )

    @property
    def stop(self) -> Stop:
        """The stop rules, the time limit counted from when the job was made."""
        deadline = float("inf") if self.time_limit is None else self.began + self.time_limit
        return Stop(self.settings.max_iter, self.settings.tol, deadline, self.settings.stop_below)


class Result(NamedTuple):
    """A factorisation V ≈ W H."""

    W: da.Array  # (m, k)
    H: da.Array  # (k, n)
    relative_error: float  # ‖V − W H‖ / ‖V‖, of these W and H, over the entries that count; see `Settings`
    reconstruction_err: float  # ‖V − W H‖, Frobenius, or √(2 D(V | W H))
    loss_history: Array  # relative error after each pass
    n_iter: int  # passes
    outcome: str
    validation_error: float = float("nan")  # the same of the entries held out, root mean


def fit_and_answer(matrix: Matrix, job: Job, where: Run | str | None, keep: bool = False) -> Result:
    """Fit and answer. ``where``: an open run, the path of one to begin, or nowhere.

    ``keep``: the answer stays in (distributed) memory, as it does where there is no run.
    """
    old = where if isinstance(where, Run) and where.passes is not None else None
    panels, grid, sample_rows = _cut(matrix, job, old)
    given = start.orient(job.W, job.H, matrix.transposed)
    run, progress = (
        (old, _resume(old, panels, job))
        if old is not None
        else _start(panels, job, given, sample_rows, where)
    )
    if job.fixed:
        return _answer_fixed(panels, job, run, progress, keep or run is None)
    progress = _iterate(panels, grid, job, run, progress)
    return _answer(panels, job, run, progress, keep or run is None)


def _cut(matrix: Matrix, job: Job, run: Run | None) -> tuple[Panels, Grid, int]:
    """V in panels that fit the workers (those of the run, if any); the grid of blocks; rows to sample."""
    settings, edges = job.settings, None if run is None else run.edges
    by_blocks = settings.solver == "sgd"
    width = svd.width(settings.rank) if settings.by_svd else settings.carried
    grams = settings.solver == "hals" or settings.beta == 2
    panels, planned = cluster.cut(matrix, width, job.weights, job.rule(matrix), edges, by_blocks, grams)
    logger.info(
        "V is %d x %d %s, in %d panels; a worker may take up to %d MiB",
        *matrix.shape,
        matrix.dtype,
        len(planned.edges) - 1,
        planned.worker_bytes // plan.MIB,
        extra={"nmf": {"event": "plan", "panels": len(planned.edges) - 1, "bytes": planned.pass_bytes}},
    )
    return panels, Grid(planned.edges, planned.cuts, planned.tiled), planned.sample_rows


@dataclass(frozen=True)
class Progress:
    """A fit between two passes."""

    solver: Solver
    measures: Measures
    slots: tuple[Weights, ...] | None  # where a carried W may be
    state: State
    number: int = 0
    history: tuple[float, ...] = ()
    outcome: str | None = None
    final: bool = False


def _start(
    panels: Panels, job: Job, given: Factors, sample_rows: int, where: Run | str | None
) -> tuple[Run | None, Progress]:
    """The first read, and pass 0. A run is laid out only when V is known to be good."""
    matrix, settings = panels.matrix, job.settings
    measures, sampled = start.first_read(panels, settings, 0 if job.fixed else sample_rows)
    run = Run.create(where, *identity(matrix, settings, job.given)) if isinstance(where, str) else where
    if run is not None:
        run.begin(panels.edges, settings, matrix.dtype, job.carries)
    slots = _slots(panels, job, run)
    if job.fixed:
        nothing = np.zeros((settings.rank, matrix.layout.columns), matrix.dtype)
        state = State(nothing, nothing)
    else:
        state = start.begin(panels, settings, measures, given, sampled, slots[0] if slots else None)
    if run is not None:
        run.commit_start(state, measures._asdict())
    return run, Progress(start.make_solver(settings, measures, matrix), measures, slots, state)


def _resume(run: Run, panels: Panels, job: Job) -> Progress:
    record = run.record
    if record["answered"]:
        run.reopen()
    measures = Measures(**record["measures"])
    return Progress(
        start.make_solver(job.settings, measures, panels.matrix),
        measures,
        _slots(panels, job, run),
        run.state(),
        record["pass"],
        tuple(record["history"]["loss"]),
        record["outcome"],
        record["final"],
    )


def _slots(panels: Panels, job: Job, run: Run | None) -> tuple[Weights, ...] | None:
    if not job.carries:
        return None
    if run is not None:
        return tuple(run.weights(slot) for slot in range(SLOTS))
    rows, width, dtype = panels.edges[-1], job.settings.carried, panels.matrix.dtype
    return tuple(HeldWeights(rows, width, dtype) for _ in range(SLOTS))


def _iterate(panels: Panels, grid: Grid, job: Job, run: Run | None, progress: Progress) -> Progress:
    """The passes that are missing, each committed."""
    if progress.final:
        return progress
    solver, slots = progress.solver, progress.slots

    def sweep(state: State, exact: bool) -> Sums | Swept:
        if isinstance(solver, SGD):
            assert slots is not None
            places = slots[state.slot], slots[state.next_slot]
            what = Sweep(solver.steps(state), job.settings.seed, state.epoch, *places)
            return fit.sweep_blocks(panels, grid, state.entering, what)
        weighing = Weighing(solver.weigh, solver, residual=exact)
        if slots is not None and solver.carries_weights:
            before = slots[state.slot] if state.slot >= 0 else None
            weighing = weighing._replace(before=before, after=slots[state.next_slot])
        return fit.sweep(panels, state.entering, weighing)

    for step in fit.iterate(
        sweep, solver, progress.state, progress.measures.baseline, job.stop, progress.number
    ):
        step = step._replace(read=panels.bytes)
        if run is not None:
            run.commit(step)
        progress = replace(
            progress,
            state=step.state,
            number=step.number,
            history=(*progress.history, step.loss),
            outcome=step.outcome,
            final=step.final,
        )
        _report(step, job)
        if job.callback is not None:
            job.callback(step)
    return progress


def _report(step: Step, job: Job) -> None:
    """A line in the log, with its numbers in ``extra["nmf"]`` for logs that machines read."""
    speed = step.read / 1e6 / max(step.seconds, 1e-9)
    numbers = {
        "event": "pass",
        "pass": step.number,
        "relative_error": None if np.isnan(step.loss) else step.loss,
        "validation_error": None if np.isnan(step.held) else step.held,
        "seconds": round(step.seconds, 3),
        "mb_per_s": round(speed, 1),
        "outcome": step.outcome,
        "seconds_left_at_most": round((job.settings.max_iter - step.number) * step.seconds),
    }
    logger.info(
        "pass %d: relative error %.6f%s, %.2f s, %.0f MB/s",
        step.number,
        step.loss,
        "" if np.isnan(step.held) else f", held out {step.held:.6g}",
        step.seconds,
        speed,
        extra={"nmf": numbers},
    )


def _answer(panels: Panels, job: Job, run: Run | None, progress: Progress, keep: bool) -> Result:
    """The last read: W for H (H for W, where the panels are columns), and the exact loss."""
    solver, matrix, state = progress.solver, panels.matrix, progress.state
    h, slot = (state.h, state.slot) if state.best is None else (state.best, state.best_slot)
    h = np.ascontiguousarray(h[: len(state.h)])
    slots = progress.slots if solver.carries_weights else None
    before = slots[slot] if slots is not None else None
    if before is not None and isinstance(solver, SGD):
        before = Plain(before)
    # What is held out was looked at with the h of that pass: then it is the answer as it is.
    settles = matrix.transposed and isinstance(solver, HALS) and panels.rule.held_out == 0
    weighing = Weighing(solver.finish, solver, before, residual=True, bare=not settles)
    left, totals = _last_read(panels, h, weighing, run, keep)
    seen = state.good if isinstance(solver, Newton) and state.best is None else None
    if seen is not None and totals.residual > state.loss:  # the last step of Newton's went too far
        h = seen
        left, totals = _last_read(panels, h, weighing, run, keep)
    right, reached = h, totals.residual
    if settles:
        assert isinstance(solver, HALS)
        right = solver.settle(h, totals)
        reached = loss(progress.measures.baseline, totals, h, right)
    return _finish(panels, job, run, progress, (left, right), totals._replace(residual=max(reached, 0.0)))


def _answer_fixed(panels: Panels, job: Job, run: Run | None, progress: Progress, keep: bool) -> Result:
    """The other factor for one that is fixed; no pass is needed but those that this takes."""
    settings, matrix, measures = job.settings, panels.matrix, progress.measures
    fixed = start.orient(job.fixed_W, job.fixed_H, matrix.transposed)
    solver = start.answerer(settings, measures, matrix)
    if fixed.left is None:
        assert fixed.right is not None
        right, given = np.ascontiguousarray(fixed.right, matrix.dtype), None
        weighing = Weighing(solver.finish, solver, residual=True, bare=True)
    else:
        given = np.ascontiguousarray(fixed.left, matrix.dtype)
        right = fit.settle_right(panels, given, solver, measures.mean)
        weighing = Weighing(as_it_is, solver, residual=True, bare=True)
    left, totals = _last_read(panels, right, weighing, run, keep, given)
    name, other = ("W", "H") if job.fixed_H is None else ("H", "W")
    outcome = f"converged: {name} is fixed, and {other} is the best for it"
    return _finish(panels, job, run, replace(progress, outcome=outcome, final=True), (left, right), totals)


def _last_read(
    panels: Panels, h: Array, weighing: Weighing, run: Run | None, keep: bool, given: Array | None = None
) -> tuple[da.Array | Weights, Sums]:
    """W in memory, or where it is in the run, and the sums."""
    if keep:
        return fit.weigh_all(panels, h, weighing, given)
    assert run is not None
    place = run.answer()
    return place, fit.sweep(panels, h, weighing._replace(after=place), given)


def _finish(
    panels: Panels,
    job: Job,
    run: Run | None,
    progress: Progress,
    factors: tuple[da.Array | Weights, Array],
    totals: Sums,
) -> Result:
    """The answer, told and committed."""
    left, right = factors
    turned = panels.matrix.transposed
    if job.settings.normalize is not None:
        left, right = components.arranged(left, panels.edges, right, job.settings.normalize, turned)
    reached, baseline = totals.residual, progress.measures.baseline
    held = float(np.sqrt(totals.held / totals.held_mass)) if totals.held_mass else float("nan")
    error = fit.relative_error(reached, baseline)
    logger.info(
        "relative error %.6f; %s",
        error,
        progress.outcome,
        extra={"nmf": {"event": "done", "relative_error": error, "outcome": progress.outcome}},
    )
    if not isinstance(left, da.Array):
        assert run is not None
        run.finish(right, reached, held, progress.final, progress.outcome)
        return result_of(run)
    whole = da.from_array(right, chunks=right.shape)
    W, H = (whole.T, left.T) if turned else (left, whole)
    return _result(W, H, reached, held, baseline, progress.history, progress.outcome)


def _result(
    W: da.Array,
    H: da.Array,
    reached: float,
    held: float,
    baseline: float,
    history: Sequence[float],
    outcome: str | None,
) -> Result:
    return Result(
        W,
        H,
        fit.relative_error(reached, baseline),
        float(np.sqrt(reached)),
        np.asarray(history, np.float64),  # None, where it is not known, becomes NaN
        len(history),
        outcome or "",
        held,
    )


def result_of(run: Run) -> Result:
    """The answer of a run; W and H stay in Zarr until they are computed."""
    record = run.record
    W, H = (da.from_zarr(run.array(name)) for name in ("W", "H"))
    held = float("nan") if record["held"] is None else record["held"]
    history = record["history"]["loss"]
    return _result(W, H, record["loss"], held, record["measures"]["baseline"], history, record["outcome"])
