"""Fits of a sample in memory: its solver, and passes over it."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from dask_nmf.execution.engine import Model
from dask_nmf.execution.engines.in_memory import InMemoryEngine
from dask_nmf.iteration.loop import Stop, iterate
from dask_nmf.kernels.blocks.masking import MaskedBlock
from dask_nmf.kernels.row_sums import Sums
from dask_nmf.kernels.summary import masked_summary, row_sample
from dask_nmf.options.settings import Settings
from dask_nmf.solvers.hals import HALS
from dask_nmf.solvers.newton import KLNewton
from dask_nmf.solvers.parts.penalties import Penalty
from dask_nmf.solvers.parts.state import State
from dask_nmf.solvers.solver import smallest_divisor
from dask_nmf.types import Array, Block

COARSE_STOP = Stop(max_iter=60, tol=1e-3, finest=0)

FINE_STOP = Stop(max_iter=60, tol=3e-5, finest=0)

TIE_TOLERANCE = 1e-6  # share of ‖V‖²: a smaller difference is rounding in float32, and no better start

EXPLAINED = 1e-14  # share of ‖V‖² that ends the sample's fit: the passes over all of V go on from there

LOOSE = 0.1  # tolerance of inner solves: they take a third less time than with 1e-2


def sample_solver(settings: Settings, penalty: Penalty, mean: float, dtype: np.dtype[Any]) -> HALS | KLNewton:
    """Return the solver for a sample with this mean and dtype."""
    if settings.beta == 2:
        return HALS(penalty)
    return KLNewton(smallest_divisor(mean, dtype), penalty, LOOSE)


def mean_of(sample: Block) -> float:
    """Return the mean of the entries that count."""
    found = masked_summary.summarize_block(sample)
    return found.total / float(np.broadcast_to(found.column_weight, sample.shape[1]).sum())


def with_squared_error(sample: Block) -> Block:
    """Return the sample with the squared error as its loss."""
    if not isinstance(sample, MaskedBlock):
        return sample
    return sample.v if sample.mask.is_uniform else replace(sample, mask=replace(sample.mask, beta=2.0))


def descend(sample: Block, h: Array, solver: HALS | KLNewton, stop: Stop) -> State[Any]:
    """Return the state after passes over a sample in memory, from H (k, n)."""
    rows, baseline = row_sample.split_sample(sample), baseline_of(sample, solver)
    enough = EXPLAINED if stop == FINE_STOP else TIE_TOLERANCE  # below it, rounding would end the fit
    stop = replace(stop, below=math.sqrt(enough * baseline))
    state: State[Any] = solver.begin(h)
    with InMemoryEngine(rows) as engine:

        def sweep(state: State[Any], exact: bool) -> Sums:
            return engine.sweep([Model(solver, state, exact)])[0]

        for step in iterate(sweep, solver, state, baseline, stop):
            state = step.state  # no earlier state is kept, because each holds two copies of H
    return state


def baseline_of(sample: Block, solver: HALS | KLNewton) -> float:
    """Return the baseline of losses: ‖V‖², or the divergence of V from its mean."""
    if solver.one_pass:
        return float(masked_summary.summarize_block(sample).row_norms.sum())
    return masked_summary.summarize_block(
        replace(sample, mask=replace(sample.mask, beta=1.0))
    ).divergence_terms.divergence_from_mean()
