"""Starts for several ranks: a sample of V is fitted once, at the largest rank, and then merged down."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace

import numpy as np

from dask_nmf.execution.engine import Model
from dask_nmf.execution.engines.in_memory import InMemoryEngine
from dask_nmf.execution.tasks.blas import one_blas_thread
from dask_nmf.fitting.starts.sampled.merging import merge_path
from dask_nmf.fitting.starts.sampled.sample_fit import COARSE_STOP, descend, mean_of, sample_solver
from dask_nmf.fitting.starts.sampled.sample_start import lift_columns, sampled_h
from dask_nmf.kernels.summary import row_sample
from dask_nmf.options.settings import Settings
from dask_nmf.solvers.parts.penalties import Penalty
from dask_nmf.solvers.solver import Solver
from dask_nmf.types import Array, Block


def starts_of_ranks(
    sample: Block,
    ranks: Collection[int],
    settings: Settings,
    penalty_of: Callable[[Settings], Penalty],
    stream: int,
) -> dict[int, Array]:
    """Return an H (k, n) for each rank.

    Components are merged where that costs least (see `merging`), and each H is then fitted to the sample.

    Parameters
    ----------
    sample : rows of V.
    settings : the settings of the fits but for their number of components.
    penalty_of : returns the penalties for the sample, in the units of the fit that has these settings.
    stream : of the random numbers for H.
    """
    own = {rank: replace(settings, n_components=rank) for rank in ranks}
    widest = max(ranks)
    starts = {widest: sampled_h(sample, own[widest], penalty_of(own[widest]), stream)}
    mean = mean_of(sample)
    with one_blas_thread():
        solver = sample_solver(own[widest], penalty_of(own[widest]), mean, sample.dtype)
        path = merge_path(starts[widest], gram_of_w(sample, starts[widest], solver), ranks)
        for rank in sorted(set(ranks) - {widest}, reverse=True):
            merged = np.ascontiguousarray(path.starts[rank], sample.dtype)
            lifted = merged if settings.beta == 2 else lift_columns(merged, settings.random_state, stream)
            solver = sample_solver(own[rank], penalty_of(own[rank]), mean, sample.dtype)
            starts[rank] = descend(sample, lifted, solver, COARSE_STOP).best[0]
    return starts


def gram_of_w(sample: Block, h: Array, solver: Solver) -> Array:
    """Return WᵀW, (k, k), float64, of the best W for H (k, n)."""
    blocks = row_sample.split_sample(sample)
    with InMemoryEngine(blocks) as engine:
        left = engine.finalize(Model(solver, solver.begin(h))).left
        w = np.asarray(left.read(0, sample.shape[0]), np.float64)
    return np.asarray(w.T @ w)
