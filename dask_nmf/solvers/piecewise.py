"""The solver `PiecewiseHALS`: `HALS` for an H that is in pieces, which are never together in one process."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from dask_nmf.solvers.hals import HALS
from dask_nmf.solvers.parts.state import State, accept_step, reject_step
from dask_nmf.types import Array


class GridTotals(NamedTuple):
    """The totals of a pass that has updated H already."""

    loss: float  # without the penalty; without ‖V‖² unless ``exact``
    w_norms: Array  # Σ w² and Σ w of each component, (2, k)
    h_norms: Array  # (2, k), as the norms of W
    exact: bool  # whether the loss was taken entry by entry
    same: bool  # whether the pass began with the last H, not extrapolated


@dataclass(frozen=True)
class PiecewiseHALS(HALS):
    """The solver `HALS` with H in pieces: tasks of a pass update H, and the state names its slot."""

    def update(self, state: State, totals: Any, sumsq: float) -> State:
        """Return the next state from `GridTotals`, as `HALS` does; H is in a slot and not in the state."""
        scales, penalty = self.penalty.balance(tuple(totals.w_norms), tuple(totals.h_norms))
        loss = totals.loss + penalty + (0.0 if totals.exact else sumsq)
        if loss > state.loss:
            return reject_step(state, totals.same)
        return accept_step(
            state,
            h=state.h,
            h_input=state.h_input,
            loss=loss,
            penalty=penalty,
            exact=totals.exact,
            w_slot=state.next_slot,
            previous_slot=state.w_slot,
            scales=divisors(scales),
            previous_scales=divisors(scales * (state.scales or 1.0)),
        )


def divisors(scales: Array) -> tuple[float, ...]:
    """Return the scales of components as a `State` holds them: () if all are 1."""
    return () if (scales == 1).all() else tuple(scales.tolist())
