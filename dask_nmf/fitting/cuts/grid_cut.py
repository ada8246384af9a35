"""A fit over V cut into blocks, by rows and by columns; its H is stored in pieces in the run."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from dask_nmf.execution import partition
from dask_nmf.execution.engine import FinalFactors, Sink
from dask_nmf.execution.engines.grid import GridEngine, GridSlots
from dask_nmf.execution.tasks.factor_store import FactorSlots
from dask_nmf.fitting.cuts.cut import CutEdges, FitProgress
from dask_nmf.fitting.request import FitRequest
from dask_nmf.fitting.starts import grid_start, problem
from dask_nmf.fitting.starts.problem import Measures
from dask_nmf.fitting.starts.sampled.trial import SampledStart
from dask_nmf.kernels.summary.row_sample import Candidates, SampleSpec
from dask_nmf.planning.grid import GridPlan
from dask_nmf.planning.model_groups import group_models, times_in_words
from dask_nmf.planning.worker_memory import MIB
from dask_nmf.progress import report_stage
from dask_nmf.runs.run import Run
from dask_nmf.solvers.parts.state import State
from dask_nmf.solvers.piecewise import PiecewiseHALS
from dask_nmf.solvers.solver import Solver
from dask_nmf.sources.matrix import Matrix
from dask_nmf.types import Array

logger = logging.getLogger(__name__)


class GridCut(NamedTuple):
    """V in blocks, for one fit: see `Cut`."""

    request: FitRequest
    engine: GridEngine
    needs_run: str | None = "V is cut both ways and its H is kept on disk between passes"

    @property
    def matrix(self) -> Matrix:
        return self.engine.matrix

    @property
    def plan(self) -> GridPlan:
        return self.engine.tiling

    @property
    def ranks(self) -> tuple[int, ...]:
        return (self.request.settings.n_components,) * self.request.settings.n_init

    @property
    def cache_bytes(self) -> int:
        return 0

    @property
    def edges(self) -> CutEdges:
        return CutEdges(self.engine.tiling.rows, self.engine.tiling.columns)

    @property
    def draw(self) -> SampleSpec:
        return grid_start.draw_for(self.engine, self.request.settings)

    def draw_candidates(self, draws: Sequence[SampleSpec]) -> Iterator[Candidates]:
        return (self.engine.summarize(draw).candidates for draw in draws)

    def sampled_start(self, candidates: Candidates, measures: Measures) -> SampledStart | None:
        """Return the start from the sample of rows and columns, whose H is (k, drawn columns)."""
        return grid_start.start_of_sample(self.matrix, self.request.settings, measures, candidates.block)

    def for_start(self, number: int) -> GridCut:
        settings = self.request.settings.at_start(number)
        return self._replace(request=replace(self.request, settings=settings))

    def slots(self, run: Run | None) -> FactorSlots | None:
        return run

    def initial_state(
        self, measures: Measures, sampled: Array | None, slots: FactorSlots | None
    ) -> State[Any]:
        assert isinstance(slots, GridSlots)
        return grid_start.initial_state(self.engine, self.request.settings, measures, sampled, slots)

    def solver(self, measures: Measures) -> Solver:
        penalty = problem.own_penalty(self.request.settings, measures, self.matrix)
        return PiecewiseHALS(penalty.bounded)

    def finalize(self, progress: FitProgress, new_sink: Callable[[], Sink] | None) -> FinalFactors:
        report_stage("last read")
        return self.engine.finalize(progress.model, new_sink)


def cut_in_blocks(matrix: Matrix, request: FitRequest, run: Run | None) -> GridCut:
    """Cut V into blocks that fit the workers, or into the blocks of a given run.

    Raises
    ------
    MemoryError
        If no block fits.
    DataError
        If a worker does not see V.
    """
    settings = request.settings
    kept = None if run is None or run.cuts is None else (run.edges, run.cuts)
    tiling = partition.plan_blocks(matrix, settings.n_components, kept, request.offer)
    (down, across), block = tiling.shape, tiling.block
    cut = GridCut(request, GridEngine(matrix, tiling))
    groups = group_models(tiling, cut.ranks)
    read_bytes = tiling.pass_bytes * groups.reads // tiling.reads
    logger.info(
        "V is %d x %d %s, cut both ways: %d x %d blocks of %d x %d, read %s a pass%s; "
        "a worker may take up to %d MiB; the start is %s",
        *matrix.shape,
        matrix.dtype,
        *matrix.orientation.turn((down, across)),
        *matrix.orientation.turn(block),
        times_in_words(groups.reads),
        f" of {settings.n_init} models" if settings.n_init > 1 else "",
        groups.worker_bytes // MIB,
        "random"
        if settings.start == "random"
        else "that of {} rows and {} columns".format(*matrix.orientation.turn(tiling.sample)),
        extra={"nmf": {"event": "plan", "panels": down * across, "bytes": read_bytes}},
    )
    return cut


def check_blocks(matrix: Matrix, request: FitRequest, refusal: MemoryError) -> None:
    """Check that blocks can be used where panels do not fit.

    Raises
    ------
    MemoryError
        With the message of ``refusal``, and the requirement that the fit does not meet.
    """
    settings = request.settings
    for holds, needed in (
        (matrix.reader.any_box and not matrix.in_memory, "a Zarr or Dask array or an .npy file"),
        (settings.beta in settings.algorithm.grid_betas, "solver 'hals' and beta_loss 'frobenius'"),
        (
            request.entry_mask(matrix).uses_whole_blocks,
            "every entry to count alike: none missing, weighted or held out",
        ),
        (
            settings.start in ("sample", "random") and not request.fixed,
            "init 'sample' or 'random', and no factors",
        ),
    ):
        if not holds:
            raise MemoryError(f"{refusal}; V may be cut both ways instead, but that takes {needed}") from None
