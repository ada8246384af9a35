"""The seconds of passes, from the seconds of one panel."""

from __future__ import annotations

from dataclasses import dataclass

from dask_nmf.fitting.cuts.expectation import cached_share
from dask_nmf.forecasts.probe import Probe
from dask_nmf.forecasts.subject import Subject


@dataclass(frozen=True)
class Costs:
    """The costs of a fit or a selection.

    Tasks are as many at once as there are threads; reading and computing do not overlap in a thread. That is
    an estimate: threads share the bandwidth of a disk and of the memory.

    Attributes
    ----------
    probe : the seconds of one panel; None if they are not known.
    cores : processors of this machine.
    """

    subject: Subject
    probe: Probe | None
    cores: int

    @property
    def shape(self) -> tuple[int, int]:
        """The number of panels below each other, and that of blocks side by side."""
        rows, columns = self.subject.edges
        return len(rows) - 1, 1 if columns is None else len(columns) - 1

    @property
    def slots(self) -> int:
        """The number of panels that are in work at once."""
        below, across = self.shape
        return min(self.subject.resources.workers * self.subject.resources.threads, below * across)

    @property
    def total_bytes(self) -> int:
        """The bytes of V and its weights, in memory."""
        weights = self.subject.weights
        return self.subject.matrix.bytes + (0 if weights is None else weights.bytes)

    @property
    def pass_bytes(self) -> int:
        """The bytes of V that a pass of all models reads."""
        planned, groups = self.subject.plan, self.subject.groups
        return planned.pass_bytes * groups.reads // planned.reads

    @property
    def cached_share(self) -> float:
        """The share of V that is read from storage in the first read only."""
        subject = self.subject
        return cached_share(subject.matrix, self.total_bytes, subject.cache_bytes, subject.resources)

    @property
    def read_seconds(self) -> float | None:
        """The seconds of one read of V from storage."""
        if self.probe is None:
            return None
        return self.probe.read_seconds * self._panels / self.slots

    @property
    def compute_seconds(self) -> float | None:
        """The seconds of the tasks of a pass of all models, and of the updates that follow.

        Updates from the sums of all panels are made once, for each column of blocks if V is cut both ways.
        """
        if self.probe is None:
            return None
        groups, across = self.subject.groups.groups, self.shape[1]
        first = sum(self.subject.ranks[number] for number in groups[0])
        tasks = self.probe.compute_seconds * self._panels / self.slots
        updates = self.probe.update_seconds * across / min(self.slots, across)
        return (tasks + updates) * sum(self.subject.ranks) / first

    @property
    def pass_seconds(self) -> float | None:
        """The seconds of a pass of all models with what is cached."""
        return self._pass_seconds(self.cached_share)

    @property
    def first_pass_seconds(self) -> float | None:
        """The seconds of a pass of all models that reads all of V from storage."""
        return self._pass_seconds(0.0)

    def seconds_of(self, passes: tuple[int, int]) -> tuple[float, float] | None:
        """Return the seconds of fits with these numbers of passes, and of the reads beside their passes."""
        one, read = self.pass_seconds, self.read_seconds
        if one is None or read is None:
            return None
        further = (self.subject.reads - 1) * (1 - self.cached_share) + 1
        fewest, most = passes
        return fewest * one + further * read, most * one + further * read

    @property
    def _panels(self) -> float:
        """The number of panels of the size of the probe that V has."""
        assert self.probe is not None
        return max(1.0, self.total_bytes / max(1, self.probe.bytes))

    def _pass_seconds(self, cached: float) -> float | None:
        read, compute = self.read_seconds, self.compute_seconds
        if read is None or compute is None:
            return None
        return self.subject.groups.reads * read * (1 - cached) + compute
