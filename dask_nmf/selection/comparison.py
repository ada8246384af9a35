"""The comparison of the models of a selection: their errors, and how far the models of a rank agree."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from math import isnan
from typing import Any, NamedTuple

import numpy as np

from dask_nmf.errors import DataError
from dask_nmf.execution import engine as engines
from dask_nmf.execution.engines.panels import PanelEngine
from dask_nmf.execution.graphs import passes, shared_reads
from dask_nmf.planning.model_groups import group_models
from dask_nmf.planning.row_panels import PanelPlan
from dask_nmf.quality import clusters, consensus, matching
from dask_nmf.quality.matching import Stability
from dask_nmf.quality.recommend import Recommendation, recommend_rank
from dask_nmf.runs.record.states import or_none
from dask_nmf.selection.models import Model, SelectionOptions, of_rank
from dask_nmf.selection.starts import Fold
from dask_nmf.types import Array


class Agreement(NamedTuple):
    """How far the models of one rank agree, and the components that they agree on."""

    stability: Stability | None  # None for a single model
    clusters: consensus.Consensus | None


class Findings(NamedTuple):
    """The findings of a comparison of models.

    Attributes
    ----------
    table : the recommendation, with a row for each rank and each model, as JSON holds it.
    clusters : (models, rows) the largest component in some rows of V by each model; -1: none.
    factor : (k, columns) the factor of the model of the recommended rank that is most like the others: H, or
        Wᵀ if V is cut into panels of columns. The final fit begins with it.
    """

    table: dict[str, Any]
    clusters: Array
    factor: Array

    @property
    def complete(self) -> bool:
        """Whether all models have ended."""
        return all(row["message"] is not None for row in self.table["models"])


def best_factor(model: Model) -> Array:
    """Return the factor of a model that all panels are given, (k, columns): that of the least held-out error.

    It is H, or Wᵀ if V is cut into panels of columns.
    """
    return np.ascontiguousarray(model.state.best[0][: model.key.n_components])


def cluster_rows(
    engine: PanelEngine,
    planned: PanelPlan,
    options: SelectionOptions,
    folds: Sequence[Fold],
    models: Sequence[Model],
) -> list[Array]:
    """Return the component with the largest share in each of some rows of V, (rows,), for each model.

    The rows are drawn by a hash of their index, and are the same for all models. This takes one read for each
    group of models that fits the memory of a worker.
    """
    rows = consensus.sample_rows(engine.matrix.shape[0], options.settings.random_state)
    found: dict[int, Array] = {}
    for group in group_models(planned, [model.key.n_components for model in models]).groups:
        requests = [
            _final(model, folds[model.key.fold], options, engine)
            for model in (models[number] for number in group)
        ]
        found |= zip(group, _clusters(engine, requests, rows), strict=True)
    return [found[number] for number in range(len(models))]


def _clusters(engine: PanelEngine, requests: Sequence[engines.Model], rows: Array) -> list[Array]:
    """Return the component with the largest share in each of some rows for models that share a read."""
    if not engine.matrix.orientation.by_columns:
        specs = [passes.spec_of(request) for request in requests]
        right = [request.state.h_input for request in requests]
        parts: list[Array] = engine.compute(right[0], shared_reads.w_of_rows(specs, rows), more_h=right[1:])
        return [
            clusters.largest_components(w, clusters.component_sizes(request.state.h_input))
            for w, request in zip(parts, requests, strict=True)
        ]
    found = []
    for request, totals in zip(requests, engine.sweep(requests), strict=True):
        sizes = np.sqrt(np.asarray(totals.w_sq_norm))
        found.append(clusters.largest_components(request.state.h_input.T[rows], sizes))
    return found


def _final(model: Model, fold: Fold, options: SelectionOptions, engine: PanelEngine) -> engines.Model:
    solver = fold.solver(options, model.key.n_components, engine.matrix)
    h = best_factor(model)
    return engines.Model(solver, replace(model.state, h=h, h_input=h), mask=fold.mask)


def compare(models: Sequence[Model], folds: Sequence[Fold], labels: Iterable[Array]) -> Findings:
    """Return the recommended rank, and how far the models of each rank agree.

    Parameters
    ----------
    labels : the clusters of some rows of V by each model: see `cluster_rows`.

    Raises
    ------
    DataError
        If no entry of V is held out.
    """
    labels = list(labels)
    if all(isnan(model.validation_error) for model in models):
        raise DataError("no entry of V that counts is held out; give a larger holdout")
    ranks = sorted({model.key.n_components for model in models})
    agreement = {rank: _agreement(models, labels, rank) for rank in ranks}
    stability = {
        rank: found.stability.stability for rank, found in agreement.items() if found.stability is not None
    }
    recommendation = recommend_rank([model.trial for model in models], stability)
    start = _most_typical(models, agreement, recommendation.n_components)
    factor = best_factor(start) * folds[start.key.fold].measures.units[1]
    table = _table_of(models, recommendation, agreement)
    return Findings(table, np.stack(labels), np.asarray(factor, best_factor(start).dtype))


def _agreement(models: Sequence[Model], labels: Iterable[Array], rank: int) -> Agreement:
    own = of_rank(models, rank)
    if len(own) < 2:
        return Agreement(None, None)
    losses = [model.trial.training_error for model in own]
    stability = matching.match_runs([best_factor(model) for model in own], losses)
    of_model = {model.key: label for model, label in zip(models, labels, strict=True)}
    agreed = consensus.agreement([of_model[model.key] for model in own])
    return Agreement(stability, agreed._replace(matrix=np.empty((0, 0))))  # it may have 32 MB


def _most_typical(models: Sequence[Model], agreement: dict[int, Agreement], rank: int) -> Model:
    """Return the model of a rank that is most like the others."""
    own = of_rank(models, rank)
    stability = agreement[rank].stability
    return own[0 if stability is None else stability.medoid]


def _table_of(
    models: Sequence[Model], recommendation: Recommendation, agreement: dict[int, Agreement]
) -> dict[str, Any]:
    """Return the findings as JSON holds them: the recommendation, a row for each rank and each model."""
    table = recommendation.to_dict()
    ranks = table.pop("table")
    for row in ranks:
        found = agreement[row["n_components"]]
        for name in ("cophenetic", "dispersion", "ambiguous"):
            row[name] = None if found.clusters is None else or_none(getattr(found.clusters, name))
        row["component_stability"] = (
            None if found.stability is None else found.stability.component_stability.tolist()
        )
    models_part = [
        {
            **model.key._asdict(),
            "passes": model.passes,
            "held_out_error": or_none(model.trial.held_out_error),
            "training_error": or_none(model.trial.training_error),
            "message": model.ending.message if model.ending else None,
        }
        for model in models
    ]
    return {**table, "ranks": ranks, "models": models_part}
