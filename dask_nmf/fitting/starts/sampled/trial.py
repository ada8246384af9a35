"""A pass over a sample with the H that was fitted to it, which tells what to expect of the passes over V."""

from __future__ import annotations

import math
import time
from typing import NamedTuple

from dask_nmf.execution.engine import Model
from dask_nmf.execution.engines.in_memory import InMemoryEngine
from dask_nmf.iteration.loop import CANCELS
from dask_nmf.iteration.outcome import relative_error
from dask_nmf.kernels.summary import row_sample
from dask_nmf.solvers.solver import Solver
from dask_nmf.types import Array, Block


class SampledStart(NamedTuple):
    """A start from a sample of rows of V, and what a pass over the sample has found with it.

    Attributes
    ----------
    h : (k, n), or directions for a start from singular vectors.
    relative_error : of the sample after the pass; NaN if there was no pass.
    task_seconds : of one processor, for the tasks of the pass.
    update_seconds : for the next H from their sums.
    visited : entries of the sample and of its W.
    """

    h: Array
    relative_error: float = math.nan
    task_seconds: float = math.nan
    update_seconds: float = math.nan
    visited: float = math.nan

    def pass_seconds(self, visited: float, threads: int) -> float:
        """Return the seconds of a pass over a V with so many entries, and entries of W, in memory."""
        return self.task_seconds * visited / self.visited / threads + self.update_seconds


def tried_start(sample: Block, h: Array, solver: Solver, baseline: float, stored: int) -> SampledStart:
    """Return the start with the H (k, n) of a sample in memory, after a pass over it.

    The time of processors is counted, as if this process did nothing else meanwhile.

    Parameters
    ----------
    baseline : the loss of a relative error of 1. For the squared error it is that of the sample, whose rows
        are scaled so that their loss stands for that of V: the solver expands the loss from it. For a
        divergence it is that of V, because that of scaled rows would be another one.
    stored : the number of entries of the sample that count.
    """
    state = solver.begin(h)
    with InMemoryEngine(row_sample.split_sample(sample)) as engine:
        begun = time.process_time()
        (totals,) = engine.sweep([Model(solver, state)])
        made = time.process_time()
        after = solver.update(state, totals, baseline)
        updated = time.process_time()
        if after.loss < CANCELS[h.dtype] * baseline:
            (totals,) = engine.sweep([Model(solver, state, exact=True)])
            after = solver.update(state, totals, baseline)
    error = relative_error(after.loss - after.penalty, baseline)
    visited = visited_by_pass(stored, sample.shape[0], len(h))
    return SampledStart(h, error, made - begun, updated - made, visited)


def visited_by_pass(stored: int, rows: int, rank: int) -> float:
    """Return the entries that a pass visits: those that V stores, and those of W, (rows, rank)."""
    return float(stored + rows * rank)
