"""The solver `PiecewiseHALS`: `HALS` for an H that is in pieces, which are never together in one process."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from dask_nmf.solvers.hals import HALS
from dask_nmf.solvers.parts.state import Extrapolation, State
from dask_nmf.types import Array


class GridTotals(NamedTuple):
    """The totals of a pass that has updated H already."""

    loss: float  # without the penalty; without ‖V‖² unless ``exact``
    w_norms: Array  # Σ w² and Σ w of each component, (2, k)
    h_norms: Array  # (2, k), as the norms of W
    exact: bool  # whether the loss was taken entry by entry
    same: bool  # whether the pass began with the last H, not extrapolated


@dataclass(frozen=True)
class PiecewiseState:
    """The record of `PiecewiseHALS`: the H before the last one, and how the two are extrapolated."""

    extrapolation: Extrapolation = field(default_factory=Extrapolation)
    scales: tuple[float, ...] = ()  # divisors of the components of the last H; (): 1
    previous_slot: int = -1  # the slot of the H before
    previous_scales: tuple[float, ...] = ()  # its divisors


@dataclass(frozen=True)
class PiecewiseHALS(HALS):
    """The solver `HALS` with H in pieces: tasks of a pass update H, and the state names its slot."""

    def begin(self, h: Array, w_slot: int = -1) -> State[Any]:
        return State(h, h, PiecewiseState(), w_slot=w_slot)

    def update(self, state: State[Any], totals: Any, sumsq: float) -> State[Any]:
        """Return the next state from `GridTotals`, as `HALS` does; H is in a slot and not in the state."""
        own: PiecewiseState = state.own
        scales, penalty = self.penalty.balance(tuple(totals.w_norms), tuple(totals.h_norms))
        loss = totals.loss + penalty + (0.0 if totals.exact else sumsq)
        if loss > state.loss:
            own = replace(own, extrapolation=own.extrapolation.shrunk())
            return replace(state, own=own, accepted=False, stalled=totals.same)
        own = PiecewiseState(
            own.extrapolation.grown(),
            scales=divisors(scales),
            previous_slot=state.w_slot,
            previous_scales=divisors(scales * (own.scales or 1.0)),
        )
        return State(
            state.h,
            state.h_input,
            own,
            loss=loss,
            penalty=penalty,
            exact=totals.exact,
            level=state.level,
            w_slot=state.next_slot,
        )


def divisors(scales: Array) -> tuple[float, ...]:
    """Return the scales of components as a `State` holds them: () if all are 1."""
    return () if (scales == 1).all() else tuple(scales.tolist())
