"""What passes and the loop ask of a solver, and the state that a pass leaves behind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Literal, NamedTuple, Protocol, Self

import numpy as np

from dask_nmf.kernels.gradient import SGDOptions
from dask_nmf.kernels.row_sums import Sums
from dask_nmf.settings import Settings
from dask_nmf.solvers.parts.penalties import Penalty
from dask_nmf.solvers.parts.state import RowStore, State
from dask_nmf.types import Array, Block

FINER = 1e-2  # times the tolerance of the inner solves, from one level to the next
FINEST = 2  # levels above the first one, of solvers that have an inner solve
LIFT = 1e-3  # of a factor's mean entry: less is raised to it where updates cannot move zeros


Look = Callable[[Array], Sums]  # a read of V: from H (k, n) to its sums, the W being known
Read = Callable[[Array, Array], Sums]  # a read of V: from H (k, n) and W (rows, k) to their sums


class Solver(Protocol):
    """What the passes and the loop ask of a solver."""

    @property
    def penalty(self) -> Penalty: ...

    @property
    def carries_w(self) -> bool:
        """Whether W must be kept from pass to pass."""
        ...

    @property
    def fits_h(self) -> bool:
        """Whether `fit_h` finds the H that is the best for a W: see `RightSolver`."""
        ...

    @property
    def may_overshoot(self) -> bool:
        """Whether the last H may be worse than `State.h_previous`, which only a read of V can tell."""
        ...

    @property
    def finest(self) -> int:
        """The highest level that `at_level` knows."""
        ...

    def at_level(self, level: int) -> Solver:
        """Return the solver for a level: each solves a pass's equations more exactly than the one before."""
        ...

    def accumulate(self, v: Block, w: Array, h: Array, exact: bool) -> Sums:
        """What H learns from a panel and its W; ``exact``: with the loss of ``h``, entry by entry."""
        ...

    def loss(self, v: Block, w: Array, h: Array, final: bool = False) -> float:
        """Return the loss of w h on a panel, without penalties.

        With ``final`` a divergence may be infinite, where an entry > 0 meets a 0 of w h.
        """
        ...

    def solve_w_final(self, v: Block, h: Array, w: Array | None) -> Array:
        """The W of a panel in the answer."""
        ...

    def result_store(self, store: RowStore) -> RowStore:
        """Return the place of a carried W, as one of a W of the result."""
        ...

    def update(self, state: State, totals: Any, sumsq: float) -> State:
        """The next state, from what a pass gave that began with ``state.h_input``."""
        ...


class PanelSolver(Solver, Protocol):
    """A solver whose passes go over panels."""

    def solve_w(self, v: Block, h: Array, w: Array | None) -> Array:
        """Return the W of a panel, (r, k), in a pass; ``w`` is the one before, if W is carried."""
        ...


class StratumSolver(Solver, Protocol):
    """A solver whose passes go over blocks, stratum by stratum."""

    def steps(self, state: State) -> SGDOptions:
        """Return how the next sweep goes on from a state."""
        ...


class RightSolver(PanelSolver, Protocol):
    """A solver that finds the factor that panels are given, (k, n), for the one that they hold."""

    @property
    def one_pass(self) -> bool:
        """Whether it follows from the sums of one pass: they have its normal equations."""
        ...

    def with_penalty(self, penalty: Penalty) -> Self:
        """Return the same solver with other penalties."""
        ...

    def update_h(self, h: Array, totals: Sums) -> Array:
        """Return H (k, n) after one step from the one that a pass was given."""
        ...

    def find_h(self, known: KnownW, read: Read) -> tuple[Array, Sums]:
        """Return the best H (k, n) for a W, and the sums of its last read of V.

        ``read`` makes one read of V, from H and W to their sums.
        """
        ...

    def fit_h(self, h: Array, totals: Sums, look: Look, sumsq: float) -> tuple[Array, float]:
        """Return the best H (k, n) for a W whose sums with ``h`` are known, and the loss.

        Parameters
        ----------
        look : one more read of V, from H to the sums with the same W.
        sumsq : ‖V‖².
        """
        ...


class SolverDefaults:
    """What holds for a solver unless it says otherwise."""

    finest: ClassVar[int] = 0
    fits_h: ClassVar[bool] = False
    may_overshoot: ClassVar[bool] = False

    def at_level(self, level: int) -> Self:
        """Return the solver itself: its updates have no inner solve that could be more exact."""
        return self

    def result_store(self, store: RowStore) -> RowStore:
        """Return the place of a carried W itself: it has no column beside those of the result."""
        return store


class SolvesRight:
    """What solvers share that find either factor exactly for the other, and so carry no W."""

    carries_w: ClassVar[Literal[False]] = False
    fits_h: ClassVar[bool] = True


class Problem(NamedTuple):
    """What a solver is made for: the settings, and what is known of V after its first read."""

    settings: Settings
    penalty: Penalty  # in the units of the fit
    level: float  # the mean of what is fitted, about 1
    scale: float  # a power of two, by which V counts
    dtype: np.dtype[Any]
    columns: int  # of the panels
    transposed: bool  # the panels are columns of V

    @property
    def floor(self) -> float:
        """The least number that a divergence divides by."""
        return smallest_divisor(self.level, self.dtype)

    @property
    def factor_scale(self) -> float:
        """The size of an entry of W and H that gives V its mean."""
        return factor_scale(self.level, self.settings.n_components)


def factor_scale(mean: float, rank: int) -> float:
    """Return √(mean(V) / k): the size of an entry of W and H that gives V its mean."""
    return float(np.sqrt(mean / rank))


def smallest_divisor(mean: float, dtype: np.dtype[Any]) -> float:
    """Return the least number that a divergence divides by, for a V of that mean."""
    limits = np.finfo(dtype)
    return max(float(limits.eps) * mean, float(limits.tiny))


class KnownW(NamedTuple):
    """A factor that H is looked for."""

    w: Array  # (rows, k)
    columns: int  # of V
    mean: float  # of V, about
    uniform: bool  # whether all entries of V count alike
    most: int  # reads of V, where one is not enough

    @property
    def equal_entries(self) -> Array:
        """The H (k, columns) of equal entries with which W H has the mean of V."""
        k = self.w.shape[1]
        size = self.mean / max(k * float(self.w.mean()), float(np.finfo(self.w.dtype).tiny))
        return np.full((k, self.columns), size, self.w.dtype)
