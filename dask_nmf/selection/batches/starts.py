"""The folds of a selection, and the starts of its models from samples of V."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from dask_nmf import rng
from dask_nmf.errors import DataError
from dask_nmf.execution.engines.panels import PanelEngine
from dask_nmf.execution.graphs import shared_reads
from dask_nmf.fitting.starts import initialize
from dask_nmf.fitting.starts.problem import (
    NO_FACTORS,
    Measures,
    make_solver,
    penalty_of_fit,
    penalty_of_sample,
)
from dask_nmf.fitting.starts.sampled.rank_starts import starts_of_ranks
from dask_nmf.fitting.starts.sampled.sample_start import lift_columns, random_factor
from dask_nmf.kernels.blocks import masking
from dask_nmf.kernels.blocks.masking import EntryMask
from dask_nmf.kernels.summary import masked_summary, row_sample
from dask_nmf.kernels.summary.digests import Digest
from dask_nmf.kernels.summary.row_sample import SampleSpec, Summary
from dask_nmf.options.settings import Settings
from dask_nmf.selection.models import SelectionOptions
from dask_nmf.solvers.parts.penalties import Penalty
from dask_nmf.solvers.solver import Solver, factor_scale
from dask_nmf.sources.matrix import Matrix
from dask_nmf.types import Array, Block


class Fold(NamedTuple):
    """The entries that count in a fold, and the measures of V over them."""

    mask: EntryMask
    measures: Measures

    def solver(self, options: SelectionOptions, rank: int, matrix: Matrix) -> Solver:
        """Return the solver of the models of a rank."""
        return make_solver(options.settings_of(rank, 0), self.measures, matrix)


class FirstRead(NamedTuple):
    """The findings of the first read of V."""

    folds: list[Fold]
    samples: list[Block | None]  # rows of V, scaled, by fold; None if a sample has no entry that counts
    digests: tuple[Digest, ...]


def first_read(engine: PanelEngine, options: SelectionOptions, sample_rows: int) -> FirstRead:
    """Check, measure and digest V, and draw a sample of its rows for each fold, in one read.

    The panels are multiplied by the scale of V from then on.

    Raises
    ------
    InvalidEntryError
        For the first entry that is negative or not finite.
    DataError
        If no entry is held out in a fold.
    """
    matrix, settings = engine.matrix, options.settings
    masks = [options.mask_of(fold, matrix) for fold in range(options.folds)]
    draw = SampleSpec(engine.edges[-1], sample_rows, settings.random_state)
    summaries = summaries_of(engine, masks, draw)
    matrix.check_entries(summaries[0].invalid)
    if settings.missing is None:
        _check_held_out(summaries, matrix, options.holdout)
    measures = [initialize.measures_of(summary, matrix, settings.beta, NO_FACTORS) for summary in summaries]
    scale = measures[0].scale
    folds, samples = [], []
    for mask, own, summary in zip(masks, measures, summaries, strict=True):
        folds.append(Fold(mask, at_scale(own, scale, settings.beta)))
        sample = masking.scaled_copy(row_sample.draw_sample(summary.candidates, draw), scale)
        usable = sample.shape[0] and np.any(masked_summary.summarize_block(sample).column_weight)
        samples.append(sample if usable else None)
    engine.scale = scale
    initialize.log_summary(folds[0].measures)
    return FirstRead(folds, samples, summaries[0].digests)


def _check_held_out(summaries: Sequence[Summary], matrix: Matrix, holdout: float) -> None:
    """Refuse a fold in which every entry of V counts, so that none is held out."""
    rows, columns = matrix.layout.rows, matrix.layout.columns
    for summary in summaries:
        if np.broadcast_to(summary.column_weight, columns).sum() == rows * columns:
            raise DataError(
                f"no entry of V is held out: holdout is {holdout} and V is {matrix.shape[0]} x "
                f"{matrix.shape[1]}; give a larger holdout"
            )


def summaries_of(engine: PanelEngine, masks: Sequence[EntryMask], draw: SampleSpec) -> list[Summary]:
    """Return the summary of V for each mask, all in one read."""
    no_h = np.empty((0, engine.matrix.layout.columns))
    summaries: list[Summary] = engine.compute(no_h, shared_reads.summarize_for(draw, masks))
    return summaries


def at_scale(measures: Measures, scale: float, beta: float) -> Measures:
    """Return measures of V with another scale, so that all folds have one.

    The scales of two folds may differ by a factor of two, where the mean of V is between two powers of two.
    """
    ratio = scale / measures.scale
    unit = measures.right_unit * ratio**-0.5
    return measures._replace(scale=scale, right_unit=unit, baseline=measures.baseline * ratio**beta)


def starts_in_fold(
    sample: Block | None, fold: Fold, options: SelectionOptions, start: int, engine: PanelEngine
) -> dict[int, Array]:
    """Return an H (k, n) for each rank; ``sample`` is None for random ones."""
    matrix, rows, ranks = engine.matrix, engine.edges[-1], options.ranks
    _, stream = matrix.orientation.turn((rng.Stream.W_FACTOR, rng.Stream.H_FACTOR))
    settings = options.settings_of(max(ranks), start)
    if sample is None:
        return {rank: _random_start(rank, settings, fold.measures, matrix, stream) for rank in ranks}

    def penalty_of(settings: Settings) -> Penalty:
        return penalty_of_sample(penalty_of_fit(settings, fold.measures, matrix), sample, rows)

    starts = starts_of_ranks(sample, ranks, settings, penalty_of, stream)
    if settings.beta == 2:
        return starts
    return {rank: lift_columns(h, settings.random_state, stream) for rank, h in starts.items()}


def _random_start(rank: int, settings: Settings, measures: Measures, matrix: Matrix, stream: int) -> Array:
    columns, size = np.arange(matrix.layout.columns), factor_scale(measures.level, rank)
    return np.ascontiguousarray(
        random_factor(settings.random_state, columns, rank, size, stream).T, matrix.dtype
    )
