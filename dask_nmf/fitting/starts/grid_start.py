"""The initial H of a fit over V cut into blocks; it is written in pieces."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np

from dask_nmf import rng
from dask_nmf.execution.engine import Model
from dask_nmf.execution.engines.grid import GridEngine, GridSlots
from dask_nmf.fitting.starts import initialize, problem
from dask_nmf.fitting.starts.problem import Measures
from dask_nmf.fitting.starts.sampled import sample_start
from dask_nmf.fitting.starts.sampled.sample_fit import baseline_of
from dask_nmf.fitting.starts.sampled.trial import SampledStart, tried_start
from dask_nmf.fitting.starts.worker_tasks import random_rows, spread_rows
from dask_nmf.kernels.blocks import masking, scaling
from dask_nmf.kernels.summary.row_sample import SampleSpec
from dask_nmf.options.settings import Settings
from dask_nmf.solvers.hals import HALS
from dask_nmf.solvers.parts.state import State
from dask_nmf.solvers.piecewise import PiecewiseHALS, PiecewiseState, divisors
from dask_nmf.solvers.solver import factor_scale
from dask_nmf.sources.matrix import Matrix
from dask_nmf.types import Array, Block


def draw_for(engine: GridEngine, settings: Settings) -> SampleSpec:
    """Return the specification of the sample of rows for a start, of 0 rows if it needs none."""
    rows, _ = engine.tiling.sample
    return SampleSpec(
        engine.matrix.layout.rows, rows if settings.start == "sample" else 0, settings.random_state
    )


def start_of_sample(
    matrix: Matrix, settings: Settings, measures: Measures, block: Block
) -> SampledStart | None:
    """Return the start from a sample of rows and columns; None if nothing in it is above 0."""
    sample = scaling.scaled_copy(block, measures.scale)
    if not (sample.size > 0 and sample.sum() > 0):
        return None
    own = problem.own_penalty(settings, measures, matrix).bounded
    h, solver = sample_start.sampled_h(sample, settings, own, _h_stream(matrix)), HALS(own)
    return tried_start(sample, h, solver, baseline_of(sample, solver), masking.n_stored(sample))


def _h_stream(matrix: Matrix) -> int:
    """Return the stream of random numbers for the right factor."""
    return matrix.orientation.turn((rng.Stream.W_FACTOR, rng.Stream.H_FACTOR))[1]


def initial_state(
    engine: GridEngine, settings: Settings, measures: Measures, sampled: Array | None, slots: GridSlots
) -> State[PiecewiseState]:
    """Return the state before the first pass, and write the initial H into its slot.

    The H of a sample is known for some columns only, and 0 in the others. The first pass thus finds W from
    the sampled columns, and then H for all columns from W. The initial H is not used to extrapolate.
    """
    matrix = engine.matrix
    no_h = np.empty((settings.n_components, 0), matrix.dtype)
    scale = factor_scale(measures.level, settings.n_components)
    own = problem.own_penalty(settings, measures, matrix).bounded
    balanced = own.in_balanced_units(scale).right_unit / own.right_unit
    make: Callable[[int, int], Array] = partial(
        random_rows, settings, scale * balanced, _h_stream(matrix), matrix.dtype
    )
    if sampled is not None:
        make = partial(spread_rows, sampled, engine.sample_of(draw_for(engine, settings)))
    engine.write_h(slots.new_h_pieces(0), make)
    solver = PiecewiseHALS(own.without_lasso)
    state = solver.begin(no_h, w_slot=0)
    if sampled is not None:
        state = replace(state, own=PiecewiseState(previous_slot=0), w_slot=-1)
    for _ in range(initialize.WARM if settings.start == "random" and settings.lasso else 0):
        (totals,) = engine.sweep([Model(solver, state, slots=slots)])
        scales, _ = own.balance(tuple(totals.w_norms), tuple(totals.h_norms))
        state = replace(state, own=PiecewiseState(scales=divisors(scales)), w_slot=state.next_slot)
    return state
