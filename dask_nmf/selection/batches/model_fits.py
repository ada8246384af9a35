"""The fits of all models of a selection, batch after batch, so that few are in memory at once."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from dask_nmf.execution.engines.panels import PanelEngine
from dask_nmf.planning.row_panels import PanelPlan
from dask_nmf.progress import report_stage
from dask_nmf.selection.batches.batch_plan import BatchPlan, pairs_of
from dask_nmf.selection.batches.shared_passes import BatchPlace, SharedPasses
from dask_nmf.selection.batches.starts import FirstRead, starts_in_fold
from dask_nmf.selection.models import Model, ModelKey, Pair, SelectionOptions
from dask_nmf.selection.stored.store import SelectionStore
from dask_nmf.solvers.parts.state import State
from dask_nmf.types import Array


class ModelFits:
    """The fits of all models of a selection.

    Models of as many pairs of start and fold as the client has room for make a batch. Batches are fitted one
    after another, and of a model that has ended only its best factor is kept, in the store if there is one.

    Attributes
    ----------
    models : the models that have begun, by their keys; those that have ended may be without arrays.
    """

    def __init__(
        self,
        engine: PanelEngine,
        options: SelectionOptions,
        found: FirstRead,
        keys: Sequence[ModelKey],
        store: SelectionStore | None,
    ) -> None:
        self.engine = engine
        self.options = options
        self.found = found
        self.keys = keys
        self.store = store
        stored = {} if store is None else store.models(self._begin)
        self.models = {key: model for key, model in stored.items() if not model.runs}
        self._interrupted = {key: model for key, model in stored.items() if model.runs}

    def run(self, planned: PanelPlan, made: BatchPlan, deadline: float) -> None:
        """Make passes until all models have ended or the time is over.

        The pass that is running when the time is over is the last one, so that each call makes a pass.
        """
        shared = SharedPasses(self.engine, planned, self.options, self.found.folds, made)
        for number, keys in enumerate(made.batches, 1):
            self._begin_batch(keys)
            for passes in shared.run(self.models, BatchPlace(number, len(made.batches), len(keys))):
                self._commit(passes)
                if time.monotonic() >= deadline:
                    return

    def in_order(self) -> list[Model]:
        """Return all models, also those that have not begun, which are without arrays."""
        return [self.models.get(key) or Model(key, self._begin(key)) for key in self.keys]

    def factor_of(self, model: Model) -> Array:
        """Return the best factor of a model that has begun, (k, columns)."""
        if model.in_memory:
            return model.best_factor
        assert self.store is not None
        return self.store.factor(model.key)

    def _begin(self, key: ModelKey) -> State[Any]:
        """Return a state of a model that has no arrays."""
        solver = self.found.folds[key.fold].solver(self.options, key.n_components, self.engine.matrix)
        return solver.begin(np.empty((key.n_components, 0), self.engine.matrix.dtype))

    def _begin_batch(self, keys: Sequence[ModelKey]) -> None:
        """Add the models of a batch: those that were interrupted go on, the others start."""
        if any(key not in self._interrupted for key in keys):
            report_stage("starts")
        for pair, own in pairs_of(keys).items():
            new = [key for key in own if key not in self._interrupted]
            self.models |= dict(self._started(pair, new))
            for key in own:
                if key in self._interrupted:
                    assert self.store is not None
                    self.models[key] = self.store.with_arrays(self._interrupted[key])
        self._interrupted = {}  # the models of later batches begin anew: a commit keeps those of one batch

    def _started(self, pair: Pair, keys: Sequence[ModelKey]) -> Iterator[tuple[ModelKey, Model]]:
        """Yield the models of a pair before their first pass."""
        if not keys:
            return
        start, fold = pair
        starts = starts_in_fold(
            self.found.samples[fold], self.found.folds[fold], self.options, start, self.engine
        )
        for key in keys:
            solver = self.found.folds[fold].solver(self.options, key.n_components, self.engine.matrix)
            yield key, Model(key, solver.begin(starts[key.n_components]))

    def _commit(self, passes: int) -> None:
        """Commit the models after a shared pass, if there is a store; it keeps those that have ended."""
        if self.store is None:
            return
        self.store.commit_models(passes, self.in_order())
        for key, model in self.models.items():
            if not model.runs and model.in_memory:
                self.models[key] = model.without_arrays()
