"""The state of a fit between two passes, and the records of which solvers compose their own part of it."""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, Generic, Protocol, TypeVar

import numpy as np

from dask_nmf.types import Array

N_W_SLOTS = 4  # slots for a carried W: those of the last, the previous, the best and the next pass

BETTER = 1 - 1e-6  # times the least held-out error: a smaller gain is rounding

GROW, GROW_CEILING, SHRINK = 1.05, 1.01, 1.5  # of the weight of the extrapolation, and of its limit

Own = TypeVar("Own")


class RowStore(Protocol):
    """A store of a factor (rows, k), read and written by ranges of rows."""

    def read(self, first: int, last: int) -> Array: ...

    def write(self, first: int, w: Array) -> None: ...


@dataclass(frozen=True)
class Snapshot:
    """Factors of an earlier pass, or none."""

    h: Array | None = None  # in the shape of `State.h_input`
    slot: int = -1  # the slot of the W that belongs to h, if W is carried


@dataclass(frozen=True)
class HeldOut:
    """The error of the held-out entries, and the factors with the least one so far."""

    mse: float = float("nan")  # mean squared error, with the H that the last pass was given
    best: Snapshot = Snapshot()
    best_mse: float = float("inf")
    passes_since_best: int = 0  # accepted passes since then

    def after(self, mse: float, factors: Snapshot, accepted: bool) -> HeldOut:
        """Return the record after a pass that found an error for factors.

        A rejected pass may find the least error, but without it no pass is counted.
        """
        if mse < BETTER * self.best_mse:
            return HeldOut(mse, factors, mse)
        return replace(self, mse=mse, passes_since_best=self.passes_since_best + accepted)


@dataclass(frozen=True)
class Extrapolation:
    """The weight β of ``H + β (H − H_before)`` (Ang & Gillis 2019)."""

    beta: float = 0.5
    beta_max: float = 1.0  # the most that beta may be
    last_beta: float = 0.5  # beta before the last accepted step

    def grown(self) -> Extrapolation:
        """Return the record after an accepted step: a larger β."""
        return Extrapolation(
            min(self.beta_max, GROW * self.beta), min(1.0, GROW_CEILING * self.beta_max), self.beta
        )

    def shrunk(self) -> Extrapolation:
        """Return the record after a rejected step: a smaller β."""
        return replace(self, beta=self.beta / SHRINK, beta_max=self.last_beta)


@dataclass(frozen=True)
class NoRecord:
    """The own record of a solver to which the common part of a state suffices."""


@dataclass(frozen=True)
class State(Generic[Own]):
    """The state between two passes: everything that the next pass needs besides V and a carried W.

    The loop, the engines and a run know the common part only. ``own`` is the record of the solver: a frozen
    dataclass of numbers, tuples of positive numbers, arrays in the shape of ``h_input`` and other such
    records. A field whose name ends in ``slot`` has the slot of a carried factor; -1: there is none.
    """

    h: Array  # the H of the result if this were the last pass, (k, n)
    h_input: Array  # the H that the next pass gives to the panels, (k, n); sgd: (k + 1, n)
    own: Own
    loss: float = float("inf")  # the objective, with the pass's W: ‖V − W h‖² and the penalties
    penalty: float = 0.0  # the share of the penalties in the loss
    exact: bool = True  # the loss is from the residual, not from the expanded form, which cancels
    accepted: bool = True  # False: the pass raised the loss, and its step is rejected
    comparable: bool = True  # whether the loss tells how much the pass gained
    stalled: bool = False  # a pass without extrapolation, or with the shortest step, did not lower the loss
    diverged: bool = False  # no step is short enough
    level: int = 0  # how exactly equations are solved, see `Solver.at_level`
    w_slot: int = -1  # the slot of the W that belongs to h
    measured: Snapshot = Snapshot()  # the factors that have this loss, if they are not the last ones
    held_out: HeldOut = HeldOut()

    @property
    def next_slot(self) -> int:
        """The slot for the next W: the first one whose W is no longer needed."""
        taken = {value for name, value in leaves(self).items() if is_slot(name)}
        return next(slot for slot in range(N_W_SLOTS) if slot not in taken)

    @property
    def as_measured(self) -> State[Own]:
        """The state whose factors have this loss."""
        h, slot = self.measured.h, self.measured.slot
        return self if h is None else replace(self, h=h[: len(self.h)], h_input=h, w_slot=slot)

    @property
    def best(self) -> tuple[Array, int]:
        """The H with the least held-out error, or the last one if nothing is held out; the slot of its W."""
        best = self.held_out.best
        return (self.h, self.w_slot) if best.h is None else (best.h, best.slot)

    def track_held_out(self, before: State[Own], totals: Any, h: Array) -> State[Own]:
        """Return the state with the held-out error of its pass, and with the best factors so far.

        Parameters
        ----------
        before : the state before the pass.
        totals : the sums of the pass, among them the held-out loss and weight.
        h : the H that has this error with the W of this state.
        """
        if totals.held_out_weight == 0:
            return self
        mse, factors = totals.held_out_loss / totals.held_out_weight, Snapshot(h, self.w_slot)
        return replace(self, held_out=before.held_out.after(mse, factors, self.accepted))


def leaves(record: Any, prefix: str = "") -> dict[str, Any]:
    """Return the fields of a record, those of the records in it by names joined with ``_``."""
    parts: dict[str, Any] = {}
    for field in fields(record):
        name, value = f"{prefix}{field.name}", getattr(record, field.name)
        parts |= leaves(value, f"{name}_") if is_dataclass(value) else {name: value}
    return parts


def with_leaves(record: Any, values: dict[str, Any], prefix: str = "") -> Any:
    """Return a record with other values of the fields that `leaves` names; the others stay."""
    parts = {}
    for field in fields(record):
        name, value = f"{prefix}{field.name}", getattr(record, field.name)
        parts[field.name] = (
            with_leaves(value, values, f"{name}_") if is_dataclass(value) else values.get(name, value)
        )
    return replace(record, **parts)


def is_slot(name: str) -> bool:
    """Return whether a field of this name has the slot of a carried factor."""
    return name.endswith("slot")


def extrapolate(h: Array, before: Array, beta: float) -> Array:
    """Return H (k, n) extrapolated: ``max(0, H + β (H − H_before))``."""
    return np.asarray(np.maximum(h + h.dtype.type(beta) * (h - before), 0))
