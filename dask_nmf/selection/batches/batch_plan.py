"""The plan of the fits of a selection: batches of models, and the groups that share a read in each."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from dask_nmf.execution.partition import Resources
from dask_nmf.planning.client_memory import ClientMemory
from dask_nmf.planning.model_groups import ModelGroups, group_models
from dask_nmf.planning.row_panels import PanelPlan
from dask_nmf.planning.worker_memory import MIB
from dask_nmf.selection.models import ModelKey, Pair

logger = logging.getLogger(__name__)


class BatchPlan(NamedTuple):
    """The batches of models, which are fitted one after another.

    Attributes
    ----------
    batches : the models of each; all ranks of a pair of start and fold are in the same one.
    groups : the groups of models that share a read while all of them run, by their number among the models
        of all batches.
    client_bytes : projected peak memory of the client.
    memory : the memory of the client.
    overlap : whether the models of a group may be updated during the read of the next one.
    """

    batches: tuple[tuple[ModelKey, ...], ...]
    groups: ModelGroups
    client_bytes: int
    memory: ClientMemory
    overlap: bool = True

    @property
    def keys(self) -> list[ModelKey]:
        """The models of all batches."""
        return [key for batch in self.batches for key in batch]

    def log(self) -> None:
        """Write to the log in how many batches models are fitted, and what the client may take."""
        taken, room = self.client_bytes // MIB, int(self.memory.room) // MIB
        number = len(self.batches)
        parts = "all models at once" if number == 1 else f"{number} batches of models, one after another"
        logger.info("%s; the client may take up to %d MiB of %d MiB", parts, taken, room)


def pairs_of(keys: Iterable[ModelKey]) -> dict[Pair, list[ModelKey]]:
    """Return models by their pair of start and fold, in the order in which pairs are fitted."""
    pairs: dict[Pair, list[ModelKey]] = {}
    for key in keys:
        pairs.setdefault(key.pair, []).append(key)
    return {pair: pairs[pair] for pair in sorted(pairs)}


def plan_batches(
    planned: PanelPlan, keys: Sequence[ModelKey], ended: Collection[ModelKey], offer: Resources, stored: bool
) -> BatchPlan:
    """Return the plan of the models that have not ended.

    Parameters
    ----------
    planned : the plan of the panels.
    keys : all models.
    ended : the models that have ended.
    stored : whether the selection has a store.

    Raises
    ------
    MemoryError
        If the client has no room for the models of one pair of start and fold, or for their comparison.
    """
    memory, every = client_memory(planned, offer, stored), [key.n_components for key in keys]
    groups_of_all = group_models(planned, every, memory.share).groups
    memory = memory.with_groups([[every[number] for number in group] for group in groups_of_all])
    pairs = list(pairs_of(key for key in keys if key not in ended).values())
    ranks = [[key.n_components for key in pair] for pair in pairs]
    made = memory.plan(ranks, [key.n_components for key in ended])
    batches = tuple(tuple(sorted(key for pair in batch for key in pairs[pair])) for batch in made.batches)
    parts = [group_models(planned, [key.n_components for key in batch], memory.share) for batch in batches]
    groups = _joined(parts, [len(batch) for batch in batches])
    return BatchPlan(batches, groups, made.client_bytes, memory, made.overlap)


def _joined(parts: Sequence[ModelGroups], sizes: Sequence[int]) -> ModelGroups:
    """Return the groups of all batches, with models numbered through."""
    groups: list[tuple[int, ...]] = []
    first = 0
    for part, size in zip(parts, sizes, strict=True):
        groups += [tuple(first + number for number in group) for group in part.groups]
        first += size
    most = max((part.worker_bytes for part in parts), default=0)
    return ModelGroups(tuple(groups), most, sum(part.reads for part in parts))


def client_memory(planned: PanelPlan, offer: Resources, stored: bool) -> ClientMemory:
    """Return the memory of the client; ``stored``: whether factors of models that have ended are stored."""
    layout, here = planned.memory.layout, offer.memory_limit is None and offer.here > 0
    row = layout.panel_bytes(0, layout.rows) / max(1, layout.rows)
    workers = planned.memory if here else None
    return ClientMemory(layout, offer.client_room, int(planned.sample_rows * row), stored, workers)
