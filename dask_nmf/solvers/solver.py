"""The solver protocols, their defaults, and the arguments from which a solver is made."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Literal, NamedTuple, Protocol, Self

import numpy as np

from dask_nmf.kernels.gradient import SGDOptions
from dask_nmf.kernels.row_sums import Sums
from dask_nmf.options.settings import Settings
from dask_nmf.solvers.parts.penalties import Penalty
from dask_nmf.solvers.parts.state import NoRecord, RowStore, State
from dask_nmf.types import Array, Block, Orientation

FINER = 1e-2  # factor of the tolerance of the inner solves from one level to the next
FINEST = 2  # the highest level of solvers that have an inner solve; the first is 0
LIFT = 1e-3  # times a factor's mean entry: the least entry where updates cannot move zeros


ReadAgain = Callable[[Array], Sums]  # a read of V: from H (k, n) to its sums with a known W
Read = Callable[[Array, Array], Sums]  # a read of V: from H (k, n) and W (rows, k) to their sums


class Solver(Protocol):
    """The protocol of all solvers, which the passes and the loop require."""

    @property
    def penalty(self) -> Penalty: ...

    @property
    def carries_w(self) -> bool:
        """True if W must be kept from pass to pass."""
        ...

    @property
    def fits_h(self) -> bool:
        """True if `RightSolver.fit_h` finds the best H for a W."""
        ...

    @property
    def may_overshoot(self) -> bool:
        """True if the last H may be worse than `State.measured`, which only a read of V can tell."""
        ...

    @property
    def finest(self) -> int:
        """The highest level that `at_level` knows."""
        ...

    @property
    def shares_products(self) -> bool:
        """True if passes use V in `least_squares.normal_equations` and `row_sums.block_sums` alone.

        Their products V Hᵀ and WᵀV are then taken for several models at once.
        """
        ...

    def at_level(self, level: int) -> Solver:
        """Return the solver for a level: the higher the level, the more exactly it solves its equations."""
        ...

    def accumulate(self, v: Block, w: Array, h: Array, exact: bool) -> Sums:
        """Return the sums of a panel v (r, n) and its W (r, k) from which H is updated.

        With ``exact`` they have the loss of W ``h``, taken entry by entry.
        """
        ...

    def loss(self, v: Block, w: Array, h: Array, final: bool = False) -> float:
        """Return the loss of w h on a panel, without penalties.

        With ``final`` a divergence is infinite if w h is 0 at an entry > 0 of v.
        """
        ...

    def solve_w_final(self, v: Block, h: Array, w: Array | None) -> Array:
        """Return the W of a panel, (r, k), for the result."""
        ...

    def result_store(self, store: RowStore) -> RowStore:
        """Return the store of a carried W as a store of a W (rows, k) of the result."""
        ...

    def begin(self, h: Array, w_slot: int = -1) -> State[Any]:
        """Return the state before the first pass, from H (k, n) and the slot of its W, if W is carried."""
        ...

    def update(self, state: State[Any], totals: Any, sumsq: float) -> State[Any]:
        """Return the next state, from the sums of a pass that began with ``state.h_input``."""
        ...


class PanelSolver(Solver, Protocol):
    """A solver whose passes go over panels."""

    def solve_w(self, v: Block, h: Array, w: Array | None) -> Array:
        """Return the W of a panel, (r, k), in a pass; ``w`` is that of the last pass, if W is carried."""
        ...


class StratumSolver(Solver, Protocol):
    """A solver whose passes go over blocks, stratum by stratum."""

    def steps(self, state: State[Any]) -> SGDOptions:
        """Return the options of the next sweep from a state."""
        ...

    def epoch(self, state: State[Any]) -> int:
        """Return the number of the next sweep; the order of its blocks and rows follows from it."""
        ...


class RightSolver(PanelSolver, Protocol):
    """A solver that finds the best H (k, n), which panels are given, for a W that they hold."""

    @property
    def one_pass(self) -> bool:
        """True if H follows from the sums of one pass, because they have its normal equations."""
        ...

    def with_penalty(self, penalty: Penalty) -> Self:
        """Return the same solver with other penalties."""
        ...

    def update_h(self, h: Array, totals: Sums) -> Array:
        """Return H (k, n) after one step from ``h``, the H of the pass that gave the sums."""
        ...

    def find_h(self, known: KnownW, read: Read) -> tuple[Array, Sums]:
        """Return the best H (k, n) for a W, and the sums of its last read of V.

        This is an inner solve, not a fit: W stays, and each evaluation is a read of V. ``read`` makes one,
        from H and W to their sums.
        """
        ...

    def fit_h(self, h: Array, totals: Sums, read_again: ReadAgain, sumsq: float) -> tuple[Array, float]:
        """Return the best H (k, n) for a W whose sums with ``h`` are known, and the loss.

        Parameters
        ----------
        read_again : makes one more read of V, from H to the sums with the same W.
        sumsq : ‖V‖².
        """
        ...


class SolverDefaults:
    """Defaults of the solver protocol, as a mixin."""

    finest: ClassVar[int] = 0
    fits_h: ClassVar[bool] = False
    may_overshoot: ClassVar[bool] = False

    @property
    def shares_products(self) -> bool:
        return False

    def at_level(self, level: int) -> Self:
        """Return the solver itself: its updates have no inner solve that could be more exact."""
        return self

    def begin(self, h: Array, w_slot: int = -1) -> State[Any]:
        """Return a state with no record of the solver's own."""
        return State(h, h, NoRecord(), w_slot=w_slot)

    def result_store(self, store: RowStore) -> RowStore:
        """Return the store of a carried W unchanged: it has no column beyond those of the result."""
        return store


class SolvesRight:
    """A mixin of solvers that find each factor exactly for the other, and so carry no W."""

    carries_w: ClassVar[Literal[False]] = False
    fits_h: ClassVar[bool] = True


class Problem(NamedTuple):
    """The arguments of a solver's ``make``: the settings, and the findings of the first read of V."""

    settings: Settings
    penalty: Penalty  # in the units of the fit
    level: float  # the mean of the scaled V that is fitted, about 1
    scale: float  # a power of two, by which V is multiplied
    dtype: np.dtype[Any]
    columns: int  # the number of columns of the panels
    orientation: Orientation  # of the panels

    @property
    def floor(self) -> float:
        """The least number that a divergence divides by."""
        return smallest_divisor(self.level, self.dtype)

    @property
    def factor_scale(self) -> float:
        """The size of the entries of W and H for which W H has the mean of V."""
        return factor_scale(self.level, self.settings.n_components)


def factor_scale(mean: float, rank: int) -> float:
    """Return √(mean(V) / k): the size of the entries of W and H for which W H has the mean of V."""
    return float(np.sqrt(mean / rank))


def smallest_divisor(mean: float, dtype: np.dtype[Any]) -> float:
    """Return the least number that a divergence divides by, for a V of this mean and dtype."""
    limits = np.finfo(dtype)
    return max(float(limits.eps) * mean, float(limits.tiny))


class KnownW(NamedTuple):
    """A known W, for which H is to be found."""

    w: Array  # (rows, k)
    columns: int  # the number of columns of V
    mean: float  # the mean of V, approximately
    uniform: bool  # whether all entries of V count alike
    most: int  # the most reads of V, if one does not suffice

    @property
    def equal_entries(self) -> Array:
        """The H (k, columns) of equal entries for which W H has the mean of V."""
        k = self.w.shape[1]
        size = self.mean / max(k * float(self.w.mean()), float(np.finfo(self.w.dtype).tiny))
        return np.full((k, self.columns), size, self.w.dtype)
