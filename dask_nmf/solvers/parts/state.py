"""The state of a fit between two passes, and how it is extrapolated, accepted or rejected."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Protocol

import numpy as np

from dask_nmf.types import Array

N_W_SLOTS = 4  # places for a carried W: the last one, the one before, the best one and the next one

BETTER = 1 - 1e-6  # times the least error of what is held out: less of a gain is rounding


class RowStore(Protocol):
    """A place of a factor, by rows."""

    def read(self, first: int, last: int) -> Array: ...

    def write(self, first: int, w: Array) -> None: ...


@dataclass(frozen=True)
class State:
    """What a pass leaves behind: everything the next one needs, besides V (and a carried W)."""

    h: Array  # the H that the answer would use, (k, n)
    h_input: Array  # the H that the next pass gives to the panels, (k, n)
    loss: float = float("inf")  # the objective, with the pass's W: ‖V − W h‖² and the penalties
    penalty: float = 0.0  # the penalties' part in it
    beta: float = 0.5  # extrapolation
    beta_max: float = 1.0
    last_beta: float = 0.5
    accepted: bool = True  # False: the pass raised the loss, h is the one before
    exact: bool = True  # the loss is from the residual, not from the form that cancels
    w_slot: int = -1  # where the W is that belongs to it, if one is carried; -1: not yet
    held_out_mse: float = float(
        "nan"
    )  # mean squared error of what is held out, with the H that the pass was given
    best: Array | None = None  # of the H that were given, the one with the least such error
    best_held_out_mse: float = float("inf")
    best_slot: int = -1  # where its W is
    passes_since_best: int = 0  # passes since
    h_previous: Array | None = None  # sgd, and Newton's steps: the H that `h_input` came from
    previous_slot: int = -1  # where its W is
    rate: float = 1.0  # of the steps, relative to the first ones (sgd), or to Newton's
    epoch: int = 0  # sgd: sweeps that were kept
    diverged: bool = False  # no step is short enough
    stalled: bool = False  # a pass from the H of before did not lower the loss
    level: int = 0  # how exactly equations are solved: see `Solver.at_level`
    scales: tuple[float, ...] = ()  # blocks: by what the components of the H in `w_slot` are to be divided
    previous_scales: tuple[float, ...] = ()  # and those of the H in `previous_slot`; (): by 1

    SCALARS: ClassVar[tuple[str, ...]] = (
        "loss", "penalty", "beta", "beta_max", "last_beta", "accepted", "exact", "w_slot", "held_out_mse",
        "best_held_out_mse", "best_slot", "passes_since_best", "previous_slot", "rate", "epoch", "diverged",
        "stalled", "level", "scales", "previous_scales",
    )  # fmt: skip

    @property
    def next_slot(self) -> int:
        """Where the next W may go: not where one is that may still be asked for."""
        taken = (self.w_slot, self.best_slot, self.previous_slot)
        return next(slot for slot in range(N_W_SLOTS) if slot not in taken)

    @property
    def as_measured(self) -> State:
        """The state that the loss is of: of sgd it is the one before."""
        if self.h_previous is None:
            return self
        return replace(
            self, h=self.h_previous[: len(self.h)], h_input=self.h_previous, w_slot=self.previous_slot
        )

    def track_held_out(self, before: State, totals: Any, given: Array) -> State:
        """This state, with what is held out looked at: the errors of ``given`` and the W of this state."""
        if totals.held_out_weight == 0:
            return self
        held = totals.held_out_loss / totals.held_out_weight
        if held < BETTER * before.best_held_out_mse:
            return replace(self, held_out_mse=held, best=given, best_held_out_mse=held, best_slot=self.w_slot)
        return replace(
            self,
            held_out_mse=held,
            best=before.best,
            best_held_out_mse=before.best_held_out_mse,
            best_slot=before.best_slot,
            passes_since_best=before.passes_since_best
            + self.accepted,  # a pass that went too far says nothing
        )


def extrapolate(h: Array, before: Array, beta: float) -> Array:
    """H extrapolated: ``max(0, H + β (H − H_before))``."""
    return np.asarray(np.maximum(h + h.dtype.type(beta) * (h - before), 0))


def reject_step(state: State, stalled: bool) -> State:
    """The state after a pass of `HALS` that raised the loss; ``stalled``: it began with the H of before."""
    return replace(
        state,
        h_input=state.h,
        beta=state.beta / SHRINK,
        beta_max=state.last_beta,
        accepted=False,
        stalled=stalled,
    )


def accept_step(state: State, **reached: Any) -> State:
    """The state after a pass of `HALS` that did not: what it ``reached``, and a larger β."""
    return State(
        level=state.level,
        beta=min(state.beta_max, GROW * state.beta),
        beta_max=min(1.0, GROW_CEILING * state.beta_max),
        last_beta=state.beta,
        **reached,
    )


GROW, GROW_CEILING, SHRINK = 1.05, 1.01, 1.5
