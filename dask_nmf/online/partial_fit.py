"""`partial_fit`: NMF of rows that come in batches, by the sums and a sample of the earlier rows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from dask_nmf.errors import NothingObserved
from dask_nmf.execution import partition
from dask_nmf.execution.engines.panels import PanelEngine
from dask_nmf.execution.tasks.block_pass import PassSpec
from dask_nmf.fitting.request import FitRequest
from dask_nmf.kernels.blocks import masking, scaling
from dask_nmf.kernels.row_sums import Sums
from dask_nmf.kernels.summary import row_sample
from dask_nmf.kernels.summary.row_sample import SampleSpec
from dask_nmf.online import reservoir, stream_solvers
from dask_nmf.online import sums as stream_sums
from dask_nmf.online.refit import loss_rate, refit_to_sample, sums_after_refit
from dask_nmf.online.state import StreamState
from dask_nmf.online.stream_solvers import StreamSolver, lift_zero_columns
from dask_nmf.options.settings import Settings
from dask_nmf.sources.matrix import Matrix
from dask_nmf.types import Array, Block

REPEATS = 3  # passes over a batch, each of which replaces the sums of the one before
REPEATS_KL = 6  # as many for Kullback–Leibler, whose quadratic models hold near their H only
WORSE = 1.05  # times the earlier loss rate of the sample: rows of another kind have come


def partial_fit(
    matrix: Matrix, request: FitRequest, h: Array, state: StreamState | None, forget_factor: float
) -> tuple[Array, StreamState]:
    """Return H after a batch, (k, n), and the new state of the stream.

    The sums of all batches add up to normal equations for H: WᵀV and WᵀW, or for the Kullback–Leibler
    divergence the quadratic models about the H of their time. So a batch counts by its number of rows, in
    whatever order batches come (Mairal et al. 2010, for the squared error). The sums hold for a W that is
    never solved again. So H is refitted to a sample of all rows when they are twice as many as at the last
    refit, and when H explains the sample worse than it did then.

    Parameters
    ----------
    h : (k, n), before the batch.
    state : of the earlier batches; None for the first one.
    forget_factor : how much the earlier batches count (1: nothing is forgotten).

    Raises
    ------
    InvalidEntryError, DataError, ValueError, MemoryError
        As for `nmf`.
    """
    settings = request.settings
    if not settings.algorithm.learns_online or settings.beta not in (1, 2):
        raise ValueError(
            f"solver is {settings.solver!r} and beta_loss {settings.beta_loss!r}; solver 'hals' learns from "
            "batches, with frobenius or kullback-leibler"
        )
    panels, planned = partition.cut_into_panels(matrix, len(h), request.weights, request.entry_mask(matrix))
    rows = float(panels.edges[-1])
    if state is not None:
        state = state.discounted(forget_factor)
        seed = settings.random_state + int(state.rows + rows)  # other random numbers for each batch
        settings = replace(settings, random_state=seed)
    batch, own = _sample_batch(panels, settings, planned.sample_rows)
    scale = own if state is None else _coarser(own, state.scale)
    unit = scaling.unit_of(h) if state is None else state.unit
    panels.scale, batch = scale or 1.0, masking.scaled_copy(batch, scale or 1.0)
    h = np.ascontiguousarray(scaling.multiply(np.asarray(h, np.float64), 1 / unit), matrix.dtype)
    if state is None:
        h, state = _first_batch(panels, settings, h, batch, (scale, unit))
    else:
        h, state = _next_batch(panels, settings, h, batch, state.at_scale(scale, settings.beta))
    return scaling.multiply(h, unit), state


def _coarser(scale: float, other: float) -> float:
    """Return the scale of the larger V, of two that may be 0."""
    return min(scale, other) or max(scale, other)


def _first_batch(
    panels: PanelEngine, settings: Settings, h: Array, batch: Block, units: tuple[float, float]
) -> tuple[Array, StreamState]:
    """Return H, in its unit, and the state after the first batch, with (scale of V, unit of H) as given."""
    rows, penalty = float(panels.edges[-1]), stream_solvers.stream_penalty(settings, *units)
    solver = stream_solvers.batch_solver(settings, panels.matrix.dtype, penalty)
    h, sums = _repeat_passes(panels, solver, h, None, settings.beta)
    judge = stream_solvers.sample_solver(batch, settings, penalty, rows)
    return h, StreamState(sums, batch, *units, rows, rows, loss_rate(batch, h, judge, settings.beta))


def _next_batch(
    panels: PanelEngine, settings: Settings, h: Array, batch: Block, state: StreamState
) -> tuple[Array, StreamState]:
    """Return H, in its unit, and the state after one more batch, of which ``batch`` is a sample."""
    beta, penalty = settings.beta, stream_solvers.stream_penalty(settings, state.scale, state.unit)
    solver = stream_solvers.batch_solver(settings, panels.matrix.dtype, penalty)
    rows, refitted_at = state.rows + float(panels.edges[-1]), state.rows_at_refit
    past, batch = reservoir.in_one_layout(state.sample, batch)
    sample = masking.vstack([past, batch])
    judge = stream_solvers.sample_solver(sample, settings, penalty, rows)
    before, (h, sums) = h, _repeat_passes(panels, solver, h, state.sums, beta)
    worse = loss_rate(sample, h, judge, beta) > WORSE * state.loss_rate
    if worse or rows >= 2 * refitted_at:
        refitted_at, refitted = rows, refit_to_sample(sample, rows, h, settings, judge)
        if refitted is not None:
            h, past_sums = sums_after_refit(state.sums, past, before, refitted, solver)
            h, sums = _repeat_passes(panels, solver, h, past_sums, beta)
    rate = loss_rate(sample, h, judge, beta) if refitted_at == rows else state.loss_rate
    sample = reservoir.shrink(sample, len(h), settings.random_state)
    return h, StreamState(sums, sample, state.scale, state.unit, rows, refitted_at, rate)


def _repeat_passes(
    panels: PanelEngine, solver: StreamSolver, h: Array, past: Sums | None, beta: float
) -> tuple[Array, Sums]:
    """Return H after a fixed number of passes over a batch, and the sums of all rows.

    Parameters
    ----------
    past : the sums of earlier rows; None if there are none.
    """
    spec = PassSpec(solver.solve_w, solver)
    for _ in range(REPEATS if beta == 2 else REPEATS_KL):
        sums = panels.run_pass(h, spec)
        if beta != 2 and (lifted := lift_zero_columns(h, np.asarray(sums.gram.any(axis=1)))) is not h:
            h, sums = lifted, panels.run_pass(lifted, spec)
        if past is not None:
            sums = stream_sums.add(sums, past)
        h = solver.update_h(h, sums)
    return h, sums


def _sample_batch(panels: PanelEngine, settings: Settings, most: int) -> tuple[Block, float]:
    """Return a sample of at most ``most`` rows of a batch, and the scale of the batch, 0 if all of it is 0.

    Raises
    ------
    InvalidEntryError, DataError
        If the batch has an entry that no NMF takes; `NothingObserved` if none of its entries counts.
    """
    layout = panels.matrix.layout
    size = min(reservoir.sample_size(layout.stored, layout.rows, settings.n_components), most)
    draw = SampleSpec(layout.rows, size, settings.random_state)
    summary = panels.summarize(draw)
    panels.matrix.check_entries(summary.invalid)
    if not np.any(summary.column_weight):
        raise NothingObserved("the batch has no entry that counts: all are missing or of weight 0")
    weight = float(np.sum(np.broadcast_to(summary.column_weight, layout.columns)))
    scale = scaling.scale_of(summary.total / weight, panels.matrix.dtype) if summary.total > 0 else 0.0
    return row_sample.draw_sample(summary.candidates, draw), scale
