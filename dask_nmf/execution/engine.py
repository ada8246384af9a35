"""The protocol of engines: passes over V for a fit, however V is cut and wherever tasks run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from dask_nmf.execution.tasks.factor_store import FactorSlots, FactorStore
from dask_nmf.kernels.blocks.masking import EntryMask
from dask_nmf.kernels.row_sums import Sums
from dask_nmf.kernels.summary.residual_sums import Places, Residuals, ResidualSums
from dask_nmf.kernels.summary.row_sample import SampleSpec, Summary
from dask_nmf.solvers.parts.state import State
from dask_nmf.solvers.solver import Solver
from dask_nmf.types import Array

if TYPE_CHECKING:  # workers need it only for a V that is a Dask array
    import dask.array as da


class Model(NamedTuple):
    """A factorisation between two passes: a solver and its state."""

    solver: Solver
    state: State[Any]
    exact: bool = False  # whether the next pass takes the loss entry by entry
    slots: FactorSlots | None = None  # stores of the factor that is carried from pass to pass
    mask: EntryMask | None = None  # decides which entries count for this model; None: as for the engine

    @property
    def own_solver(self) -> Solver:
        """The solver at the level of the state."""
        return self.solver.at_level(self.state.level)


class Sink(NamedTuple):
    """The stores of the factors of a finished fit, in the user's units."""

    left: FactorStore  # the factor that panels hold, by rows of V in panel orientation
    right: FactorStore | None = None  # the other factor transposed, by columns of V, if it fits in no process
    means: FactorStore | None = None  # means of the rows of V, if they are taken
    weights: FactorStore | None = None  # how much counts of each row of V, if that is taken


class FinalFactors(NamedTuple):
    """The factors of a finished fit, in the user's units."""

    left: da.Array | FactorStore  # (rows, k), in (distributed) memory or in the sink
    right: Array | FactorStore  # (k, columns), or transposed in the sink
    sums: Sums  # the sums of the last pass; the residual is the loss of these factors
    means: da.Array | None = None  # of the rows of V, if they are taken and not in a sink
    residuals: Residuals | None = None  # in panel orientation and in the units of the fit, if they are taken

    def with_residuals(self, places: Places, h: Array, mask: EntryMask) -> FinalFactors:
        """Return the factors with the residuals that the sums have, if any; ``h`` is that of the pass."""
        found = self.sums.residuals
        if not isinstance(found, ResidualSums):
            return self
        groups = mask.groups_of(np.arange(0), np.arange(h.shape[1])) if mask.by_groups else None
        residuals = found.finish(places, h, groups)
        return self._replace(residuals=residuals, sums=self.sums._replace(residuals=0.0))


class Engine(Protocol):
    """Passes over V, which an engine cuts into tasks. No code outside of engines asks which one it has."""

    scale: float  # a power of two that V is multiplied by; known after the first read

    @property
    def bytes(self) -> int:
        """Bytes of V that a pass reads."""
        ...

    @property
    def name(self) -> str:
        """The name by which processes count the time of tasks; empty if they do not."""
        ...

    def summarize(self, draw: SampleSpec) -> Summary:
        """Check, measure and digest V, and draw a sample of it, in one read.

        Parameters
        ----------
        draw : the number of rows of V to draw, 0 for none, and the seed. An engine that holds no whole row in
            memory draws the rows and columns of its plan instead.
        """
        ...

    def sweep(self, models: Sequence[Model]) -> list[Any]:
        """Make one pass for all models, and return the totals that the ``update`` of each solver takes.

        V is read as often as for one model: a task loads its part of V and uses it for each model in turn.
        The totals of a model do not depend on the models beside it, bit for bit. Models have slots of their
        own. `StrataEngine` says when its models cannot share a read.
        """
        ...

    def finalize(self, model: Model, new_sink: Callable[[], Sink] | None = None) -> FinalFactors:
        """Solve for the factors of a finished fit in one or a few reads of V, and take their exact loss.

        Parameters
        ----------
        new_sink : makes a new sink for the factors, to which no late task of an earlier pass can write. None:
            the factors stay in (distributed) memory.
        """
        ...

    def close(self) -> None:
        """Release what the engine keeps in memory, in this process and in those of a cluster."""
        ...
