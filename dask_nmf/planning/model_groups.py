"""Groups of models that share the reads of V, as many in each as fit the memory of a worker."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf
from typing import NamedTuple, Protocol

from dask_nmf.planning.worker_memory import MIB


class PassMemory(Protocol):
    """The memory of a worker in a pass over a V that is cut already."""

    @property
    def room(self) -> float:
        """The bytes that a worker may fill; infinite if nothing limits it."""
        ...

    def worker_bytes(self, ranks: Sequence[int]) -> int:
        """Return the projected peak bytes of a worker in a pass for models of these ranks."""
        ...


class CutPlan(Protocol):
    """A plan of how V is cut: a `PanelPlan` or a `GridPlan`."""

    @property
    def memory(self) -> PassMemory: ...

    @property
    def reads(self) -> int:
        """How often a pass reads V."""
        ...


class ModelGroups(NamedTuple):
    """The groups of models that share a pass, and the cost of one pass of all models."""

    groups: tuple[tuple[int, ...], ...]  # numbers of models, each in one group
    worker_bytes: int  # projected peak resident memory of a worker, in the group that takes most
    reads: int  # reads of V for one pass of every model: those of a pass, once for each group


class Share(NamedTuple):
    """The memory of the client that models take while they share a read, and its limit."""

    bytes_of: Callable[[Sequence[int]], int]  # returns the bytes of models of some ranks
    most: float

    def has_room(self, ranks: Sequence[int]) -> bool:
        """Return whether models of these ranks may share a read; one by itself always may."""
        return len(ranks) <= 1 or self.bytes_of(ranks) <= self.most


NO_LIMIT = Share(lambda ranks: 0, inf)


def group_models(plan: CutPlan, ranks: Sequence[int], share: Share = NO_LIMIT) -> ModelGroups:
    """Return groups of models, few and each of them small enough for a worker.

    Models go into the first group that has room for them, those of large rank first. The cut of V stays as
    it is, and so do the sums of each model, bit for bit: only the number of reads depends on the groups. As
    models end, the rest may be grouped anew.

    Parameters
    ----------
    plan : a plan of V for the largest rank, or for a larger one: that for the sum of all ranks has panels so
        small that all models share each read.
    ranks : the number of components of each model.
    share : a limit of the client, beside that of a worker.

    Raises
    ------
    MemoryError
        If one model by itself does not fit; the message has both numbers.
    """
    memory = plan.memory
    groups: list[list[int]] = []
    made: list[tuple[int, ...]] = []  # the ranks of each group
    place, before, full = 0, 0, set[tuple[int, ...]]()  # groups before `place` are full for this rank
    for number in sorted(range(len(ranks)), key=lambda number: -ranks[number]):
        rank = ranks[number]
        if rank != before:
            place, before, full = 0, rank, set()
        while place < len(groups):
            together = (*made[place], rank)
            if together not in full and _has_room(memory, share, together):
                break
            full.add(together)
            place += 1
        else:
            _check_fits(memory, rank)
            groups.append([])
            made.append(())
        groups[place].append(number)
        made[place] = (*made[place], rank)
    most = max((memory.worker_bytes([ranks[number] for number in group]) for group in groups), default=0)
    return ModelGroups(tuple(tuple(sorted(group)) for group in groups), most, plan.reads * len(groups))


def ranks_to_plan(ranks: Sequence[int]) -> tuple[int, ...]:
    """Return ranks to plan panels for so that models of these ranks may share reads, the sum of all first.

    Each is half of the one before, down to the largest rank of a model. Panels for a smaller rank are larger,
    so that fewer models share a read; for a larger one there may be no plan.
    """
    least, planned = max(ranks), [sum(ranks)]
    while planned[-1] > least:
        planned.append(max(planned[-1] // 2, least))
    return tuple(planned)


def times_in_words(reads: int) -> str:
    """Return how often V is read, as the log says it."""
    return {1: "once", 2: "twice"}.get(reads, f"{reads} times")


def _has_room(memory: PassMemory, share: Share, ranks: Sequence[int]) -> bool:
    """Return whether models of these ranks may share a read."""
    return memory.worker_bytes(ranks) <= memory.room and share.has_room(ranks)


def _check_fits(memory: PassMemory, rank: int) -> None:
    """Raise MemoryError if one model of this rank does not fit."""
    needed = memory.worker_bytes([rank])
    if needed > memory.room:
        raise MemoryError(
            f"a pass for one model of rank {rank} takes {needed / MIB:.0f} MiB, and a worker may fill "
            f"{memory.room / MIB:.0f} MiB; plan V for this rank, or give workers more memory"
        )
