"""The comparison of the models of a selection: their errors, and how far the models of a rank agree."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import isnan
from typing import Any, NamedTuple

import numpy as np

from dask_nmf.errors import DataError
from dask_nmf.execution import engine as engines
from dask_nmf.execution.engines.panels import PanelEngine
from dask_nmf.execution.graphs import passes, shared_reads
from dask_nmf.planning.model_groups import ModelGroups
from dask_nmf.quality import clusters, consensus, matching
from dask_nmf.quality.matching import Stability
from dask_nmf.quality.recommend import Recommendation, compared_trials, recommend_rank
from dask_nmf.runs.record.states import or_none
from dask_nmf.selection.batches.starts import Fold
from dask_nmf.selection.models import Model, ModelKey, SelectionOptions
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


class Fits(NamedTuple):
    """The models of a selection, and a function that returns the best factor of one, (k, columns).

    Factors may be in a store, so that only some of them are in memory at once.
    """

    models: list[Model]
    factor_of: Callable[[Model], Array]

    def of_rank(self, rank: int) -> list[Model]:
        """Return the models of a rank that have made a pass, in their order."""
        return [model for model in self.models if model.key.n_components == rank and model.passes]


def cluster_rows(
    fits: Fits,
    engine: PanelEngine,
    groups: ModelGroups,
    options: SelectionOptions,
    folds: Sequence[Fold],
) -> list[Array]:
    """Return the component with the largest share in each of some rows of V, (rows,), for each model.

    The rows are drawn by a hash of their index, and are the same for all models. This takes one read for each
    group. Models that have not made a pass have no largest component, which is -1.

    Parameters
    ----------
    groups : the groups of models that may share a read.
    """
    rows = consensus.sample_rows(engine.matrix.shape[0], options.settings.random_state)
    found: dict[int, Array] = {}
    for numbers in groups.groups:
        group = [number for number in numbers if fits.models[number].passes]
        models = [fits.models[number] for number in group]
        if models:
            requests = [
                _final(model.with_factor(fits.factor_of(model)), folds[model.key.fold], options, engine)
                for model in models
            ]
            found |= zip(group, _clusters(engine, requests, rows), strict=True)
    none = np.full(len(rows), -1)
    return [found.get(number, none) for number in range(len(fits.models))]


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
    return engines.Model(solver, model.state, mask=fold.mask)


def compare(fits: Fits, folds: Sequence[Fold], labels: Iterable[Array]) -> Findings:
    """Return the recommended rank, and how far the models of each rank agree, but for starts that failed.

    Parameters
    ----------
    labels : the clusters of some rows of V by each model: see `cluster_rows`.

    Raises
    ------
    DataError
        If no entry of V is held out.
    """
    labels, models = list(labels), fits.models
    if all(isnan(model.validation_error) for model in models):
        raise DataError("no entry of V that counts is held out; give a larger holdout")
    ranks = sorted({model.key.n_components for model in models})
    counted = compared_trials(model.trial for model in models)
    labelled = {model.key: own for model, own in zip(models, labels, strict=True)}
    kept = fits._replace(
        models=[model for model in models if model.key.pair in counted.get(model.key.n_components, {})]
    )
    agreement = {rank: _agreement(kept, labelled, rank) for rank in ranks}
    stability = {
        rank: found.stability.stability for rank, found in agreement.items() if found.stability is not None
    }
    recommendation = recommend_rank([model.trial for model in models], stability)
    start = _most_typical(kept, agreement, recommendation.n_components)
    own = fits.factor_of(start)
    factor = np.asarray(own * folds[start.key.fold].measures.units[1], own.dtype)
    return Findings(_table_of(models, recommendation, agreement), np.stack(labels), factor)


def _agreement(fits: Fits, labels: Mapping[ModelKey, Array], rank: int) -> Agreement:
    own = fits.of_rank(rank)
    if len(own) < 2:
        return Agreement(None, None)
    losses = [model.trial.training_error for model in own]
    found = matching.match_runs([fits.factor_of(model) for model in own], losses)
    stability = found._replace(components=np.empty((0, 0)))  # they are those of a model, in float64
    agreed = consensus.agreement([labels[model.key] for model in own])
    return Agreement(stability, agreed._replace(matrix=np.empty((0, 0))))  # it may have 32 MB


def _most_typical(fits: Fits, agreement: dict[int, Agreement], rank: int) -> Model:
    """Return the model of a rank that is most like the others."""
    own = fits.of_rank(rank)
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
