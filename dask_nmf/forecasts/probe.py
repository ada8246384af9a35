"""The probe of a forecast: one panel of V is read and multiplied in this process, and timed."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import dask

from dask_nmf.errors import NothingObserved
from dask_nmf.execution.engine import Engine
from dask_nmf.execution.engines.panels import PanelEngine
from dask_nmf.execution.engines.strata import StrataEngine
from dask_nmf.execution.graphs.reduction import heights
from dask_nmf.execution.graphs.strata import BlockGrid
from dask_nmf.execution.tasks.blas import one_blas_thread
from dask_nmf.execution.tasks.factor_store import InMemorySlots
from dask_nmf.fitting.passes.shared import RunningModel
from dask_nmf.fitting.request import FitRequest
from dask_nmf.fitting.starts import initialize
from dask_nmf.fitting.starts.problem import NO_FACTORS, Measures, make_solver
from dask_nmf.forecasts.subject import Subject
from dask_nmf.iteration.loop import Passes, Stop
from dask_nmf.kernels.summary.row_sample import SampleSpec
from dask_nmf.planning.row_panels import PanelPlan
from dask_nmf.planning.worker_memory import Layout
from dask_nmf.sources.dense import DenseRows
from dask_nmf.sources.formats.objects.memory import SparseRows
from dask_nmf.sources.matrix import Matrix
from dask_nmf.sources.reader import Box
from dask_nmf.types import Block, Orientation


class Probe(NamedTuple):
    """The seconds that one panel takes one thread of this process.

    Attributes
    ----------
    bytes : of the panel and its weights, in memory.
    compute_seconds : of the tasks of the panel.
    update_seconds : of the update of the other factor from the sums, once in a pass.
    models : the number of models that were updated with the panel.
    """

    rows: int
    columns: int
    bytes: int
    read_seconds: float
    compute_seconds: float
    update_seconds: float
    models: int


def probe_panel(subject: Subject) -> Probe | None:
    """Read the panel in the middle of V, and make two passes over it for a group of models; time the second.

    The first pass compiles what has not been compiled. Return None if no entry of the panel counts.

    Raises
    ------
    InvalidEntryError
        If the panel has an entry that is negative or not finite.
    """
    box = _middle(subject)
    with dask.config.set(scheduler="threads"):  # no cluster, if there is one
        v, seconds = _timed(lambda: _read(subject.matrix, subject, box))
        weights, more = None, 0.0
        if subject.weights is not None:
            weights, more = _timed(lambda: _read(subject.weights, subject, box))
        panel = _in_memory(subject.matrix, v)
        beside = None if weights is None else _in_memory(subject.weights, weights)
        engine = PanelEngine(panel, (0, v.shape[0]), beside, subject.mask)
        try:
            computed, updated = _seconds_of_pass(subject, engine, box[0].start)
        except NothingObserved:
            return None
    models = len(subject.groups.groups[0])
    rows, columns = v.shape
    return Probe(rows, columns, engine.bytes, seconds + more, computed, updated, models)


def _middle(subject: Subject) -> Box:
    """Return the rows and columns of the panel, or of the block, in the middle of V."""
    rows, columns = subject.edges
    spans = [list(pairwise(edges)) for edges in (rows, columns or (0, subject.matrix.layout.columns))]
    below, across = (slice(*some[len(some) // 2]) for some in spans)
    return below, across


def _read(matrix: Matrix | None, subject: Subject, box: Box) -> Block:
    """Return a panel, or a block, in panel orientation."""
    assert matrix is not None
    array = matrix.reader.dask_array
    if array is None:
        return matrix.reader[box]
    edges = subject.edges.rows
    array = array.rechunk((heights(edges), (matrix.layout.columns,)))
    return array.blocks[list(edges).index(box[0].start), 0].compute()[:, box[1]]


def _in_memory(matrix: Matrix | None, block: Block) -> Matrix:
    """Return a matrix of the rows of a block, in the orientation of V."""
    assert matrix is not None
    rows, columns = block.shape
    sparse = matrix.reader.sparse
    layout = Layout(rows, columns, matrix.layout.itemsize, indptr=block.indptr if sparse else None)
    reader: Any = SparseRows(block, matrix.dtype)
    if not sparse:
        reader = DenseRows(block, Orientation.ROWS, matrix.dtype, in_memory=True, plain=True)
    shape = matrix.orientation.turn((rows, columns))
    return replace(matrix, shape=shape, layout=layout, reader=reader, listing=None, location=None)


def _seconds_of_pass(subject: Subject, panels: PanelEngine, first_row: int) -> tuple[float, float]:
    """Return the seconds of tasks, and of updates, in the second pass of models over a panel in memory."""
    summary = panels.summarize(SampleSpec(panels.edges[-1], 0, 0))
    panels.matrix.check_entries(summary.invalid and summary.invalid.at(first_row))
    requests = [subject.requests[number] for number in subject.groups.groups[0]]
    measures = initialize.measures_of(summary, panels.matrix, requests[0].settings.beta, NO_FACTORS)
    panels.scale = measures.scale
    models = [_begin(panels, measures, request) for request in requests]
    engine: Engine = panels
    if isinstance(subject.plan, PanelPlan) and requests[0].settings.algorithm.by_strata:
        engine = StrataEngine(panels, BlockGrid(panels.edges, subject.plan.column_edges, False), 0)
    _make_pass(engine, models)
    return _make_pass(engine, models)


def _begin(panels: PanelEngine, measures: Measures, request: FitRequest) -> RunningModel:
    """Return a model with a random start over a panel."""
    settings, matrix = replace(request.settings, init="random"), panels.matrix
    slots = place = None
    if request.carries:
        slots = InMemorySlots(panels.edges[-1], settings.carried, matrix.dtype)
        place = partial(slots.new_factor, 0)
    state = initialize.initial_state(panels, settings, measures, NO_FACTORS, None, place)
    solver = make_solver(settings, measures, matrix)
    return RunningModel(Passes(solver, state, measures.baseline, Stop(2, 0.0)), slots)


def _make_pass(engine: Engine, models: Sequence[RunningModel]) -> tuple[float, float]:
    """Make a pass; return the seconds of its tasks, and of the updates that follow."""

    def update() -> None:
        for model, total in zip(models, totals, strict=True):
            model.passes.end(total)

    with one_blas_thread():
        totals, computed = _timed(lambda: engine.sweep([model.begin() for model in models]))
    return computed, _timed(update)[1]


def _timed(function: Callable[[], Any]) -> tuple[Any, float]:
    started = time.perf_counter()
    value = function()
    return value, time.perf_counter() - started
