"""The protocol of cuts: the engine of a fit, with its first and its last read of V."""

from __future__ import annotations

from typing import Protocol

from dask_nmf.execution.engine import Engine
from dask_nmf.execution.tasks.factor_store import FactorSlots
from dask_nmf.fitting.finalize import Output, Progress, Result
from dask_nmf.fitting.starts.problem import Measures
from dask_nmf.iteration.outcome import Ending, Outcome
from dask_nmf.runs.resume import NewRun
from dask_nmf.runs.run import Run
from dask_nmf.solvers.solver import Solver


class Cut(Protocol):
    """The protocol of V cut for one fit."""

    @property
    def engine(self) -> Engine:
        """The engine that makes the passes."""
        ...

    @property
    def needs_run(self) -> str | None:
        """The reason why the fit needs a run on disk even without an output; None if it needs none."""
        ...

    def begin(self, where: Run | NewRun | None) -> tuple[Run | None, Progress]:
        """Read V for the first time, and return the fit before its first pass, committed to its run."""
        ...

    def resume(self, run: Run) -> Progress:
        """Return the fit of a run at its last commit."""
        ...

    def finish(self, output: Output, progress: Progress) -> Result:
        """Read V for the last time, and return the result, committed to the run if there is one."""
        ...


def resumed(run: Run, solver: Solver, measures: Measures, slots: FactorSlots | None) -> Progress:
    """Return the fit of a run at its last commit."""
    record = run.record
    ending = Ending(Outcome(record["outcome"]), record["message"]) if record["outcome"] else None
    history = tuple(record["history"]["relative_error"])
    return Progress(solver, measures, slots, run.state(), record["pass"], history, ending)
