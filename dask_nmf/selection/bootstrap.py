"""Standard errors of components by a bootstrap of the rows of V, whose replicates share each read of V."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import count, islice
from math import nan
from typing import Any, NamedTuple, cast

import numpy as np

from dask_nmf.execution.engines.panels import PanelEngine
from dask_nmf.execution.graphs import shared_reads
from dask_nmf.execution.graphs.shared_reads import Replicate
from dask_nmf.execution.partition import resources
from dask_nmf.execution.tasks.block_pass import PassSpec
from dask_nmf.fitting.starts import initialize
from dask_nmf.fitting.starts.problem import NO_FACTORS, Factors, Measures, in_units, make_solver
from dask_nmf.iteration.outcome import Ending, Outcome
from dask_nmf.kernels.blocks.masking import EntryMask
from dask_nmf.kernels.blocks.resampling import Resample, Spread
from dask_nmf.kernels.summary.digests import Digest
from dask_nmf.kernels.summary.row_sample import SampleSpec
from dask_nmf.options.settings import APART, Settings
from dask_nmf.planning.client_memory import ClientMemory
from dask_nmf.planning.model_groups import group_models
from dask_nmf.planning.row_panels import PanelPlan
from dask_nmf.progress import report_shared_pass, report_stage
from dask_nmf.selection.batches.batch_plan import client_memory
from dask_nmf.selection.batches.starts import summaries_of
from dask_nmf.selection.models import Model, ModelKey
from dask_nmf.solvers.solver import RightSolver
from dask_nmf.types import Array

logger = logging.getLogger(__name__)

PASSES = 30  # of each replicate; after 10, standard errors of the digits are a third too small
ENDED = Ending(Outcome.MAX_ITER, "the passes of a bootstrap sample have been made")
FEW = 64  # rows of which a sample may well have none: P(no row) = exp(-rows)


class ErrorBars(NamedTuple):
    """The spread of the components of a fit over bootstrap samples of the rows of V."""

    stderr: Array  # standard error of each entry of H, (k, n), float64
    likeness: Array  # mean cosine of each component with its replicates, (k,), float64
    replicates: int


class Reference(NamedTuple):
    """The finished fit whose components have standard errors, in units of the user."""

    settings: Settings
    mask: EntryMask
    W: Any  # (m, k) Dask array
    H: Array  # (k, n)


def memory_of_replicates(planned: PanelPlan) -> ClientMemory:
    """Return the memory of the client for bootstrap replicates, which begin without samples of rows."""
    without_samples = replace(planned, sample_rows=0, memory=replace(planned.memory, sample_rows=0))
    return client_memory(without_samples, resources(), stored=False)


def check_room_for_replicates(planned: PanelPlan, rank: int, replicates: int) -> None:
    """Refuse replicates of a fit if the client has no room for one, before the models that come first.

    Parameters
    ----------
    planned : the plan of the panels for these models. The one for replicates has panels of the same size if
        nothing limits the memory of workers; if there is a limit, only the layout of V counts.
    rank : the largest rank that the fit may have.

    Raises
    ------
    MemoryError
        If there is no room; the message has both numbers.
    """
    memory_of_replicates(planned).replicates_at_once(rank, replicates)


class Bootstrap:
    """The replicates of a fit: each is fitted to a bootstrap sample of the rows of V, from the finished fit.

    Replicates begin at the components of the fit, so that component t stays component t, and standard errors
    are those of the minimum that the fit has found. As many run at the same time as the client has room for.

    Raises
    ------
    MemoryError
        If it has no room for one; the message has the numbers and the cure.
    """

    def __init__(
        self, engine: PanelEngine, planned: PanelPlan, reference: Reference, replicates: int
    ) -> None:
        self.engine = engine
        self.planned = planned
        self.reference = reference
        matrix, seed = engine.matrix, reference.settings.random_state
        samples = (Resample(seed + (number << APART), matrix.orientation) for number in count())
        some = min(matrix.shape[0], FEW)
        drawn = (sample for sample in samples if some == FEW or not sample.is_empty(some))
        self.samples = list(islice(drawn, replicates))
        self.memory = memory_of_replicates(planned)
        self.at_once = self.memory.replicates_at_once(len(reference.H), replicates)
        self.measures: Measures | None = None

    def first_read(self) -> Digest:
        """Measure V, and return the digest of its content; the engine has the scale of V from then on."""
        matrix, reference = self.engine.matrix, self.reference
        draw = SampleSpec(self.engine.edges[-1], 0, 0)
        (summary,) = summaries_of(self.engine, [reference.mask], draw)
        self.measures = initialize.measures_of(summary, matrix, reference.settings.beta, NO_FACTORS)
        self.engine.scale = self.measures.scale
        return summary.digests[0]

    @property
    def solver(self) -> RightSolver:
        """The solver of all replicates; known after the first read."""
        assert self.measures is not None
        return cast(RightSolver, make_solver(self.reference.settings, self.measures, self.engine.matrix))

    def begin(self) -> list[Model]:
        """Return the replicates before their first pass."""
        matrix, reference, solver = self.engine.matrix, self.reference, self.solver
        W = reference.W.compute() if matrix.orientation.by_columns else None
        _, right = matrix.orientation.turn_factors(W, reference.H)
        h = in_units(Factors(None, right), solver.penalty, matrix.dtype).right
        assert h is not None
        rank = len(reference.H)
        return [
            Model(ModelKey(rank, number, 0), solver.begin(np.ascontiguousarray(sample.of_factor(h))))
            for number, sample in enumerate(self.samples)
        ]

    def run(self, models: list[Model], deadline: float) -> Iterator[int]:
        """Make passes until the replicates have had all, or the time is over; yield the number of each pass.

        Replicates are replaced in the list, so that a state is not kept for longer than it is needed.
        """
        while running := [number for number, model in enumerate(models) if model.passes < PASSES]:
            batch = running[: self.at_once]
            passes = 1 + min(models[number].passes for number in batch)
            report_stage(f"error bars, pass {passes}")
            started = time.monotonic()
            self._make_pass(models, [number for number in batch if models[number].passes < passes])
            self._report(passes, batch, time.monotonic() - started)
            yield passes
            if time.monotonic() >= deadline:
                return

    def _make_pass(self, models: list[Model], numbers: Sequence[int]) -> None:
        """Replace some replicates by what they are after a shared pass; one that has ended has only its H."""
        solver, measures = self.solver, self.measures
        assert measures is not None
        spec = PassSpec(solver.solve_w, solver, mask=self.reference.mask)
        for group in self._groups(numbers):
            first, *more = (models[number].state.h_input for number in group)
            replicates = [Replicate(spec, self.samples[number]) for number in group]
            totals = list(self.engine.compute(first, shared_reads.sweep_replicates(replicates), more_h=more))
            totals.reverse()
            for number in group:
                model = models[number]
                state = solver.update(model.state, totals.pop(), measures.baseline)
                model = replace(model, state=state, history=(*model.history, nan))
                models[number] = model if model.passes < PASSES else _ended(model)

    def _groups(self, numbers: Sequence[int]) -> list[list[int]]:
        """Return the groups of some replicates that share a read."""
        ranks = [len(self.reference.H)] * len(numbers)
        made = group_models(self.planned, ranks, self.memory.share)
        return [[numbers[place] for place in group] for group in made.groups]

    def result(self, models: Sequence[Model]) -> ErrorBars:
        """Return the standard errors of H, once the replicates have had all passes.

        Each replicate of a component is given the sum that the component has, because its scale means
        nothing. If V is cut into panels of columns, this takes two more reads for each group of replicates.
        """
        H = self.reference.H.astype(np.float64)
        if self.engine.matrix.orientation.by_columns:
            stderr, likeness = self._spread_in_panels(models, H)
            return ErrorBars(stderr, likeness, len(models))
        spread, cosines = Spread(), np.zeros(len(H))
        for model in models:
            own = model.state.h.astype(np.float64)
            sums = own.sum(axis=1), (own * own).sum(axis=1), (own * H).sum(axis=1)
            spread = spread.with_sample(own * _scales(H, sums[0])[:, None])
            cosines += _cosines(H, sums[1], sums[2])
        return ErrorBars(spread.deviation, cosines / len(models), len(models))

    def _spread_in_panels(self, models: Sequence[Model], H: Array) -> tuple[Array, Array]:
        solver, engine = self.solver, self.engine
        spec = PassSpec(solver.solve_w_final, solver, mask=self.reference.mask, residual_only=True)
        known, spread = np.ascontiguousarray(H.T), Spread()
        cosines = np.zeros((len(models), len(H)))
        for group in self._groups(range(len(models))):
            replicates = [Replicate(spec, self.samples[number]) for number in group]
            first, *more = (models[number].state.h for number in group)
            sums = engine.compute(first, shared_reads.likeness_of_w(replicates), known, more)
            cosines[group] = _cosines(H, sums[1], sums[2])
            scales = _scales(H, sums[0])
            own = engine.compute(first, shared_reads.spread_of_w(replicates, scales), more_h=more)
            spread = spread.merged(own)
        return spread.deviation.T, cosines.mean(axis=0)

    def _report(self, number: int, batch: Sequence[int], seconds: float) -> None:
        every = len(self.samples)
        part = f"{batch[0] + 1} to {batch[-1] + 1} of " if len(batch) < every else ""
        text = f"error bars, pass {number} of {PASSES}: {part}{every} bootstrap samples, {seconds:.2f} s"
        numbers = {"event": "error bars", "pass": number, "models": len(batch), "seconds": round(seconds, 3)}
        logger.info("%s", text, extra={"nmf": numbers})
        report_shared_pass(text, numbers)


def _ended(model: Model) -> Model:
    """Return a replicate that has had all passes, with its H alone."""
    return replace(model.with_factor(model.state.h), ending=ENDED)


def _scales(H: Array, sums: Array) -> Array:
    """Return the factors that give components with these sums the sums of H (k, n); 0 for a sum of 0."""
    scales: Array = np.divide(H.sum(axis=1), sums, out=np.zeros_like(sums), where=sums > 0)
    return scales


def _cosines(H: Array, squares: Array, products: Array) -> Array:
    """Return the cosines of components with those of H (k, n), from Σ x² and Σ x h; 0 for one of zeros."""
    norms = np.sqrt(squares * (H * H).sum(axis=1))
    cosines: Array = np.divide(products, norms, out=np.zeros_like(norms), where=norms > 0)
    return cosines
