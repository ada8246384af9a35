"""The protocol of engines: what a fit asks of V, however V is cut and whoever computes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from dask_nmf.execution.tasks.factor_store import FactorSlots
from dask_nmf.kernels.summary.row_sample import SampleSpec, Summary
from dask_nmf.solvers.solver import Solver, State


class Model(NamedTuple):
    """A factorisation between two passes: a solver, and what it knows."""

    solver: Solver
    state: State
    exact: bool = False  # whether the loss is to be taken entry by entry
    slots: FactorSlots | None = None  # where a factor is that goes from pass to pass

    @property
    def own_solver(self) -> Solver:
        """The solver at the level of the state."""
        return self.solver.at_level(self.state.level)


class Engine(Protocol):
    """V, cut into tasks. Nothing outside of an engine asks which one it is."""

    scale: float  # a power of two, by which V counts; it is known from the first read on

    @property
    def bytes(self) -> int:
        """Bytes of V that a pass reads."""
        ...

    def summarize(self, draw: SampleSpec) -> Summary:
        """Check, measure and digest V, and draw a sample of it, in one read.

        Parameters
        ----------
        draw : how many rows of V to draw, 0 for none. An engine that holds no whole row in memory takes
            the rows and columns of its plan instead.
        """
        ...

    def sweep(self, models: Sequence[Model]) -> list[Any]:
        """Make one pass for each model, and return the totals that its solver's ``update`` takes.

        The totals of a model do not depend on the models beside it, bit for bit.
        """
        ...

    def close(self) -> None:
        """Release what the engine keeps in memory, in this process and in those of a cluster."""
        ...
