"""The passes of a selection: in each, models that run share the reads of V."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from dask_nmf.execution import partition
from dask_nmf.execution.engines.panels import PanelEngine
from dask_nmf.execution.partition import CutOptions
from dask_nmf.fitting.passes.shared import RunningModel, iter_steps
from dask_nmf.iteration.loop import Passes, Stop
from dask_nmf.planning.model_groups import group_models, ranks_to_plan
from dask_nmf.planning.row_panels import PanelPlan
from dask_nmf.progress import report_shared_pass, report_stage
from dask_nmf.selection.batches.batch_plan import BatchPlan
from dask_nmf.selection.batches.endings import risen_models
from dask_nmf.selection.batches.starts import Fold
from dask_nmf.selection.models import Model, ModelKey, SelectionOptions
from dask_nmf.sources.matrix import Matrix
from dask_nmf.wording import counted

logger = logging.getLogger(__name__)


class BatchPlace(NamedTuple):
    """The place of a batch among all batches."""

    number: int  # from 1
    batches: int
    models: int  # models of the batch


def cut_for_models(
    matrix: Matrix, options: SelectionOptions, ranks: Sequence[int], cut: CutOptions
) -> tuple[PanelEngine, PanelPlan]:
    """Return an engine of panels and its plan; models of these ranks share each read if panels allow.

    Parameters
    ----------
    cut : the options of the cut; its ranks are replaced.
    """
    first, *others = ranks_to_plan(ranks)
    cut = replace(cut, ranks=tuple(ranks), other_ranks=tuple(others))
    return partition.cut_into_panels(matrix, first, None, options.mask_of(0, matrix), cut)


class SharedPasses:
    """The passes over V for models that are in memory together.

    Parameters
    ----------
    planned : the plan of the panels; models that fit the memory of a worker together share a read.
    made : the plan of the batches, with the memory of the client, which limits them too.
    """

    def __init__(
        self,
        engine: PanelEngine,
        planned: PanelPlan,
        options: SelectionOptions,
        folds: Sequence[Fold],
        made: BatchPlan,
    ) -> None:
        self.engine = engine
        self.options = options
        self.folds = folds
        self.planned = planned
        self.made = made

    def run(self, models: dict[ModelKey, Model], place: BatchPlace) -> Iterator[int]:
        """Make passes until all models have ended, and yield the number of passes after each.

        Models are replaced in the dictionary, so that a state is not kept for longer than it is needed. Those
        with fewer passes than others go first.
        """
        while running := [key for key, model in models.items() if model.runs]:
            number = 1 + min(models[key].passes for key in running)
            report_stage(f"pass {number}")
            started = time.monotonic()
            self._make_pass(models, [key for key in running if models[key].passes < number])
            for key in risen_models(models.values(), number, self.options.ranks):
                models[key] = models[key].without_passes()
            for key in running:
                if not models[key].runs:
                    models[key] = models[key].with_factor(models[key].best_factor)
            left = [key for key in running if models[key].runs]
            self._report(number, left, place, time.monotonic() - started)
            yield number

    def _make_pass(self, models: dict[ModelKey, Model], keys: Sequence[ModelKey]) -> None:
        running = [RunningModel(self._passes(models[key]), mask=self.folds[key.fold].mask) for key in keys]
        groups = group_models(self.planned, [key.n_components for key in keys], self.made.memory.share)
        for number, step in iter_steps(self.engine, running, groups, self.made.overlap):
            model = models[keys[number]]
            models[model.key] = model.after(step, self._unit(model))

    def _passes(self, model: Model) -> Passes:
        fold, settings = self.folds[model.key.fold], self.options.settings
        solver = fold.solver(self.options, model.key.n_components, self.engine.matrix)
        stop = Stop(settings.max_iter, settings.tol)
        return Passes(solver, model.state, fold.measures.baseline, stop, model.passes)

    def _unit(self, model: Model) -> float:
        return self.folds[model.key.fold].measures.error_unit(self.options.settings.beta)

    def _report(self, number: int, left: Sequence[ModelKey], place: BatchPlace, seconds: float) -> None:
        ranks = sorted({key.n_components for key in left})
        shown = f"ranks {ranks[0]} to {ranks[-1]}" if ranks else "none"
        of_batch = f" of batch {place.number} of {place.batches}" if place.batches > 1 else ""
        text = (
            f"pass {number}{of_batch}: {len(left)} of {counted(place.models, 'model')} go on "
            f"({shown}), {seconds:.2f} s"
        )
        most = self.options.settings.max_iter
        passes_left = most - number + most * (place.batches - place.number)
        numbers = {
            "event": "shared pass",
            "pass": number,
            "running": len(left),
            "models": place.models,
            "batch": place.number,
            "batches": place.batches,
            "seconds": round(seconds, 3),
            "seconds_left_at_most": round(passes_left * seconds),
        }
        logger.info("%s", text, extra={"nmf": numbers})
        report_shared_pass(text, numbers)
