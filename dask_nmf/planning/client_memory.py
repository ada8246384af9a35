"""The memory of the client of a selection: how many models may be fitted at the same time."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil, inf
from typing import NamedTuple

from dask_nmf.planning.model_groups import PassMemory, Share
from dask_nmf.planning.worker_memory import (
    MIB,
    PROGRAM,
    SAMPLES_OF_CLIENT,
    Layout,
    waiting_sums,
)
from dask_nmf.wording import counted

CLIENT = PROGRAM + 96 * MIB  # resident bytes of the client, which has the scheduler and has made starts
FACTORS_OF_STATE = 4  # H, the one that the next pass gets, the best one, and one for what is freed in pieces
FACTORS_SENT = 6  # H of a model that makes a pass: pickled, at the scheduler, and on its way to workers
SUMS_RECEIVED = 3  # sums of a model: as they come, as they are taken apart, and in the update of H
SHARED = 4  # models that share a read may take one part in so many of the room for models
FLOAT64 = 8  # bytes of a number
SPREAD = 6  # arrays of float64 of the size of a factor, in the mean and deviation of many
COMPARED = 64 * MIB  # bytes for how far models agree on the clusters of rows


class ClientPlan(NamedTuple):
    """The batches of a selection, which are fitted one after another.

    Attributes
    ----------
    batches : the numbers of the pairs of start and fold whose models are fitted at the same time.
    client_bytes : projected peak resident memory of the client.
    overlap : whether there is room for the sums of two groups of models that share a read: of one whose
        models are updated, and of the next one.
    """

    batches: tuple[tuple[int, ...], ...]
    client_bytes: int
    overlap: bool = True


@dataclass(frozen=True)
class ClientMemory:
    """The memory of the client of a selection.

    Attributes
    ----------
    layout : V, as it is cut into panels.
    room : the bytes that the client may fill.
    sample : bytes of the samples of rows for the starts, in all folds.
    stored : whether a store keeps the factors of models that have ended.
    workers : the memory of workers whose own limit is that of this machine; None: they have limits.
    shared : bytes that models take at most while they share a read, as workers limit them.
    """

    layout: Layout
    room: float = inf
    sample: int = 0
    stored: bool = True
    workers: PassMemory | None = None
    shared: float = inf

    def with_groups(self, groups: Sequence[Sequence[int]]) -> ClientMemory:
        """Return the memory for models that share reads in groups such as those of these ranks."""
        return replace(self, shared=max((self._shared_bytes(group) for group in groups), default=0))

    @property
    def share(self) -> Share:
        """The memory of the client that models take for a shared read, beside their states, and its limit."""
        return Share(self._shared_bytes, self.room / SHARED)

    def plan(self, pairs: Sequence[Sequence[int]], ended: Sequence[int] = ()) -> ClientPlan:
        """Return batches of pairs, in their order, each with as many as the client has room for.

        Parameters
        ----------
        pairs : the ranks of the models of each pair of start and fold that have not ended.
        ended : the ranks of the models that have ended.

        Raises
        ------
        MemoryError
            If a pair, or the comparison of all models, does not fit; the message has both numbers.
        """
        every = [*ended, *(rank for ranks in pairs for rank in ranks)]
        self._check_compared(every)
        overlap = all(self._peak([ranks], every, True) <= self.room for ranks in pairs)
        batches: list[list[int]] = []
        peak = self._compared_bytes(every)
        for number, ranks in enumerate(pairs):
            together = [pairs[other] for other in (*(batches[-1] if batches else ()), number)]
            if not batches or self._peak(together, every, overlap) > self.room:
                self._check_pair(ranks, every)
                batches.append([])
                together = [ranks]
            batches[-1].append(number)
            peak = max(peak, self._peak(together, every, overlap))
        return ClientPlan(tuple(map(tuple, batches)), peak, overlap)

    def replicates_at_once(self, rank: int, replicates: int) -> int:
        """Return how many bootstrap replicates of a fit may run at the same time.

        Of those that have ended the client keeps the factor, which panels are given, until all have.

        Raises
        ------
        MemoryError
            If not even one has room beside these factors; the message has both numbers.
        """
        kept = CLIENT + self.layout.at_client + replicates * self._factor(rank)
        kept += SPREAD * rank * self.layout.columns * FLOAT64

        def peak(running: int) -> int:
            ranks = [rank] * running
            together = min(self._shared_bytes(ranks), max(self.share.most, self._shared_bytes([rank])))
            return kept + FACTORS_OF_STATE * self._factor(sum(ranks)) + ceil(together)

        what = f"one bootstrap sample of rank {rank}, with the components of {replicates},"
        self._check(peak(1), what, "take fewer samples or smaller ranks")
        return bisect_right(range(1, replicates + 1), self.room, key=peak)

    def _factor(self, rank: int) -> int:
        return rank * self.layout.columns * self.layout.itemsize

    def _fixed_bytes(self, every: Sequence[int]) -> int:
        """Return the bytes of the program, of V in memory, of samples, and of factors that no store keeps."""
        kept = 0 if self.stored else self._factor(sum(every))
        return CLIENT + self.layout.at_client + SAMPLES_OF_CLIENT * self.sample + kept

    def _shared_bytes(self, ranks: Sequence[int]) -> int:
        """Return the bytes that models take while they share a read, beside their states."""
        if self.workers is not None:
            return self.workers.worker_bytes(ranks) - PROGRAM
        grams = self.layout.masked and self.layout.own_grams
        sums = sum(waiting_sums(self.layout, rank, grams) for rank in ranks)
        return FACTORS_SENT * self._factor(sum(ranks)) + SUMS_RECEIVED * sums

    def _peak(self, pairs: Sequence[Sequence[int]], every: Sequence[int], overlap: bool) -> int:
        """Return the peak bytes while the models of some pairs are fitted; ``overlap``: see `ClientPlan`."""
        ranks = [rank for pair in pairs for rank in pair]
        share = self.share
        most = max(min(share.most, self.shared), self._shared_bytes([max(ranks)]))
        together = min(self._shared_bytes(ranks), (1 + overlap) * most)
        start = max(sum(pair) for pair in pairs) * self.layout.columns * FLOAT64
        states = FACTORS_OF_STATE * self._factor(sum(ranks))
        return self._fixed_bytes(every) + states + ceil(max(together, start))

    def _compared_bytes(self, every: Sequence[int]) -> int:
        """Return the peak bytes while the models of a rank are compared, in float64."""
        most = max((count * rank for rank, count in Counter(every).items()), default=0)
        factors = self._factor(most) * self.stored + most * self.layout.columns * FLOAT64
        return self._fixed_bytes(every) + factors + COMPARED

    def _check_compared(self, every: Sequence[int]) -> None:
        cure = "take fewer starts, folds or ranks" if self.stored else "store the selection (store, --output)"
        self._check(self._compared_bytes(every), f"the comparison of {counted(len(every), 'model')}", cure)

    def _check_pair(self, ranks: Sequence[int], every: Sequence[int]) -> None:
        what = f"one start of {counted(len(ranks), 'rank')}, up to {max(ranks)},"
        self._check(self._peak([ranks], every, False), what, "take fewer or smaller ranks")

    def _check(self, needed: int, what: str, cure: str) -> None:
        """Raise MemoryError if more bytes are needed than there are."""
        if needed <= self.room:
            return
        raise MemoryError(
            f"{what} takes up to {needed / MIB:.0f} MiB in the client, which may fill "
            f"{self.room / MIB:.0f} MiB; {cure}, or set dask_nmf.client_memory in Dask's configuration to at "
            f"least {ceil(needed / MIB)}MiB"
        )
