"""The main job, from whatever holds V to W and H: `nmf`, and what its two faces share."""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import dask.array as da
import numpy as np

from dask_nmf import cluster, fit, kernels, plan, start
from dask_nmf.fit import Panels, Step, Stop
from dask_nmf.kernels import Array, Sums
from dask_nmf.matrix import Matrix, open_matrix
from dask_nmf.passes import Weighing
from dask_nmf.resume import existing, identity, locked
from dask_nmf.settings import Settings
from dask_nmf.solvers import Solver, State, loss
from dask_nmf.start import Factors, Measures
from dask_nmf.store import Run

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """What to factorise and how; everything but V that `nmf` takes."""

    settings: Settings
    W: Array | None = None
    H: Array | None = None
    dtype: str | None = None
    store: str | None = None
    overwrite: bool = False
    time_limit: float | None = None  # seconds
    callback: Callable[[Step], None] | None = None
    began: float = field(default_factory=time.monotonic)

    @property
    def stop(self) -> Stop:
        deadline = float("inf") if self.time_limit is None else self.began + self.time_limit
        return Stop(self.settings.max_iter, self.settings.tol, deadline)


class Result(NamedTuple):
    """A factorisation V ≈ W H."""

    W: da.Array  # (m, k)
    H: da.Array  # (k, n)
    relative_error: float  # ‖V − W H‖ / ‖V‖, of these W and H
    reconstruction_err: float  # ‖V − W H‖, Frobenius
    loss_history: Array  # relative error after each pass
    n_iter: int  # passes
    outcome: str


def nmf(
    V: Any,
    rank: int,
    *,
    solver: str = "hals",
    init: str | None = None,
    W: Array | None = None,
    H: Array | None = None,
    max_iter: int = 200,
    tol: float = 1e-4,
    seed: int = 0,
    delta: float | None = None,
    inner_iter: int = 1,
    dtype: str | None = None,
    store: str | Path | None = None,
    overwrite: bool = False,
    time_limit: float | None = None,
    callback: Callable[[Step], None] | None = None,
) -> Result:
    """Factorise a non-negative V (m × n) as W H, with W (m × rank) and H (rank × n) non-negative.

    Runs on the active `distributed` client, or in the threads of this process if there is none.

    Parameters
    ----------
    V : whatever `open_matrix` takes: an array, a sparse matrix, a Dask array, or a path.
    rank : number of components, k.
    solver : ``"hals"`` (few passes, W solved anew in each) or ``"mu"`` (Lee & Seung's steps).
    init : ``"sample"`` (default; H of some rows, factorised in memory), ``"random"``, or ``"custom"`` (from
        ``W`` and ``H``, or from either).
    max_iter : most passes over V.
    tol : stop when a pass lowers the loss ‖V − W H‖² by less than ``tol`` times itself, or ``tol`` times what
        is explained of ‖V‖² if that is less.
    delta : added to the denominators of ``"mu"``; by default a trifle relative to the scale of V.
    inner_iter : steps of ``"mu"`` on the products of a pass; 1 is Lee & Seung's.
    dtype : of the computation, ``"float32"`` or ``"float64"``; see `open_matrix`.
    store : path of a Zarr group that holds the run: each pass is committed, an unfinished run is resumed,
        and W never is in memory.
    time_limit : seconds, after which the pass in work is the last.
    callback : called with the `Step` of each pass.

    Returns
    -------
    Result

    Raises
    ------
    BadEntry
        If V has a NaN, an infinity or a negative entry.
    ValueError, TypeError
        If V or an option is not as above.
    MemoryError
        If a panel of V does not fit a worker.
    RunMismatch, RunLocked
        If ``store`` holds another fit, or is in use.
    """
    settings = Settings(rank, solver, init, max_iter, tol, seed, delta, inner_iter)
    path = None if store is None else str(store)
    return factorise(V, Job(settings, W, H, dtype, path, overwrite, time_limit, callback))


def factorise(V: Any, job: Job) -> Result:
    """`nmf`, with its options as a `Job`."""
    matrix = open_matrix(V, job.dtype)
    job.settings.check_rank(matrix.shape)
    job = _check_given(job, matrix)
    if job.store is not None:
        with locked(job.store):
            return _fit_in_store(matrix, job, job.store)
    if not _carries(job):
        return _fit(matrix, job, None)
    if not cluster.shares_this_disk():
        raise ValueError(
            f"solver {job.settings.solver!r} with init {job.settings.start!r} keeps a factor on disk between "
            "passes, and the workers are on other machines; give store= a path that all of them reach"
        )
    with tempfile.TemporaryDirectory(prefix="dask-nmf-") as folder:
        return _fit(
            matrix,
            job,
            Run.create(f"{folder}/run.zarr", *identity(matrix, job.settings, job.W, job.H)),
            keep=True,
        )


def _carries(job: Job) -> bool:
    """Whether a W (or H, in panels of columns) is kept outside of memory between passes."""
    return job.settings.solver == "mu" or job.settings.start == "custom"


def _check_given(job: Job, matrix: Matrix) -> Job:
    """The job with given factors as arrays, or refused."""
    m, n = matrix.shape
    k = job.settings.rank
    given = {"W": (job.W, (m, k)), "H": (job.H, (k, n))}
    if job.settings.start != "custom":
        if job.W is not None or job.H is not None:
            raise ValueError(f"W and H are given and init is {job.settings.start!r}; it must be 'custom'")
        return job
    if job.W is None and job.H is None:
        raise ValueError("init is 'custom' and neither W nor H is given; give one or both")
    checked = {name: _check_factor(name, *asked) for name, asked in given.items()}
    return replace(job, W=checked["W"], H=checked["H"])


def _check_factor(name: str, factor: Any, shape: tuple[int, int]) -> Array | None:
    if factor is None:
        return None
    array = np.asarray(factor)
    if array.shape != shape:
        raise ValueError(f"{name} has shape {array.shape}; for this V and rank it must be {shape}")
    found = kernels.measure(array)
    if found.bad is not None:
        raise ValueError(str(found.bad).replace("V has", f"{name} has", 1))
    if not found.total > 0:
        raise ValueError(f"{name} is zero everywhere; it must have an entry > 0")
    return array


def _fit_in_store(matrix: Matrix, job: Job, path: str) -> Result:
    run = existing(path, identity(matrix, job.settings, job.W, job.H), job.overwrite)
    if run is None:
        return _fit(matrix, job, path)
    if run.record["finished"]:
        logger.info("%s is finished already: %s", path, run.record["outcome"])
        return result_of(run)
    if run.passes is not None:
        logger.info("resuming %s after pass %d", path, run.passes)
    return _fit(matrix, job, run)


@dataclass(frozen=True)
class Progress:
    """A fit between two passes."""

    solver: Solver
    measures: Measures
    state: State
    number: int = 0
    history: tuple[float, ...] = ()
    outcome: str | None = None
    final: bool = False


def _fit(matrix: Matrix, job: Job, where: Run | str | None, keep: bool = False) -> Result:
    """Fit and answer. ``where``: an open run, the path of one to begin, or nowhere.

    ``keep``: the answer stays in (distributed) memory, as it does where there is no run.
    """
    old = where if isinstance(where, Run) and where.passes is not None else None
    panels, sample_rows = _cut(matrix, job, old)
    given = start.orient(job.W, job.H, matrix.transposed)
    run, progress = (
        (old, _resume(old, job, matrix))
        if old is not None
        else _start(panels, job, given, sample_rows, where)
    )
    progress = _iterate(panels, job, run, progress, start.writes_left(job.settings, given))
    return _answer(panels, run, progress, keep or run is None)


def _cut(matrix: Matrix, job: Job, run: Run | None) -> tuple[Panels, int]:
    """V in panels that fit the workers: those of the run, if there is one. And the rows to sample."""
    offer = cluster.resources()
    edges = None if run is None else run.edges
    planned = plan.make(matrix.layout, job.settings.rank, offer.memory_limit, offer.threads, edges)
    logger.info(
        "V is %d x %d %s, cut into %d panels; a worker takes at most %d MiB",
        *matrix.shape,
        matrix.dtype,
        len(planned.edges) - 1,
        planned.worker_bytes // plan.MIB,
    )
    return Panels(matrix, planned.edges), planned.sample_rows


def _start(
    panels: Panels, job: Job, given: Factors, sample_rows: int, where: Run | str | None
) -> tuple[Run | None, Progress]:
    """The first read, and pass 0. A run is laid out only when V is known to be good."""
    matrix, settings = panels.matrix, job.settings
    measures, sampled = start.first_read(panels, settings, sample_rows)
    run = (
        where if not isinstance(where, str) else Run.create(where, *identity(matrix, settings, job.W, job.H))
    )
    slot = None
    if run is not None:
        run.begin(panels.edges, settings.rank, matrix.dtype, _carries(job))
        slot = run.weights(0) if _carries(job) else None
    state = start.begin(panels, settings, measures, given, sampled, slot)
    if run is not None:
        run.commit_start(state, measures._asdict())
    return run, Progress(start.make_solver(settings, measures, matrix), measures, state)


def _resume(run: Run, job: Job, matrix: Matrix) -> Progress:
    record = run.record
    if record["answered"]:
        run.reopen()
    measures = Measures(**record["measures"])
    return Progress(
        start.make_solver(job.settings, measures, matrix),
        measures,
        run.state(),
        record["pass"],
        tuple(record["history"]["loss"]),
        record["outcome"],
        record["final"],
    )


def _iterate(panels: Panels, job: Job, run: Run | None, progress: Progress, left: bool) -> Progress:
    """The passes that are missing, each committed. ``left``: the start wrote the carried factor."""
    if progress.final:
        return progress
    solver = progress.solver

    def sweep(number: int, h: Array, exact: bool) -> Sums:
        before, after = run.carry(number) if run is not None and solver.carries_weights else (None, None)
        before = before if number > 1 or left else None
        return fit.sweep(panels, h, Weighing(solver.weigh, before, after, residual=exact))

    for step in fit.iterate(
        sweep, solver, progress.state, progress.measures.sumsq, job.stop, progress.number
    ):
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
        logger.info("pass %d: relative error %.6f, %.2f s", step.number, step.loss, step.seconds)
        if job.callback is not None:
            job.callback(step)
    return progress


def _answer(panels: Panels, run: Run | None, progress: Progress, keep: bool) -> Result:
    """The last read: W for H (H for W, where the panels are columns), and the exact loss."""
    solver, matrix, h = progress.solver, panels.matrix, progress.state.h
    before = run.weights(progress.number % 2) if run is not None and solver.carries_weights else None
    weighing = Weighing(solver.finish, before, residual=True)
    left = None
    if keep:
        left, totals = fit.weigh_all(panels, h, weighing)
    else:
        assert run is not None
        totals = fit.sweep(panels, h, weighing._replace(after=run.answer()))
    right = solver.settle(h, totals) if matrix.transposed else h
    reached = max(loss(progress.measures.sumsq, totals, h, right), 0.0)
    if left is None:
        assert run is not None
        run.finish(right, reached, progress.final)
        return result_of(run)
    whole = da.from_array(right, chunks=right.shape)
    W, H = (whole.T, left.T) if matrix.transposed else (left, whole)
    return _result(W, H, reached, progress.measures.sumsq, progress.history, progress.outcome)


def _result(
    W: da.Array, H: da.Array, reached: float, sumsq: float, history: Sequence[float], outcome: str | None
) -> Result:
    return Result(
        W,
        H,
        fit.relative_error(reached, sumsq),
        float(np.sqrt(reached)),
        np.asarray(history),
        len(history),
        outcome or "",
    )


def result_of(run: Run) -> Result:
    """The answer of a run; W and H stay in Zarr until they are computed."""
    record = run.record
    W, H = (da.from_zarr(run.array(name)) for name in ("W", "H"))
    return _result(
        W, H, record["loss"], record["measures"]["sumsq"], record["history"]["loss"], record["outcome"]
    )
