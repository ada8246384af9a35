"""The comparison of the models of a selection: their errors, and how far the models of a rank agree."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from dask_nmf.execution import engine as engines
from dask_nmf.execution.engines.panels import PanelEngine
from dask_nmf.execution.graphs import passes, shared_reads
from dask_nmf.quality import clusters, consensus, matching
from dask_nmf.quality.matching import Stability
from dask_nmf.quality.recommend import Recommendation, recommend_rank
from dask_nmf.selection.models import Model, SelectionOptions, of_rank
from dask_nmf.selection.starts import Fold
from dask_nmf.types import Array


class Agreement(NamedTuple):
    """How far the models of one rank agree, and the components that they agree on."""

    stability: Stability | None  # None for a single model
    clusters: consensus.Consensus | None


def best_factor(model: Model) -> Array:
    """Return the factor of a model that all panels are given, (k, columns): that of the least held-out error.

    It is H, or Wᵀ if V is cut into panels of columns.
    """
    return np.ascontiguousarray(model.state.best[0][: model.key.n_components])


def cluster_rows(
    engine: PanelEngine, options: SelectionOptions, folds: Sequence[Fold], models: Sequence[Model]
) -> list[Array]:
    """Return the component with the largest share in each of some rows of V, (rows,), for each model.

    The rows are drawn by a hash of their index, and are the same for all models. This takes one read.
    """
    matrix = engine.matrix
    rows = consensus.sample_rows(matrix.shape[0], options.settings.random_state)
    requests = [_final(model, folds[model.key.fold], options, engine) for model in models]
    if not matrix.orientation.by_columns:
        specs = [passes.spec_of(request) for request in requests]
        right = [request.state.h_input for request in requests]
        parts: list[Array] = engine.compute(
            right[0],
            lambda inputs: shared_reads.w_of_rows(engine.tasks, inputs, specs, rows),
            more_h=right[1:],
        )
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


def compare(models: Sequence[Model], labels: Iterable[Array]) -> tuple[Recommendation, dict[int, Agreement]]:
    """Return the recommended rank, and how far the models of each rank agree.

    Parameters
    ----------
    labels : the clusters of some rows of V by each model: see `cluster_rows`.
    """
    labels = list(labels)
    ranks = sorted({model.key.n_components for model in models})
    agreement = {rank: _agreement(models, labels, rank) for rank in ranks}
    stability = {
        rank: found.stability.stability for rank, found in agreement.items() if found.stability is not None
    }
    return recommend_rank([model.trial for model in models], stability), agreement


def _agreement(models: Sequence[Model], labels: Iterable[Array], rank: int) -> Agreement:
    own = of_rank(models, rank)
    if len(own) < 2:
        return Agreement(None, None)
    losses = [model.trial.training_error for model in own]
    stability = matching.match_runs([best_factor(model) for model in own], losses)
    of_model = {model.key: label for model, label in zip(models, labels, strict=True)}
    agreed = consensus.agreement([of_model[model.key] for model in own])
    return Agreement(stability, agreed._replace(matrix=np.empty((0, 0))))  # it may have 32 MB


def start_of_fit(models: Sequence[Model], agreement: dict[int, Agreement], rank: int) -> Array:
    """Return the factor with which the final fit begins: that of the model that is most like the others."""
    own = of_rank(models, rank)
    stability = agreement[rank].stability
    return best_factor(own[0 if stability is None else stability.medoid])


def table_of(
    models: Sequence[Model], recommendation: Recommendation, agreement: dict[int, Agreement]
) -> dict[str, Any]:
    """Return the findings as JSON holds them: the recommendation, a row for each rank and each model."""
    table = recommendation.to_dict()
    for row in table["table"]:
        found = agreement[row["n_components"]]
        row.update(dict.fromkeys(("cophenetic", "dispersion", "ambiguous")))
        if found.clusters is not None:
            for name in ("cophenetic", "dispersion", "ambiguous"):
                value = getattr(found.clusters, name)
                row[name] = None if np.isnan(value) else value
        row["component_stability"] = (
            None if found.stability is None else found.stability.component_stability.tolist()
        )
    models_part = [
        {
            **model.key._asdict(),
            "passes": model.passes,
            "validation_error": model.validation_error,
            "relative_error": model.history[-1] if model.history else None,
            "message": model.ending.message if model.ending else None,
        }
        for model in models
    ]
    return {**table, "models": models_part}
