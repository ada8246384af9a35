"""The solver `KLNewton`: Newton steps for the Kullback-Leibler divergence, with H as the state."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal, Self

import numpy as np

from dask_nmf.kernels import kl_newton
from dask_nmf.kernels.blocks.masked import Cells
from dask_nmf.kernels.divergence import BetaDivergence, column_sums
from dask_nmf.kernels.linalg import packed_grams
from dask_nmf.kernels.row_sums import Sums
from dask_nmf.solvers.parts.penalties import Penalty, divide_components, norms_of, w_penalty
from dask_nmf.solvers.parts.squared_error import refit_rows
from dask_nmf.solvers.parts.state import Extrapolation, Snapshot, State
from dask_nmf.solvers.solver import FINER, FINEST, KnownW, Read, ReadAgain, SolverDefaults, SolvesRight
from dask_nmf.types import Array

LEAST = 0.5  # least share of an entry of H that a step leaves: the quadratic model holds no further

FURTHEST = 2.0  # times an entry: how far the model reaches; further, an update is multiplicative

NOTHING = 1e-30  # times the largest entry of H: W would overflow for a component of smaller entries

SHORTER, SHORTEST = 0.25, 0.25**3  # factor by which a rejected step is shortened, and the shortest step

MOST_READS = 2000  # reads of V, at most, to find H for a known W
CLOSE = 1e-8  # share of the loss: a step whose model gains less is taken without a read that tests it
AHEAD = 3  # steps that the H of a finished fit is ahead of an H of equal entries


@dataclass(frozen=True)
class NewtonState:
    """The record of `KLNewton`: the extrapolation of H, and the length of the steps."""

    extrapolation: Extrapolation = field(default_factory=Extrapolation)
    rate: float = 1.0  # the length of the last step, relative to a Newton step


@dataclass(frozen=True)
class KLNewton(SolvesRight, SolverDefaults):
    """Newton steps for the Kullback-Leibler divergence, with H as the state.

    W is solved in each panel by Newton's method, row by row. H gets one Newton step a pass: the sums have the
    quadratic model of the loss for each column of H, and coordinate descent minimises it. H is extrapolated
    from pass to pass, see `dask_nmf.solvers.hals.HALS`.
    """

    floor: float  # least divisor
    penalty: Penalty
    tol: float = 1e-3  # tolerance of the inner solves: with a looser one, noise hides what a pass gains
    final_tol: float = 1e-6  # tolerance of the inner solves of the last read
    one_pass: ClassVar[Literal[False]] = False
    may_overshoot: ClassVar[bool] = True
    finest: ClassVar[int] = FINEST

    def at_level(self, level: int) -> Self:
        return replace(self, tol=self.tol * FINER**level) if level else self

    def solve_w(self, v: Cells, h: Array, w: Array | None) -> Array:
        return self._solve(v, h, w, self.tol)

    def solve_w_final(self, v: Cells, h: Array, w: Array | None) -> Array:
        return self._solve(v, h, w, self.final_tol)

    def _solve(self, v: Cells, h: Array, w: Array | None, tol: float) -> Array:
        solution = kl_newton.solve(v, h.T, w_penalty(self.penalty, v), self.floor, tol, w)
        return solution.astype(h.dtype)

    def accumulate(self, v: Cells, w: Array, h: Array, exact: bool) -> Sums:
        columns = v.transpose()
        num, gram, loss = kl_newton.quadratic_models(columns, w, h.T, self.floor)
        pull = column_sums(v, w) if v.implicit_zeros else 0.0
        return Sums(num.T, gram, loss, columns.row_weight, w_sum=pull)

    def loss(self, v: Cells, w: Array, h: Array, final: bool = False) -> float:
        return BetaDivergence(1.0, 0.0 if final else self.floor).of(v, w, h)

    def update_h(self, h: Array, totals: Sums, least: float = LEAST) -> Array:
        """Return H (k, n) at the minimum of the quadratic model about ``h``, but not too far from it.

        An entry keeps at least the share ``least`` of its value. Near 0 the model reaches no further
        than `FURTHEST` times an entry: a column whose sum must grow more gets a multiplicative update.
        """
        num, gram = self.penalty.equations(totals, len(h))
        rows = h.T.astype(np.float64)
        updated = np.maximum(refit_rows(rows, num, gram, self.tol), least * rows)
        explains = totals.gram[:, packed_grams.packed_diagonal(len(h))] > 0
        updated[~explains & (num < self.penalty.right * rows)] = 0  # they explain no entry > 0, and only cost
        if isinstance(totals.w_sum, np.ndarray):
            above = np.maximum(
                totals.num.T - packed_grams.apply_packed_gram(totals.gram, rows) + totals.w_sum, 0
            )
            weighs = self.penalty.right_l1 + self.penalty.right * rows
            below = totals.w_sum + np.reshape(totals.column_weight, (-1, 1)) * weighs
            low = (rows * above).sum(axis=1) > FURTHEST * (rows * below).sum(axis=1)
            updated[low] = (rows * above / np.maximum(below, np.finfo(np.float64).tiny))[low]
        updated[updated < NOTHING * updated.max()] = 0
        return np.ascontiguousarray(updated.T, h.dtype)

    def with_penalty(self, penalty: Penalty) -> Self:
        return replace(self, penalty=penalty)

    def find_h(self, known: KnownW, read: Read) -> tuple[Array, Sums]:
        h = known.equal_entries
        return self.iterate_h(h, read(h, known.w), lambda h: read(h, known.w), known.most)

    def fit_h(self, h: Array, totals: Sums, read_again: ReadAgain, sumsq: float) -> tuple[Array, float]:
        """Return H (k, n) and its loss by Newton steps from ``h``.

        The sums with ``h`` give the first step, so that one more read mostly suffices.
        """
        right, last = self.iterate_h(h, totals, read_again, ahead=AHEAD)
        return self.penalty.without_dead(totals, right), last.residual

    def iterate_h(
        self, h: Array, totals: Sums, read_again: ReadAgain, most: int = MOST_READS, ahead: int = 0
    ) -> tuple[Array, Sums]:
        """Return the H (k, n) of the least loss, found by damped Newton steps, and sums that have its loss.

        This is the inner solve of `find_h` and `fit_h`: W stays, and each evaluation of the loss reads V.

        Parameters
        ----------
        h, totals : the H (k, n) with which the steps begin, and the sums of a read of V with it.
        read_again : makes one more read of V, from H to its sums with the same W.
        most : the most reads, counting the one that gave ``totals``.
        ahead : the number of steps that ``h`` is ahead of equal entries; entries may fall faster with more.

        Notes
        -----
        No read tests the last step, because its quadratic model gains so little; the loss includes that gain.
        """
        solver = self.at_level(self.finest)
        best_h, best_totals, least, rate = h, totals, float("inf"), 1.0
        for number in range(most):
            if number:
                totals = read_again(h)
            loss = totals.residual + solver.penalty.of(totals, h)
            if loss > least:
                rate *= SHORTER
                if rate < SHORTEST:
                    return best_h, best_totals
                h = best_h + h.dtype.type(SHORTER) * (h - best_h)
                continue
            best_h, best_totals, least, rate = h, totals, loss, 1.0
            h = solver.update_h(best_h, totals, LEAST ** (2 * (number + ahead) + 1))
            gain, size = solver.gain(best_h, h, totals)
            if 0 <= gain <= CLOSE * least + np.finfo(h.dtype).eps ** 2 * size:
                return h, totals._replace(residual=least - gain - solver.penalty.of(totals, h))
        return best_h, best_totals

    def gain(self, before: Array, h: Array, totals: Sums) -> tuple[float, float]:
        """Return the decrease of the loss from ``before`` to ``h`` by the quadratic model, and 2 Σ v."""
        num, gram = self.penalty.equations(totals, len(before))
        rows, step = before.T.astype(np.float64), (before - h).T.astype(np.float64)
        curve = packed_grams.apply_packed_gram(gram, rows)
        fall = float(np.vdot(step, 2 * (curve - num) - packed_grams.apply_packed_gram(gram, step)))
        return fall, 2 * float(np.vdot(rows, curve))

    def begin(self, h: Array, w_slot: int = -1) -> State[NewtonState]:
        return State(h, h, NewtonState(), w_slot=w_slot)

    def update(self, state: State[NewtonState], totals: Sums, baseline: float) -> State[NewtonState]:
        before, own = state.h_input, state.own
        scales, penalty = self.penalty.balance(*norms_of(totals, before))
        loss = totals.residual + penalty
        if loss > state.loss:
            return self._undone(state).track_held_out(state, totals, before)
        h = h_input = self.update_h(before, totals)
        if state.measured.h is not None and state.accepted:
            further = h + h.dtype.type(own.extrapolation.beta) * (h - state.h)
            h_input = np.maximum(further, h.dtype.type(LEAST) * h)
        return State(
            h=divide_components(h, scales),
            h_input=divide_components(h_input, scales),
            own=NewtonState(own.extrapolation.grown()),
            loss=loss,
            penalty=penalty,
            level=state.level,
            measured=Snapshot(divide_components(before, scales)),
        ).track_held_out(state, totals, before)

    def _undone(self, state: State[NewtonState]) -> State[NewtonState]:
        """Return the state after a rejected step: first without extrapolation, then with shorter steps."""
        h, before, rate = state.h, state.measured.h, state.own.rate
        if np.array_equal(state.h_input, h):
            assert before is not None
            h, rate = before + h.dtype.type(SHORTER) * (h - before), SHORTER * rate
        stalled = rate < SHORTEST  # a step at the next level is a whole one again
        own = NewtonState(state.own.extrapolation.shrunk(), 1.0 if stalled else rate)
        return replace(state, h=h, h_input=h, own=own, accepted=False, stalled=stalled)
