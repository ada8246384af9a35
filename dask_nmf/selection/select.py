"""The selection of the rank, from V to the table and the final fit."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

from dask_nmf.cluster.sharing import check_shared
from dask_nmf.errors import InvalidRunError, RunMismatch
from dask_nmf.execution.engines.panels import PanelEngine
from dask_nmf.execution.partition import CutOptions, resources
from dask_nmf.fitting.cuts.panel_cut import log_plan
from dask_nmf.fitting.factorise import factorise
from dask_nmf.fitting.request import FitRequest
from dask_nmf.fitting.result import Result
from dask_nmf.fitting.verification import ranges_in_words
from dask_nmf.kernels.summary.digests import Digest, differing_rows
from dask_nmf.options.option import check, check_time_limit, plain
from dask_nmf.planning.model_groups import group_models
from dask_nmf.planning.row_panels import PanelPlan
from dask_nmf.progress import report_stage
from dask_nmf.runs.commits import FIT
from dask_nmf.runs.resume import identity_of
from dask_nmf.runs.rows.conditions import check_unchanged
from dask_nmf.runs.run import Run
from dask_nmf.selection import bootstrap, comparison
from dask_nmf.selection.batches.batch_plan import BatchPlan, plan_batches
from dask_nmf.selection.batches.model_fits import ModelFits
from dask_nmf.selection.batches.shared_passes import cut_for_models
from dask_nmf.selection.batches.starts import FirstRead, first_read
from dask_nmf.selection.bootstrap import Bootstrap, ErrorBars, Reference
from dask_nmf.selection.comparison import Findings, Fits
from dask_nmf.selection.models import REPLICATES, Model, SelectionOptions, model_keys
from dask_nmf.selection.result import RankSelection
from dask_nmf.selection.stored.store import SelectionStore
from dask_nmf.sources.labels.names import NO_LABELS, Labels
from dask_nmf.sources.matrix import Matrix
from dask_nmf.sources.registry import open_matrix
from dask_nmf.storage.locations import Location, check_apart

logger = logging.getLogger(__name__)

Connect = Callable[[Matrix], AbstractContextManager[Any]]


@dataclass(frozen=True)
class Request:
    """The arguments of a selection beside V and its options.

    Attributes
    ----------
    dtype : floating-point type used for the computation.
    store : where the selection is stored, if it is.
    overwrite : whether a selection that is there may be replaced.
    time_limit : seconds after which the pass that is running is the last one.
    cache : bytes of V that each worker caches between passes; None: as the plan allows.
    error_bars : the number of bootstrap samples from which components get standard errors; 0: they get none.
    labels : the names of a labelled V, for the run of its fit.
    """

    dtype: str | None = None
    store: Location | None = None
    overwrite: bool = False
    time_limit: float | None = None
    cache: int | None = None
    error_bars: int = 0
    labels: Labels = NO_LABELS
    began: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        object.__setattr__(self, "error_bars", plain(self.error_bars))
        check("error_bars", self.error_bars, REPLICATES, optional=False)
        check_time_limit(self.time_limit)

    @property
    def deadline(self) -> float:
        """The time, on the clock of ``time.monotonic()``, at which the limit is reached."""
        return float("inf") if self.time_limit is None else self.began + self.time_limit


def choose_rank(
    V: Any, options: SelectionOptions, request: Request, connect: Connect = lambda matrix: nullcontext()
) -> RankSelection:
    """Fit models of several ranks to V in shared reads, and return the rank to take with its fit.

    Parameters
    ----------
    connect : returns a context of a cluster, which is entered only if there is work for the cluster.
    """
    matrix = open_matrix(V, request.dtype)
    if request.store is None:
        with connect(matrix):
            return _Selection(matrix, options, request, None).run(V)
    check_apart(request.store, V=matrix.location)
    with request.store.lock() as check_held:
        described = identity_of(matrix, options.settings, {}).matrix
        identity = {**options.record(), **described}
        store = SelectionStore.find(request.store, identity, request.overwrite, check_held)
        if not request.overwrite:
            _check_rows(request.store)
        selection = _Selection(matrix, options, request, store)
        if selection.is_finished:
            logger.info("%s is finished already; nothing is left to do", request.store.name)
            return selection.run(V)
        with connect(matrix):
            check_shared(request.store)
            return selection.run(V)


def _check_rows(selection: Location) -> None:
    """Raise `RunMismatch` if rows were added to the final fit of a selection, or taken out of it."""
    fit = selection.within(FIT)
    try:
        run = Run.load(fit)
    except (FileNotFoundError, InvalidRunError):  # the final fit is made anew
        return
    check_unchanged(fit.name, run.record)


class _Selection:
    """One selection in work."""

    def __init__(
        self, matrix: Matrix, options: SelectionOptions, request: Request, store: SelectionStore | None
    ) -> None:
        self.matrix = matrix
        self.request = request
        self.store = store
        self.stored = [] if store is None else store.keys()
        asked = model_keys(options.ranks, options.n_init, options.folds)
        self.keys = sorted({*self.stored, *asked})
        self.options = options.with_models(self.keys)

    @property
    def is_finished(self) -> bool:
        """Whether nothing is left to do, and file listings prove that V is unchanged."""
        if self.store is None or not self.store.is_finished or not self._is_unwritten(self.store):
            return False
        return self.request.error_bars in (0, self.store.record["error_bars"])

    def _is_unwritten(self, store: SelectionStore) -> bool:
        listing = self.matrix.listing
        return listing is not None and listing == store.record["listing"] and self.keys == sorted(self.stored)

    def run(self, V: Any) -> RankSelection:
        """Make what is left to do, and return the result."""
        known = self.store.findings() if self.store is not None and self.keys == sorted(self.stored) else None
        if known is not None and self.store is not None and self._is_unwritten(self.store):
            return self._with_fit(V, known)
        findings = self._compare(known)
        late = known is None and time.monotonic() >= self.request.deadline
        if late or not findings.complete:
            return self._selection(findings, None)
        return self._with_fit(V, findings)

    def _with_fit(self, V: Any, findings: Findings) -> RankSelection:
        """Return the result with the fit of the recommended rank, and commit that it is the answer."""
        result = self._final_fit(V, findings)
        if self.store is not None:
            self.store.commit_answer(self.matrix.listing)
        chosen = self._selection(findings, result)
        if not result.outcome.final:
            return chosen
        bars = self._error_bars(result)
        return replace(chosen, error_bars=bars, complete=bars is not None or not self.request.error_bars)

    def _selection(self, findings: Findings, result: Result | None) -> RankSelection:
        wide = self.matrix.orientation.by_columns
        return RankSelection.of(findings, result, wide, self.options.settings.beta)

    def _error_bars(self, result: Result) -> ErrorBars | None:
        """Return the standard errors of the components of the final fit, if they are asked for or stored."""
        store, replicates = self.store, self.request.error_bars
        known = store.error_bars() if store is not None else None
        if not replicates or (known is not None and known.replicates == replicates):
            return known
        rank = len(result.H)
        settings = replace(self.options.settings, n_components=rank)
        mask = replace(self.options.mask_of(0, self.matrix), held_out=0.0)
        reference = Reference(settings, mask, result.W, result.H.compute())
        with self._engine([rank] * replicates) as (engine, planned):
            log_plan(self.matrix, planned, [rank] * replicates)
            work = Bootstrap(engine, planned, reference, replicates)
            models = self._replicates(work)
            if min(model.passes for model in models) < bootstrap.PASSES:
                return None
            bars = work.result(models)
        if store is not None:
            store.commit_error_bars(bars)
        return bars

    def _replicates(self, work: Bootstrap) -> list[Model]:
        """Make the passes of bootstrap replicates that are left, as time allows, and return them."""
        report_stage("first read")
        digest, models = work.first_read(), work.begin()
        if self.store is not None:
            self._check_content(self.store, digest)
            models = self.store.replicates(models)
        for passes in work.run(models, self.request.deadline):
            if self.store is not None:
                self.store.commit_replicates(passes, models)
        return models

    def _compare(self, known: Findings | None) -> Findings:
        """Read V for the first time, and return the findings: the known ones, or those of more passes."""
        ranks = [key.n_components for key in self.keys]
        with self._engine(ranks) as (engine, planned):
            if known is not None:
                self._first_read(engine, planned)  # which refuses another V
                return known
            made = self._plan(planned)
            if bars := self.request.error_bars:  # of any rank, because any may be recommended
                bootstrap.check_room_for_replicates(planned, max(ranks), bars)
            found = self._first_read(engine, planned)
            fits = ModelFits(engine, self.options, found, self.keys, self.store)
            fits.run(planned, made, self.request.deadline)
            report_stage("comparing the models")
            models = Fits(fits.in_order(), fits.factor_of)
            groups = group_models(planned, ranks, made.memory.share)
            labels = comparison.cluster_rows(models, engine, groups, self.options, found.folds)
            findings = comparison.compare(models, found.folds, labels)
        rank, reason = findings.table["n_components"], findings.table["reason"]
        logger.info("rank %d: %s", rank, reason, extra={"nmf": {"event": "rank", "n_components": rank}})
        if self.store is not None and findings.complete:
            self.store.commit_findings(findings)
        return findings

    def _plan(self, planned: PanelPlan) -> BatchPlan:
        """Return the plan of the models that have not ended, and write it to the log."""
        ended = [] if self.store is None else self.store.ended_keys()
        made = plan_batches(planned, self.keys, ended, resources(), self.store is not None)
        if made.batches:
            log_plan(self.matrix, planned, [key.n_components for key in made.keys], made.groups)
            made.log()
        return made

    @contextmanager
    def _engine(self, ranks: Sequence[int]) -> Iterator[tuple[PanelEngine, PanelPlan]]:
        """Yield an engine of panels and its plan; models of these ranks share each read if panels allow."""
        edges = None if self.store is None else self.store.edges
        cut = CutOptions(edges, cache=self.request.cache)
        engine, planned = cut_for_models(self.matrix, self.options, ranks, cut)
        try:
            yield engine, planned
        finally:
            engine.close()

    def _first_read(self, engine: PanelEngine, planned: PanelPlan) -> FirstRead:
        """Return the findings of the first read, once V is known to be that of the selection.

        The size of samples is stored, so that starts after a resume are those that there would have been.
        """
        report_stage("first read")
        store, size = self.store, (self.options.ranks[-1], self.options.folds)
        rows = (store and store.sample_rows(*size)) or planned.sample_rows // self.options.folds
        found = first_read(engine, self.options, rows)
        if store is not None:
            if store.edges is not None:
                self._check_content(store, found.digests[0])
            store.commit_layout(engine.edges, found.digests[0], (*size, rows))
        return found

    def _check_content(self, store: SelectionStore, digest: Digest) -> None:
        """Raise `RunMismatch` if V is not the one with which the selection began."""
        if ranges := differing_rows(digest, store.digest(), self.matrix.layout.rows):
            raise RunMismatch(
                f"{store.location.name} holds another selection: V is not the same in "
                f"{ranges_in_words(self.matrix.orientation.turn(('row', 'column'))[0], ranges)}; "
                "give another output, or ask to overwrite it (--overwrite)"
            )

    def _final_fit(self, V: Any, findings: Findings) -> Result:
        """Return the fit of the recommended rank to all entries of V, which begins with a model's factor.

        It replaces the fit of an earlier answer, whose result stays until there is a newer one.
        """
        rank = findings.table["n_components"]
        factor = findings.factor if findings.factor.any() else None  # it is zero if V is
        W, H = self.matrix.orientation.turn_factors(None, factor)
        request = FitRequest(
            replace(self.options.settings, n_components=rank, init=None if factor is None else "custom"),
            W=W,
            H=H,
            dtype=self.request.dtype,
            store=None if self.store is None else self.store.location.within(FIT),
            time_limit=self.request.time_limit,
            cache=self.request.cache,
            labels=self.request.labels,
            began=self.request.began,
        )
        try:
            return factorise(V, request)
        except (RunMismatch, InvalidRunError):
            return factorise(V, replace(request, overwrite=True))
