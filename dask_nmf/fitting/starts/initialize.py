"""The first read of V, and the initial factors: from a sample, at random, or as given."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any, cast

import numpy as np

from dask_nmf import rng
from dask_nmf.errors import NothingObserved
from dask_nmf.execution.engines.panels import PanelEngine
from dask_nmf.execution.tasks.block_pass import PassSpec, keep_w
from dask_nmf.execution.tasks.factor_store import FactorStore
from dask_nmf.fitting.starts import nndsvd
from dask_nmf.fitting.starts.fixed_factor import solve_h_for_w
from dask_nmf.fitting.starts.problem import (
    Factors,
    Measures,
    check_squares,
    fixed_factor_solver,
    in_units,
    make_solver,
    penalty_of_fit,
    penalty_of_sample,
    scale_and_unit,
)
from dask_nmf.fitting.starts.sampled.sample_start import lift_columns, random_factor, sampled_h
from dask_nmf.fitting.starts.sampled.trial import SampledStart, tried_start
from dask_nmf.kernels.blocks import masking
from dask_nmf.kernels.summary import masked_summary, row_sample
from dask_nmf.kernels.summary.row_sample import Candidates, SampleSpec, Summary
from dask_nmf.options.settings import Settings
from dask_nmf.progress import report_stage
from dask_nmf.solvers.hals import HALS
from dask_nmf.solvers.mu import clip_below
from dask_nmf.solvers.newton import KLNewton
from dask_nmf.solvers.parts.penalties import Penalty, divide_components, norms_of
from dask_nmf.solvers.parts.state import State
from dask_nmf.solvers.solver import LIFT, RightSolver, Solver, factor_scale
from dask_nmf.sources.matrix import Matrix
from dask_nmf.types import Array
from dask_nmf.wording import counted

logger = logging.getLogger(__name__)

FOLLOWING = 3  # the most passes to fit the right factor to a given left one
WARM = 3  # passes without the L1 penalties after a random start


def draw_for(panels: PanelEngine, settings: Settings, sample_rows: int) -> SampleSpec:
    """Return the specification of the sample of rows for a start, of 0 rows if it needs none."""
    sampled = settings.by_svd or settings.start == "sample"
    return SampleSpec(panels.edges[-1], sample_rows if sampled else 0, settings.random_state)


def start_of_sample(
    panels: PanelEngine, settings: Settings, measures: Measures, candidates: Candidates, draw: SampleSpec
) -> SampledStart | None:
    """Return the start from a sample of rows: its H, or its directions, see `nndsvd.sampled_directions`.

    Return None if the start has no sample, or if no entry of it counts.
    """
    if settings.by_svd:
        found = nndsvd.sampled_directions(candidates, draw, settings.n_components, measures.scale)
        return SampledStart(found)
    if not draw.size:
        return None
    sample = masking.scaled_copy(row_sample.draw_sample(candidates, draw), measures.scale)
    measured = masked_summary.summarize_block(sample)
    if not sample.shape[0] or not np.any(measured.column_weight):
        return None
    logger.info("factorising a sample of %s, for the start", counted(sample.shape[0], "panel row"))
    matrix = panels.matrix
    penalty = penalty_of_sample(penalty_of_fit(settings, measures, matrix), sample, panels.edges[-1])
    h = sampled_h(sample, settings, penalty, _streams(matrix)[1])
    solver = fixed_factor_solver(settings, measures, matrix).with_penalty(penalty)
    if not isinstance(solver, HALS | KLNewton):
        return SampledStart(h)  # the sample is fitted with another loss
    baseline = float(measured.row_norms.sum()) if solver.one_pass else measures.baseline
    return tried_start(sample, h, solver, baseline, measured.stored)


def log_summary(measures: Measures) -> None:
    """Write the measures of the first read to the log."""
    report_stage("start")
    logger.info(
        "first read: %s, mean %.4g, %s; nothing observed in %s and %s",
        counted(measures.stored, "entry"),
        measures.mean,
        counted(measures.empty, "empty panel row"),
        counted(measures.unobserved_rows, "row"),
        counted(measures.unobserved_columns, "column"),
        extra={"nmf": {"event": "first read", **measures._asdict()}},
    )


def measures_of(summary: Summary, matrix: Matrix, beta: float, factors: Factors) -> Measures:
    mass = np.broadcast_to(summary.column_weight, matrix.layout.columns)
    unobserved = summary.unobserved_rows, int((mass == 0).sum())
    if not mass.any():
        raise NothingObserved("V has no entry that counts: all are missing, held out or of weight 0")
    entries = float(mass.sum())
    mean = summary.total / entries
    if beta == 2:
        check_squares(mean, summary.sumsq)
    scale, unit = scale_and_unit(mean, factors, matrix)
    powers = summary.divergence_terms.at_level(-round(math.log2(scale)))
    return Measures(
        mean,
        summary.sumsq * scale * scale if beta == 2 else powers.divergence_from_mean(),
        summary.stored,
        summary.empty_rows,
        *matrix.orientation.turn(unobserved),
        scale,
        unit,
    )


def writes_left(settings: Settings, factors: Factors) -> bool:
    """Return whether the left factor exists before the first pass."""
    algorithm = settings.algorithm
    drawn = settings.start not in ("sample", "custom") and algorithm.carries_w
    return factors.left is not None or drawn or algorithm.by_strata


def initial_state(
    panels: PanelEngine,
    settings: Settings,
    measures: Measures,
    factors: Factors,
    sampled: Array | None,
    new_store: Callable[[], FactorStore] | None,
) -> State[Any]:
    """Return the state before the first pass, and write the left factor if the fit keeps one.

    Parameters
    ----------
    new_store : makes a new store for the left factor, if the fit keeps one; the last store made holds it.
    """
    matrix, dtype = panels.matrix, panels.matrix.dtype
    scale = factor_scale(measures.level, settings.n_components)
    left_stream, right_stream = _streams(matrix)
    solver = make_solver(settings, measures, matrix)
    if new_store is not None:
        new_store = partial(_result_store, solver, new_store)
    if settings.start == "custom":
        right = _from_given(panels, settings, measures, factors, new_store)
    elif settings.by_svd:
        assert sampled is not None
        left_unit, right_unit = measures.units
        means = measures.mean / left_unit, measures.mean / right_unit
        fill = nndsvd.Fill(settings.start, means, settings.random_state, _streams(matrix), measures.level)
        right = nndsvd.nndsvd_factors(panels, settings.n_components, sampled, fill, new_store)
    elif sampled is not None:
        right = sampled if not settings.algorithm.keeps_zeros else clip_below(sampled, LIFT * scale)
    else:
        if settings.start == "sample":
            logger.info("no sample of V fits a worker, or none has an entry that counts: the start is random")
        right = random_factor(
            settings.random_state,
            np.arange(matrix.layout.columns),
            settings.n_components,
            scale,
            right_stream,
        ).T
        if new_store is not None and writes_left(settings, factors):
            store = new_store()
            for first, last in pairwise(panels.edges):
                w = random_factor(
                    settings.random_state, np.arange(first, last), settings.n_components, scale, left_stream
                )
                store.write(first, w.astype(dtype))
    if settings.beta != 2 and not settings.algorithm.carries_w:
        right = lift_columns(right, settings.random_state, right_stream)
    h = np.ascontiguousarray(right, dtype=dtype)
    drawn = sampled is None and settings.start in ("random", "sample")
    if drawn and not settings.algorithm.carries_w and settings.lasso:
        h = _warmed(panels, h, cast(RightSolver, solver))
    if settings.algorithm.by_strata:
        assert new_store is not None
        if settings.start == "sample" or (settings.start == "custom" and factors.left is None):
            h = _balanced_pair(panels, h, HALS(penalty_of_fit(settings, measures, matrix)), new_store)
    return solver.begin(h, w_slot=0 if writes_left(settings, factors) else -1)


def _result_store(solver: Solver, new_store: Callable[[], FactorStore]) -> FactorStore:
    """Return a new store of a factor, as a store of a factor (rows, k) of the result."""
    return solver.result_store(new_store())


def _warmed(panels: PanelEngine, h: Array, solver: RightSolver) -> Array:
    """Return H (k, n) after `WARM` passes without the L1 penalties; none is judged by its loss.

    Random components are much alike, so that an L1 penalty would leave only the largest.
    """
    smooth, penalty = solver.with_penalty(solver.penalty.without_lasso), solver.penalty
    for _ in range(WARM):
        totals = panels.run_pass(h, PassSpec(smooth.solve_w, smooth))
        followed = smooth.update_h(h, totals)
        h = divide_components(followed, penalty.balance(*norms_of(totals, followed))[0])
    return h


def _balanced_pair(
    panels: PanelEngine, h: Array, solver: HALS, new_store: Callable[[], FactorStore]
) -> Array:
    """Write W for H (k, n) to a new store, and return H, both at the scale with the least penalties."""
    unscaled = new_store()
    totals = panels.run_pass(h, PassSpec(solver.solve_w, solver, w_out=unscaled))
    scales, _ = solver.penalty.balance(*norms_of(totals, h))
    if (scales != 1).any():
        store = new_store()
        for first, last in pairwise(panels.edges):
            store.write(first, unscaled.read(first, last) * scales.astype(h.dtype))
    return divide_components(solver.penalty.without_dead(totals, h), scales)


def _from_given(
    panels: PanelEngine,
    settings: Settings,
    measures: Measures,
    factors: Factors,
    new_store: Callable[[], FactorStore] | None,
) -> Array:
    """Return the initial H, (k, n) in panel orientation, from given factors.

    This takes passes if only the left factor is given, or if it must be updated first. It also does if the
    solver finds the left factor anew: the given one may then lead to a better H than the given H.
    """
    matrix, dtype = panels.matrix, panels.matrix.dtype
    solver = make_solver(settings, measures, matrix)
    factors = in_units(factors, solver.penalty, dtype)
    if not solver.carries_w:
        factors = _balanced(factors, solver.penalty, measures.level / settings.n_components)
    if factors.left is not None:
        assert new_store is not None
        store = new_store()
        for first, last in pairwise(panels.edges):
            store.write(first, np.asarray(factors.left[first:last], dtype))
        if factors.right is None:
            solver_of_right = fixed_factor_solver(settings, measures, matrix).with_penalty(solver.penalty)
            right = right_of(panels, solver_of_right, measures.level, factors.left)
            raised = clip_below(right, LIFT * float(right.mean()))
            return raised if settings.algorithm.keeps_zeros else right
        if matrix.orientation.by_columns and solver.carries_w and not settings.algorithm.by_strata:
            totals = panels.run_pass(np.asarray(factors.right, dtype), PassSpec(keep_w, solver, store))
            return cast(RightSolver, solver).update_h(np.asarray(factors.right, dtype), totals)
        if not solver.carries_w:
            return _better_start(panels, cast(RightSolver, solver), measures.level, factors)
    assert factors.right is not None
    return factors.right


def _better_start(panels: PanelEngine, solver: RightSolver, mean: float, factors: Factors) -> Array:
    """Return the given right factor, (k, n), or the best one for the left factor if its loss is lower."""
    dtype = panels.matrix.dtype
    left, right = (np.ascontiguousarray(factor, dtype) for factor in factors)
    followed, _ = solve_h_for_w(panels, left, solver, mean, most=FOLLOWING)

    def reached(h: Array) -> float:
        totals = panels.run_pass(h, PassSpec(solver.solve_w, solver, residual=True))
        return totals.residual + solver.penalty.of(totals, h)

    return followed if reached(followed) < reached(right) else right


def _balanced(factors: Factors, penalty: Penalty, product: float) -> Factors:
    """Return given factors at the scale with the least penalties of each component."""
    left, right = factors
    if right is not None:
        return Factors(left, divide_components(right, penalty.scales_of_right(right, product)))
    assert left is not None
    return Factors(divide_components(left.T, penalty.turned.scales_of_right(left.T, product)).T, None)


def right_of(panels: PanelEngine, solver: RightSolver, mean: float, left: Array) -> Array:
    """Return the best right factor, (k, n), for a left factor, (rows, k)."""
    return solve_h_for_w(panels, np.ascontiguousarray(left, panels.matrix.dtype), solver, mean)[0]


def _streams(matrix: Matrix) -> tuple[int, int]:
    """Return the streams of random numbers for the left and the right factor.

    W and H each have their own stream, so that their numbers do not depend on how V is cut.
    """
    return matrix.orientation.turn((rng.Stream.W_FACTOR, rng.Stream.H_FACTOR))
