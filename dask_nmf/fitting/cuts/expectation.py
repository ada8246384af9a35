"""The error, the seconds and the memory that a fit expects of its passes when they begin."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from dask_nmf.execution.partition import Resources, resources
from dask_nmf.fitting.cuts.cut import Cut
from dask_nmf.fitting.starts.problem import Measures
from dask_nmf.fitting.starts.sampled.trial import SampledStart, visited_by_pass
from dask_nmf.planning import worker_memory
from dask_nmf.planning.model_groups import group_models
from dask_nmf.planning.row_panels import PanelPlan
from dask_nmf.sources.matrix import Matrix


def expected_of(
    cut: Cut, measures: Measures, read_seconds: float, sampled: SampledStart | None
) -> dict[str, Any]:
    """Return what is expected of the passes of a start, as JSON holds it; None for what is not known.

    Nothing is read for it: the error and the seconds are those of the sample that the start was fitted to.

    Parameters
    ----------
    read_seconds : of the first read of V.
    sampled : the start from a sample, if the fit has one.

    Returns
    -------
    ``relative_error`` near which the passes should end, ``read_seconds`` and ``pass_seconds``, the
    ``fewest_passes`` and the ``most_passes`` until convergence, ``worker_bytes`` and ``client_bytes``.
    """
    settings = cut.request.settings
    few, many = (None, None) if cut.request.fixed else settings.algorithm.typical_passes or (None, None)
    error = math.nan if sampled is None else sampled.relative_error
    seconds = _pass_seconds(cut, measures, read_seconds, sampled)
    return {
        "relative_error": error if math.isfinite(error) else None,
        "read_seconds": round(read_seconds, 4),
        "pass_seconds": round(seconds, 4) if math.isfinite(seconds) else None,
        "fewest_passes": few and min(few, settings.max_iter),
        "most_passes": many and min(many, settings.max_iter),
        "worker_bytes": int(group_models(cut.plan, cut.ranks).worker_bytes),
        "client_bytes": client_bytes_of(cut),
    }


def _pass_seconds(cut: Cut, measures: Measures, read_seconds: float, sampled: SampledStart | None) -> float:
    """Return the seconds of a pass with what is cached; NaN if its tasks are of another kind than the trial.

    Reading and computing do not overlap in a thread, as `forecasts.costs` has it.
    """
    settings, matrix, plan = cut.request.settings, cut.matrix, cut.plan
    if sampled is None or settings.algorithm.carries_w:
        return math.nan
    offer = cut.request.offer or resources()
    if isinstance(plan, PanelPlan):
        tasks, kept = len(plan.edges) - 1, cached_share(matrix, total_bytes(cut), cut.cache_bytes, offer)
        again = 0.0 if matrix.in_memory else 1 - kept
    else:
        tasks, again = math.prod(plan.shape), float(plan.reads)
    slots = min(offer.workers * offer.threads, tasks)
    visited = visited_by_pass(measures.stored, matrix.layout.rows, settings.n_components)
    return len(cut.ranks) * sampled.pass_seconds(visited, slots) + again * read_seconds


def total_bytes(cut: Cut) -> int:
    """Return the bytes of V and its weights, in memory."""
    weights = cut.request.weights
    return cut.matrix.bytes + (0 if weights is None else weights.bytes)


def cached_share(matrix: Matrix, total: int, cache_bytes: int, offer: Resources) -> float:
    """Return the share of V that is read from storage in the first read only.

    Parameters
    ----------
    total : bytes of V and its weights, in memory.
    cache_bytes : bytes that each worker caches between passes.
    """
    if not matrix.worth_caching or not total:
        return 0.0
    return min(1.0, cache_bytes * offer.workers / total)


def client_bytes_of(cut: Cut) -> int:
    """Return the projected peak bytes of the process that gives workers their tasks."""
    sample = cut.plan.sample_rows if isinstance(cut.plan, PanelPlan) else cut.plan.sample[0]
    layout = replace(cut.matrix.layout, at_client=cut.matrix.bytes_here)
    return worker_memory.client_bytes(layout, cut.ranks, sample)
