"""The rule that ends the models of ranks whose held-out error has clearly risen."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from dask_nmf.quality.recommend import Trial, finished_ranks
from dask_nmf.selection.models import Model, ModelKey, Pair

SETTLED = 3  # passes after which held-out errors are compared between ranks


def risen_models(models: Iterable[Model], passes: int, ranks: Sequence[int]) -> set[ModelKey]:
    """Return which models are to end after some passes, because the error of their rank has clearly risen.

    A model is compared with those of its own pair of start and fold, and of the pairs before that, by the
    errors that all of them had after as many passes, or at their end. So the answer does not depend on which
    pairs are fitted at the same time.

    Parameters
    ----------
    models : all models that have begun; those that run have had at least as many passes.
    passes : the number of passes of the models that may end.
    ranks : all ranks of the selection.
    """
    if passes < SETTLED:
        return set()
    pairs: dict[Pair, list[Model]] = {}
    for model in models:
        pairs.setdefault(model.key.pair, []).append(model)
    trials: list[Trial] = []
    risen: set[ModelKey] = set()
    for pair in sorted(pairs):
        trials += [model.trial_after(passes) for model in pairs[pair]]
        may_end = [model.key for model in pairs[pair] if model.runs and model.passes == passes]
        if may_end:
            finished = finished_ranks(trials, ranks)
            risen |= {key for key in may_end if key.n_components in finished}
    return risen
