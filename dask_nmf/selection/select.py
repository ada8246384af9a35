"""The selection of the rank, from V to the table and the final fit."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dask_nmf.cluster.sharing import check_shared
from dask_nmf.errors import RunMismatch
from dask_nmf.execution import partition
from dask_nmf.execution.engines.panels import PanelEngine
from dask_nmf.execution.partition import CutOptions
from dask_nmf.fitting.factorise import factorise
from dask_nmf.fitting.request import Job
from dask_nmf.fitting.result import Result, result_of
from dask_nmf.fitting.verification import ranges_in_words
from dask_nmf.kernels.summary.digests import Digest, differing_rows
from dask_nmf.planning.model_groups import group_models
from dask_nmf.planning.row_panels import PanelPlan
from dask_nmf.planning.worker_memory import MIB
from dask_nmf.progress import report_stage
from dask_nmf.runs.resume import identity_of
from dask_nmf.runs.run import Run
from dask_nmf.runs.stored_result import StoredResult
from dask_nmf.selection import comparison
from dask_nmf.selection.models import Model, ModelKey, SelectionOptions, model_keys
from dask_nmf.selection.result import RankSelection
from dask_nmf.selection.shared_passes import SharedPasses
from dask_nmf.selection.starts import Fold, first_read, starts_in_fold
from dask_nmf.selection.store import FIT, SelectionStore
from dask_nmf.solvers.parts.state import State
from dask_nmf.sources.matrix import Matrix
from dask_nmf.sources.registry import open_matrix
from dask_nmf.storage.leases import CheckHeld
from dask_nmf.storage.locations import Location, check_apart
from dask_nmf.types import Array

logger = logging.getLogger(__name__)

Connect = Callable[[Matrix], AbstractContextManager[Any]]


@dataclass(frozen=True)
class Request:
    """What is asked of a selection beside its options.

    Attributes
    ----------
    dtype : floating-point type used for the computation.
    store : where the selection is stored, if it is.
    overwrite : whether a selection that is there may be replaced.
    deadline : the time, on the clock of ``time.monotonic()``, after which no pass begins.
    cache : bytes of V that each worker caches between passes; None: as the plan allows.
    """

    dtype: str | None = None
    store: Location | None = None
    overwrite: bool = False
    deadline: float = float("inf")
    cache: int | None = None


def choose_rank(
    V: Any, options: SelectionOptions, request: Request, connect: Connect = lambda matrix: nullcontext()
) -> RankSelection:
    """Fit models of several ranks to V in shared reads, and return the rank to take with its fit.

    Parameters
    ----------
    connect : returns a context of a cluster, in which the selection runs.
    """
    matrix = open_matrix(V, request.dtype)
    if request.store is None:
        with connect(matrix):
            return _Selection(matrix, options, request, None).run(V)
    check_apart(request.store, V=matrix.location)
    with request.store.lock() as check_held, connect(matrix):
        check_shared(request.store)
        store = _open_store(request.store, matrix, options, request, check_held)
        return _Selection(matrix, options, request, store).run(V)


def _open_store(
    location: Location, matrix: Matrix, options: SelectionOptions, request: Request, check_held: CheckHeld
) -> SelectionStore:
    """Return the selection that is at a location, if it is of this V and these options, or a new one.

    Raises
    ------
    RunMismatch
        If there is another one.
    """
    described = identity_of(matrix, options.settings, {}).matrix
    if not location.exists():
        return SelectionStore.create(location, options.record(), described, check_held)
    store = SelectionStore.load(location, check_held)
    if request.overwrite:
        store.restart(options.record(), described)
        return store
    differing = [
        f"{name} is {ours[name]!r}, it has {theirs.get(name)!r}"
        for ours, theirs in ((options.record(), store.record["options"]), (described, store.record["matrix"]))
        for name in ours
        if name != "source" and ours[name] != theirs.get(name)
    ]
    if differing:
        raise RunMismatch(
            f"{location.name} holds another selection: {'; '.join(differing)}; "
            "give another output, or ask to overwrite it"
        )
    return store


class _Selection:
    """One selection in work."""

    def __init__(
        self, matrix: Matrix, options: SelectionOptions, request: Request, store: SelectionStore | None
    ) -> None:
        self.matrix = matrix
        self.request = request
        self.store = store
        stored = [] if store is None else store.keys()
        asked = model_keys(options.ranks, options.n_init, options.folds)
        self.keys = sorted({*stored, *asked})
        self.options = replace(options, folds=1 + max(key.fold for key in self.keys))

    def run(self, V: Any) -> RankSelection:
        """Make what is left to do, and return the result."""
        if self.store is not None and (known := self._finished(self.store)) is not None:
            logger.info("%s is finished already; nothing is left to do", self.store.location.name)
            return _selection(self.store.record["table"], self.store.clusters(), result_of(known))
        table, labels, factor = self._compare()
        if any(row["message"] is None for row in table["models"]):  # the time limit came first
            return _selection(table, labels, None)
        return _selection(table, labels, self._final_fit(V, table["n_components"], factor))

    def _finished(self, store: SelectionStore) -> StoredResult | None:
        """Return the stored result, if nothing is left to do and file listings prove that V is unchanged."""
        listing = self.matrix.listing
        if listing is None or listing != store.record["listing"] or store.record["table"] is None:
            return None
        if self.keys != sorted(store.keys()) or not store.location.within(FIT).exists():
            return None
        run = Run.load(store.location.within(FIT))
        return run.result if run.record["finished"] else None

    def _compare(self) -> tuple[dict[str, Any], Array, Array]:
        """Fit all models, and return the table, clusters of rows by model, and the start of the final fit."""
        with self._engine() as (engine, planned):
            folds, models = self._begin(engine, planned.sample_rows // self.options.folds)
            passes = SharedPasses(engine, planned, self.options, folds)
            for after in passes.run(models, self.request.deadline):
                models = after
                if self.store is not None:
                    self.store.commit_models(max(model.passes for model in models), models)
            report_stage("comparing the models")
            labels = np.stack(comparison.cluster_rows(engine, self.options, folds, models))
        recommendation, agreement = comparison.compare(models, labels)
        table = comparison.table_of(models, recommendation, agreement)
        rank, reason = recommendation.n_components, recommendation.reason
        logger.info("rank %d: %s", rank, reason, extra={"nmf": {"event": "rank", "n_components": rank}})
        if self.store is not None and not any(model.runs for model in models):
            self.store.commit_table(table, labels, self.matrix.listing)
        return table, labels, comparison.start_of_fit(models, agreement, rank)

    @contextmanager
    def _engine(self) -> Iterator[tuple[PanelEngine, PanelPlan]]:
        """Yield an engine of panels, and its plan; all models share each read if panels are small enough."""
        ranks = [key.n_components for key in self.keys]
        edges = None if self.store is None else self.store.edges
        mask, cut = self.options.mask_of(0, self.matrix), CutOptions(edges, cache=self.request.cache)
        try:
            engine, planned = partition.cut(self.matrix, sum(ranks), None, mask, cut)
        except MemoryError:
            engine, planned = partition.cut(self.matrix, max(ranks), None, mask, cut)
        groups = group_models(planned, ranks)
        logger.info(
            "%d models, %d in a group that shares a read of V: %d reads for a pass of all; a worker may take "
            "up to %d MiB",
            len(ranks),
            max(len(group) for group in groups.groups),
            groups.reads,
            groups.worker_bytes // MIB,
        )
        try:
            yield engine, planned
        finally:
            engine.close()

    def _begin(self, engine: PanelEngine, sample_rows: int) -> tuple[list[Fold], list[Model]]:
        """Return the folds, and the models before their next pass."""
        report_stage("first read")
        found, models = first_read(engine, self.options, sample_rows), {}
        if self.store is not None:
            self._check_content(self.store, found.digests[0])
            models = {model.key: model for model in self._stored(self.store, found.folds)}
        report_stage("starts")
        for fold, start in {(key.fold, key.start): None for key in self.keys if key not in models}:
            starts = starts_in_fold(found.samples[fold], found.folds[fold], self.options, start, engine)
            for rank, h in starts.items():
                solver = found.folds[fold].solver(self.options, rank, self.matrix)
                models.setdefault(
                    ModelKey(rank, start, fold), Model(ModelKey(rank, start, fold), solver.begin(h))
                )
        if self.store is not None and self.store.edges is None:
            self.store.commit_layout(engine.edges, found.digests[0])
        return found.folds, [models[key] for key in self.keys]

    def _check_content(self, store: SelectionStore, digest: Digest) -> None:
        """Raise `RunMismatch` if V is not the one with which the selection began."""
        if store.edges is None:
            return
        ranges = differing_rows(digest, store.digest(), self.matrix.layout.rows)
        if ranges:
            raise RunMismatch(
                f"{store.location.name} holds another selection: V is not the same in "
                f"{ranges_in_words(self.matrix.orientation.turn(('row', 'column'))[0], ranges)}; "
                "give another output, or ask to overwrite it (--overwrite)"
            )

    def _stored(self, store: SelectionStore, folds: Sequence[Fold]) -> list[Model]:
        def begin(key: ModelKey) -> State[Any]:
            solver = folds[key.fold].solver(self.options, key.n_components, self.matrix)
            return solver.begin(np.empty((key.n_components, 0), self.matrix.dtype))

        return store.models(begin)

    def _final_fit(self, V: Any, rank: int, factor: Any) -> Result:
        """Return the fit of the rank to all entries of V, which begins with the factor of a model."""
        settings = replace(self.options.settings, n_components=rank, init="custom")
        W, H = self.matrix.orientation.turn_factors(None, factor)
        place = None if self.store is None else self.store.location.within(FIT)
        job = Job(
            settings,
            W=W,
            H=H,
            dtype=self.request.dtype,
            store=place,
            overwrite=self.request.overwrite,
            cache=self.request.cache,
        )
        return factorise(V, job)


def _selection(table: dict[str, Any], labels: Array, result: Result | None) -> RankSelection:
    return RankSelection(
        table["n_components"], table["reason"], table["table"], table["models"], labels, result
    )


def deadline_after(seconds: float | None) -> float:
    """Return the time, on the clock of ``time.monotonic()``, that is so many seconds from now."""
    return float("inf") if seconds is None else time.monotonic() + seconds
