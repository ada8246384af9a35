"""The subject of a forecast: V, cut as a fit or a selection would cut it, and the models of a pass."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from dask_nmf.execution.partition import CutOptions, Resources
from dask_nmf.fitting.cuts.cut import CutEdges
from dask_nmf.fitting.cuts.expectation import client_bytes_of
from dask_nmf.fitting.cuts.panel_cut import log_plan
from dask_nmf.fitting.fit import cut_for
from dask_nmf.fitting.request import FitRequest
from dask_nmf.kernels.blocks.masking import EntryMask
from dask_nmf.planning.grid import GridPlan
from dask_nmf.planning.model_groups import ModelGroups, group_models
from dask_nmf.planning.row_panels import PanelPlan
from dask_nmf.selection.batches.batch_plan import plan_batches
from dask_nmf.selection.batches.shared_passes import cut_for_models
from dask_nmf.selection.models import SelectionOptions, model_keys
from dask_nmf.sources.matrix import Matrix


@dataclass(frozen=True)
class Subject:
    """V, cut for a fit or a selection.

    Attributes
    ----------
    requests : the request of each model that is fitted.
    ranks : the number of columns that the factors of each model have between passes.
    mask : decides which entries count.
    reads : reads of V beside those of the passes: the first and the last one, and those of the start.
    cache_bytes : bytes of V that each process caches between passes.
    groups : the groups of models that share a read, and the cost of a pass of all models.
    client_bytes : projected peak memory of the process that gives workers their tasks.
    batches : batches of models that are fitted one after another.
    """

    matrix: Matrix
    requests: tuple[FitRequest, ...]
    ranks: tuple[int, ...]
    mask: EntryMask
    plan: PanelPlan | GridPlan
    edges: CutEdges
    reads: int
    cache_bytes: int
    resources: Resources
    groups: ModelGroups
    client_bytes: int
    batches: int = 1

    @property
    def weights(self) -> Matrix | None:
        """The weights of the entries of V."""
        return self.requests[0].weights


@contextmanager
def cut_for_fit(matrix: Matrix, request: FitRequest, resources: Resources) -> Iterator[Subject]:
    """Cut V as a fit does; the cut is closed afterwards.

    Raises
    ------
    MemoryError
        If V does not fit the workers; the message is that of the fit.
    """
    cut, settings = cut_for(matrix, replace(request, offer=resources), None), request.settings
    try:
        requests = tuple(
            replace(request, settings=settings.at_start(start)) for start in range(settings.n_init)
        )
        reads = 2 + 2 * settings.by_svd + _reads_of_samples(cut.plan, settings.n_init)
        yield Subject(
            matrix=matrix,
            requests=requests,
            ranks=cut.ranks,
            mask=request.entry_mask(matrix),
            plan=cut.plan,
            edges=cut.edges,
            reads=reads,
            cache_bytes=cut.cache_bytes,
            resources=resources,
            groups=group_models(cut.plan, cut.ranks),
            client_bytes=client_bytes_of(cut),
        )
    finally:
        cut.engine.close()


@contextmanager
def cut_for_selection(
    matrix: Matrix, options: SelectionOptions, cache: int | None, resources: Resources
) -> Iterator[Subject]:
    """Cut V as a selection of ranks does for its models; the cut is closed afterwards.

    Raises
    ------
    MemoryError
        If no panel of V fits the workers, or the models of a start do not fit the client; the message is that
        of the selection.
    """
    keys = model_keys(options.ranks, options.n_init, options.folds)
    ranks = tuple(key.n_components for key in keys)
    engine, plan = cut_for_models(matrix, options, ranks, CutOptions(cache=cache, offer=resources))
    try:
        made = plan_batches(plan, keys, (), resources, stored=True)
        ranks = tuple(key.n_components for key in made.keys)
        log_plan(matrix, plan, ranks, made.groups)
        yield Subject(
            matrix=matrix,
            requests=tuple(FitRequest(options.settings_of(key.n_components, key.start)) for key in made.keys),
            ranks=ranks,
            mask=options.mask_of(0, matrix),
            plan=plan,
            edges=CutEdges(engine.edges),
            reads=4,  # the first read, that of the comparison, and the first and last ones of the final fit
            cache_bytes=engine.cache_bytes,
            resources=resources,
            groups=made.groups,
            client_bytes=made.client_bytes,
            batches=len(made.batches),
        )
    finally:
        engine.close()


def _reads_of_samples(plan: PanelPlan | GridPlan, starts: int) -> int:
    """Return the reads in which the starts after the first one draw their samples."""
    if starts == 1:
        return 0
    at_once = plan.memory.samples_at_once(starts - 1) if isinstance(plan, PanelPlan) else 1
    return -(-(starts - 1) // at_once)
