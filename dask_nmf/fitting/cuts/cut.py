"""The protocol of cuts: the engine of a fit, and what a start and a result need of how V is cut."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from dask_nmf.execution.engine import Engine, FinalFactors, Model, Sink
from dask_nmf.execution.tasks.factor_store import FactorSlots
from dask_nmf.fitting.request import FitRequest
from dask_nmf.fitting.starts.problem import Measures
from dask_nmf.fitting.starts.sampled.trial import SampledStart
from dask_nmf.iteration.outcome import Ending
from dask_nmf.kernels.summary.row_sample import Candidates, SampleSpec
from dask_nmf.planning.grid import GridPlan
from dask_nmf.planning.row_panels import PanelPlan
from dask_nmf.runs.run import Run
from dask_nmf.solvers.parts.state import State
from dask_nmf.solvers.solver import Solver
from dask_nmf.sources.matrix import Matrix
from dask_nmf.types import Array


@dataclass(frozen=True)
class FitProgress:
    """A fit between two passes."""

    solver: Solver
    measures: Measures
    slots: FactorSlots | None  # the stores of a factor that is carried from pass to pass
    state: State[Any]
    number: int = 0
    history: tuple[float, ...] = ()
    ending: Ending | None = None
    run: Run | None = None  # to which passes are committed
    objectives: tuple[float, ...] = ()  # of all starts, if there are several: see `Result`

    @property
    def final(self) -> bool:
        """True if no pass follows."""
        return self.ending is not None and self.ending.outcome.final

    @property
    def model(self) -> Model:
        """The model of the next pass."""
        return Model(self.solver, self.state, slots=self.slots)


class CutEdges(NamedTuple):
    """The edges of the parts of V."""

    rows: Sequence[int]  # of panels, or of rows of blocks
    columns: Sequence[int] | None = None  # of columns of blocks, if V is cut both ways

    @property
    def both_ways(self) -> bool:
        """True if the right factor is cut too, because it fits in no process."""
        return self.columns is not None


class Cut(Protocol):
    """The protocol of V cut for one fit."""

    @property
    def request(self) -> FitRequest: ...

    @property
    def matrix(self) -> Matrix: ...

    @property
    def engine(self) -> Engine:
        """The engine that makes the passes."""
        ...

    @property
    def plan(self) -> PanelPlan | GridPlan:
        """The plan of the cut, by which models that share a pass are grouped."""
        ...

    @property
    def ranks(self) -> tuple[int, ...]:
        """The number of columns that the factors of each start have between passes."""
        ...

    @property
    def cache_bytes(self) -> int:
        """The bytes of V that each process may cache between passes."""
        ...

    @property
    def edges(self) -> CutEdges: ...

    @property
    def needs_run(self) -> str | None:
        """The reason why the fit needs a run on disk even without an output; None if it needs none."""
        ...

    @property
    def draw(self) -> SampleSpec:
        """The rows of V that the first read draws for the start."""
        ...

    def draw_candidates(self, draws: Sequence[SampleSpec]) -> Iterator[Candidates]:
        """Yield the rows of V that each of several starts draws; they share reads as far as memory allows."""
        ...

    def sampled_start(self, candidates: Candidates, measures: Measures) -> SampledStart | None:
        """Return the start from the sample that the first read drew; None if it has no sample."""
        ...

    def for_start(self, number: int) -> Cut:
        """Return the cut for one of several starts, which has a seed of its own."""
        ...

    def slots(self, run: Run | None) -> FactorSlots | None:
        """Return the stores of a factor that is carried from pass to pass; None if no factor is carried."""
        ...

    def initial_state(
        self, measures: Measures, sampled: Array | None, slots: FactorSlots | None
    ) -> State[Any]:
        """Return the state before the first pass, and write the factors that are carried."""
        ...

    def solver(self, measures: Measures) -> Solver:
        """Return the solver of the fit, at the scale of V."""
        ...

    def finalize(self, progress: FitProgress, new_sink: Callable[[], Sink] | None) -> FinalFactors:
        """Read V for the last time, and return the factors of the result: see `Engine.finalize`."""
        ...
