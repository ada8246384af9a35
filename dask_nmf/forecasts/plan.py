"""`Plan`: the cost of a fit or of a selection, before it begins."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from dask_nmf.display.html import html_table
from dask_nmf.display.text import align_values
from dask_nmf.forecasts import advice
from dask_nmf.forecasts.costs import Costs
from dask_nmf.forecasts.probe import Probe, probe_panel
from dask_nmf.forecasts.subject import Subject
from dask_nmf.planning.row_panels import PanelPlan
from dask_nmf.planning.worker_memory import MIB
from dask_nmf.process_settings import CPU_COUNT
from dask_nmf.wording import counted


@dataclass(frozen=True)
class Plan:
    """The cost of a fit or of a selection, as it is known before the first read of V.

    Sizes are bytes, times are seconds. Seconds are estimates, from one panel that was read and multiplied in
    the process that made the plan; they are None if there was no probe. `repr` is a text for people.

    Attributes
    ----------
    source, shape, dtype, sparse : V.
    cut : ``"panels"`` of rows (or of columns, if V is wide) or ``"blocks"``, if V is cut both ways.
    panels : the number of panels or blocks.
    tasks : the number of tasks of a pass of all models that hold a panel or a block.
    models : the number of models that are fitted.
    groups : the ranks of the models that share a read, group by group.
    reads : reads of V in a pass of all models.
    other_reads : reads of V beside those of the passes: the first, the last, and those of the start.
    pass_bytes : bytes of V, in memory, that a pass of all models reads.
    workers, threads, memory_limit : the processes, the threads of one, and its limit; None: there is none.
    worker_bytes : projected peak memory of a worker.
    client_bytes : projected peak memory of the process that gives workers their tasks.
    batches : batches of models of a selection, which are fitted one after another as the client has room.
    cache_bytes : bytes of V that each worker caches between passes, at most.
    probe : the panel that was read and multiplied.
    pass_seconds, first_pass_seconds : a pass with the cache as full as it gets, and one that reads all of V.
    typical_passes, typical_seconds : fewest and most until convergence; None if they depend too much on V.
    most_passes, most_seconds : until the fit ends in any case.
    advice : what would make it faster, in sentences.

    Examples
    --------
    >>> import numpy as np
    >>> from dask_nmf import plan
    >>> forecast = plan(np.ones((1000, 20)), 5, workers=2, memory_limit="1GiB", probe=False)
    >>> forecast.cut, forecast.reads, forecast.workers
    ('panels', 1, 2)
    >>> forecast.worker_bytes < forecast.memory_limit == forecast.to_dict()["memory_limit"]
    True
    """

    source: str
    shape: tuple[int, int]
    dtype: str
    sparse: bool
    cut: str
    panels: int
    tasks: int
    models: int
    groups: tuple[tuple[int, ...], ...]
    reads: int
    other_reads: int
    pass_bytes: int
    workers: int
    threads: int
    memory_limit: int | None
    worker_bytes: int
    client_bytes: int
    batches: int
    cache_bytes: int
    probe: Probe | None
    pass_seconds: float | None
    first_pass_seconds: float | None
    typical_passes: tuple[int, int] | None
    typical_seconds: tuple[float, float] | None
    most_passes: int
    most_seconds: float | None
    advice: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as numbers and text, as JSON holds them."""
        probe = None if self.probe is None else self.probe._asdict()
        return {**asdict(self), "probe": probe}

    def __repr__(self) -> str:
        lines = [
            f"Plan of {_models_in_words(self)} to {self.source}",
            *align_values(_rows(self)),
            *(f"faster: {sentence}" for sentence in self.advice),
        ]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        """Return the same as an HTML table, for notebooks."""
        advice = (("faster", sentence) for sentence in self.advice)
        return html_table(
            [("plan of", f"{_models_in_words(self)} to {self.source}"), *_rows(self).items(), *advice]
        )


def make_plan(subject: Subject, probing: bool) -> Plan:
    """Return the plan of a fit or a selection.

    Parameters
    ----------
    probing : whether a panel is read and multiplied, for the seconds.

    Raises
    ------
    InvalidEntryError
        If the panel has an entry that is negative or not finite.
    """
    matrix, planned, groups = subject.matrix, subject.plan, subject.groups
    probe = probe_panel(subject) if probing else None
    costs = Costs(subject, probe, CPU_COUNT)
    settings = subject.requests[0].settings
    typical, most = settings.algorithm.typical_passes, settings.max_iter
    if typical is not None:
        typical = min(typical[0], most), min(typical[1], most)
    below, across = costs.shape
    return Plan(
        source=matrix.source,
        shape=matrix.shape,
        dtype=str(matrix.dtype),
        sparse=matrix.sparse,
        cut="panels" if isinstance(planned, PanelPlan) else "blocks",
        panels=below * across,
        tasks=below * across * groups.reads,
        models=len(subject.ranks),
        groups=tuple(tuple(subject.ranks[number] for number in group) for group in groups.groups),
        reads=groups.reads,
        other_reads=subject.reads,
        pass_bytes=costs.pass_bytes,
        workers=subject.resources.workers,
        threads=subject.resources.threads,
        memory_limit=subject.resources.memory_limit,
        worker_bytes=groups.worker_bytes,
        client_bytes=subject.client_bytes,
        batches=subject.batches,
        cache_bytes=subject.cache_bytes,
        probe=probe,
        pass_seconds=costs.pass_seconds,
        first_pass_seconds=costs.first_pass_seconds,
        typical_passes=typical,
        typical_seconds=None if typical is None else costs.seconds_of(typical),
        most_passes=most,
        most_seconds=(costs.seconds_of((most, most)) or (None,))[0],
        advice=advice.sentences(costs),
    )


def _models_in_words(plan: Plan) -> str:
    ranks = sorted({rank for group in plan.groups for rank in group})
    shown = f"rank {ranks[0]}" if len(ranks) == 1 else f"ranks {ranks[0]} to {ranks[-1]}"
    return f"a fit of {shown}" if plan.models == 1 else f"{counted(plan.models, 'model')} of {shown}"


def _rows(plan: Plan) -> dict[str, Any]:
    """Return the lines of the text for people, by their names."""
    m, n = plan.shape
    limit = "no limit" if plan.memory_limit is None else f"of {_size(plan.memory_limit)}"
    rows: dict[str, Any] = {
        "V": f"{m} x {n} {plan.dtype}, {'sparse' if plan.sparse else 'dense'}",
        "cut": f"{counted(plan.panels, plan.cut.removesuffix('s'))}, {counted(plan.tasks, 'task')} in a pass",
        "reads": f"{plan.reads} in a pass ({_size(plan.pass_bytes)}), {plan.other_reads} beside the passes",
        "processes": f"{plan.workers}, threads of each: {plan.threads}",
        "memory of a worker": f"up to {_size(plan.worker_bytes)}, {limit}",
        "memory of the client": f"up to {_size(plan.client_bytes)}",
        "cache of a worker": _size(plan.cache_bytes),
    }
    if plan.batches > 1:
        rows["batches"] = f"{plan.batches}, one after another, as the client has room"
    if len(plan.groups) > 1:
        rows["groups"] = f"{len(plan.groups)}, each of which reads V for itself: {_groups_in_words(plan)}"
    return rows | _rows_of_time(plan)


def _rows_of_time(plan: Plan) -> dict[str, Any]:
    """Return the lines about time, by their names."""
    probe = plan.probe
    if probe is None or plan.pass_seconds is None or plan.most_seconds is None:
        return {"passes": f"at most {plan.most_passes}"}
    rows = {
        "probe": f"{probe.rows} x {probe.columns} read in {probe.read_seconds:.3f} s and multiplied in "
        f"{probe.compute_seconds:.3f} s, in this process",
        "a pass": f"about {_time(plan.pass_seconds)}",
    }
    if plan.typical_passes is not None and plan.typical_seconds is not None:
        (few, many), (short, long) = plan.typical_passes, plan.typical_seconds
        if few < many:  # else it is the same as at worst
            rows["typically"] = f"{few} to {counted(many, 'pass')}, about {_time(short)} to {_time(long)}"
    return rows | {"at worst": f"{counted(plan.most_passes, 'pass')}, about {_time(plan.most_seconds)}"}


def _groups_in_words(plan: Plan) -> str:
    return ", ".join(counted(len(group), "model") for group in plan.groups[:5]) + ", ..." * (
        len(plan.groups) > 5
    )


def _size(size: int) -> str:
    return f"{size // MIB} MiB" if size < 10 * 1024 * MIB else f"{size / 1024 / MIB:.1f} GiB"


def _time(seconds: float) -> str:
    """Return a time with the unit that people would use."""
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
