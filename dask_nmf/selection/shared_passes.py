"""The passes of a selection: in each, one read of V serves all models that still run."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

from dask_nmf.execution import partition
from dask_nmf.execution.engines.panels import PanelEngine
from dask_nmf.execution.partition import CutOptions
from dask_nmf.fitting.passes.shared import RunningModel, make_shared_pass
from dask_nmf.iteration.loop import Passes, Stop
from dask_nmf.planning.model_groups import ranks_to_plan
from dask_nmf.planning.row_panels import PanelPlan
from dask_nmf.progress import report_shared_pass, report_stage
from dask_nmf.quality.recommend import finished_ranks
from dask_nmf.selection.models import Model, SelectionOptions
from dask_nmf.selection.starts import Fold
from dask_nmf.sources.matrix import Matrix

logger = logging.getLogger(__name__)

SETTLED = 3  # passes after which held-out errors are compared between ranks


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
    """The passes over V for all models of a selection.

    Parameters
    ----------
    planned : the plan of the panels; models that fit the memory of a worker together share a read.
    """

    def __init__(
        self, engine: PanelEngine, planned: PanelPlan, options: SelectionOptions, folds: Sequence[Fold]
    ) -> None:
        self.engine = engine
        self.options = options
        self.folds = folds
        self.planned = planned

    def run(self, models: Sequence[Model], deadline: float) -> Iterator[list[Model]]:
        """Yield the models after each shared pass, until all have ended.

        The pass that is running when the time is over is the last one, so that each call makes a pass.
        """
        number = max((model.passes for model in models), default=0)
        while any(model.runs for model in models):
            number += 1
            report_stage(f"pass {number}")
            started = time.monotonic()
            models = self._without_risen(self._after_pass(models))
            self._report(number, models, time.monotonic() - started)
            yield list(models)
            if time.monotonic() >= deadline:
                return

    def _after_pass(self, models: Sequence[Model]) -> list[Model]:
        after = {number: model for number, model in enumerate(models) if model.runs}
        running = [
            RunningModel(self._passes(model), mask=self.folds[model.key.fold].mask)
            for model in after.values()
        ]
        steps = make_shared_pass(self.engine, self.planned, running)
        for (number, model), step in zip(list(after.items()), steps, strict=True):
            after[number] = model.after(step, self._unit(model))
        return [after.get(number, model) for number, model in enumerate(models)]

    def _passes(self, model: Model) -> Passes:
        fold, settings = self.folds[model.key.fold], self.options.settings
        solver = fold.solver(self.options, model.key.n_components, self.engine.matrix)
        stop = Stop(settings.max_iter, settings.tol)
        return Passes(solver, model.state, fold.measures.baseline, stop, model.passes)

    def _unit(self, model: Model) -> float:
        return self.folds[model.key.fold].measures.error_unit(self.options.settings.beta)

    def _without_risen(self, models: Sequence[Model]) -> list[Model]:
        """Return the models, those of ranks ended whose held-out error has clearly risen."""
        settled = [model for model in models if model.passes >= SETTLED or not model.runs]
        if len(settled) < len(models):
            return list(models)
        risen = finished_ranks([model.trial for model in models], self.options.ranks)
        return [
            model.without_passes() if model.runs and model.key.n_components in risen else model
            for model in models
        ]

    def _report(self, number: int, models: Sequence[Model], seconds: float) -> None:
        running = sum(model.runs for model in models)
        ranks = sorted({model.key.n_components for model in models if model.runs})
        left = f"ranks {ranks[0]} to {ranks[-1]}" if ranks else "none"
        text = f"pass {number}: {running} of {len(models)} models go on ({left}), {seconds:.2f} s"
        numbers = {
            "event": "shared pass",
            "pass": number,
            "running": running,
            "models": len(models),
            "seconds": round(seconds, 3),
            "seconds_left_at_most": round((self.options.settings.max_iter - number) * seconds),
        }
        logger.info("%s", text, extra={"nmf": numbers})
        report_shared_pass(text, numbers)
