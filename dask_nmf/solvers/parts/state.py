"""The state of a fit between two passes, and how it is extrapolated, accepted or rejected."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Protocol

import numpy as np

from dask_nmf.types import Array

N_W_SLOTS = 4  # slots for a carried W: those of the last, the previous, the best and the next pass

BETTER = 1 - 1e-6  # times the least held-out error: a smaller gain is rounding


class RowStore(Protocol):
    """A store of a factor (rows, k), read and written by ranges of rows."""

    def read(self, first: int, last: int) -> Array: ...

    def write(self, first: int, w: Array) -> None: ...


@dataclass(frozen=True)
class State:
    """The state between two passes: everything that the next pass needs besides V and a carried W."""

    h: Array  # the H of the result if this were the last pass, (k, n)
    h_input: Array  # the H that the next pass gives to the panels, (k, n); sgd: (k + 1, n)
    loss: float = float("inf")  # the objective, with the pass's W: ‖V − W h‖² and the penalties
    penalty: float = 0.0  # the share of the penalties in the loss
    beta: float = 0.5  # the weight of the extrapolation
    beta_max: float = 1.0  # the most that beta may be
    last_beta: float = 0.5  # beta before the last accepted step
    accepted: bool = True  # False: the pass raised the loss, and its step is rejected
    exact: bool = True  # the loss is from the residual, not from the expanded form, which cancels
    w_slot: int = -1  # the slot of the W that belongs to h, if W is carried; -1: there is none yet
    held_out_mse: float = float("nan")  # mean squared held-out error, with the H that the pass was given
    best: Array | None = None  # the H with the least held-out error so far
    best_held_out_mse: float = float("inf")
    best_slot: int = -1  # the slot of its W
    passes_since_best: int = 0  # accepted passes since then
    h_previous: Array | None = None  # sgd and Newton steps: the H from which `h_input` was computed
    previous_slot: int = -1  # the slot of its W
    rate: float = 1.0  # length of the steps, relative to the first ones (sgd) or to Newton steps
    epoch: int = 0  # sgd: the number of accepted sweeps
    diverged: bool = False  # no step is short enough
    stalled: bool = False  # a pass without extrapolation, or with the shortest step, did not lower the loss
    level: int = 0  # how exactly equations are solved, see `Solver.at_level`
    scales: tuple[float, ...] = ()  # blocks: divisors of the components of the H in `w_slot`; (): 1
    previous_scales: tuple[float, ...] = ()  # blocks: those of the H in `previous_slot`; (): 1

    SCALARS: ClassVar[tuple[str, ...]] = (
        "loss", "penalty", "beta", "beta_max", "last_beta", "accepted", "exact", "w_slot", "held_out_mse",
        "best_held_out_mse", "best_slot", "passes_since_best", "previous_slot", "rate", "epoch", "diverged",
        "stalled", "level", "scales", "previous_scales",
    )  # fmt: skip

    @property
    def next_slot(self) -> int:
        """The slot for the next W: the first one whose W is no longer needed."""
        taken = (self.w_slot, self.best_slot, self.previous_slot)
        return next(slot for slot in range(N_W_SLOTS) if slot not in taken)

    @property
    def as_measured(self) -> State:
        """The state whose factors have this loss; for sgd and Newton steps they are the previous ones."""
        if self.h_previous is None:
            return self
        return replace(
            self, h=self.h_previous[: len(self.h)], h_input=self.h_previous, w_slot=self.previous_slot
        )

    def track_held_out(self, before: State, totals: Any, given: Array) -> State:
        """Return the state with the held-out error of its pass, and with the best factors so far.

        Parameters
        ----------
        before : the state before the pass.
        totals : the sums of the pass, among them the held-out loss and weight.
        given : the H that has this error with the W of this state.
        """
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
            passes_since_best=before.passes_since_best + self.accepted,  # a rejected pass does not count
        )


def extrapolate(h: Array, before: Array, beta: float) -> Array:
    """Return H (k, n) extrapolated: ``max(0, H + β (H − H_before))``."""
    return np.asarray(np.maximum(h + h.dtype.type(beta) * (h - before), 0))


def reject_step(state: State, stalled: bool) -> State:
    """Return the state after a rejected step: the last H, and a smaller β.

    ``stalled`` says that the pass began without extrapolation, so that no smaller β can help.
    """
    return replace(
        state,
        h_input=state.h,
        beta=state.beta / SHRINK,
        beta_max=state.last_beta,
        accepted=False,
        stalled=stalled,
    )


def accept_step(state: State, **reached: Any) -> State:
    """Return the state after an accepted step: the fields that it ``reached``, and a larger β."""
    return State(
        level=state.level,
        beta=min(state.beta_max, GROW * state.beta),
        beta_max=min(1.0, GROW_CEILING * state.beta_max),
        last_beta=state.beta,
        **reached,
    )


GROW, GROW_CEILING, SHRINK = 1.05, 1.01, 1.5
