"""The solver for Kullback & Leibler's divergence: Newton's steps, with H as the state."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Self

import numpy as np

from dask_nmf.kernels import divergence, kl_newton
from dask_nmf.kernels.blocks.masked import Cells
from dask_nmf.kernels.linalg import packed_grams
from dask_nmf.kernels.row_sums import Sums
from dask_nmf.solvers.parts.penalties import Penalty, divide_components, norms_of, w_penalty
from dask_nmf.solvers.parts.squared_error import refit_rows
from dask_nmf.solvers.parts.state import SHRINK, State, accept_step
from dask_nmf.solvers.solver import FINER, FINEST, KnownW, Look, Read, SolverDefaults, SolvesRight
from dask_nmf.types import Array

LEAST = 0.5  # of an entry of H that a step leaves: further, a quadratic model is not to be trusted

FURTHEST = 2.0  # times an entry, that a step goes

NOTHING = 1e-30  # of the largest entry of H: a component of such entries would get a W that overflows

SHORTER, SHORTEST = 0.25, 0.25**3  # steps, where Newton's is too long

MOST_READS = 2000  # of V, for a W that is known
CLOSE = 1e-8  # of the loss: a step that gains less by its model needs no read to be believed
AHEAD = 3  # steps that an H is ahead of one of equal entries, where a fit ended with it


@dataclass(frozen=True)
class KLNewton(SolvesRight, SolverDefaults):
    """Kullback & Leibler's divergence, with H as the state.

    W is solved in each panel by Newton's method, row by row. H gets one step of it a pass: the sums have the
    quadratic model of the loss for each column of H, and coordinate descent brings it down. H is extrapolated
    from pass to pass as in `dask_nmf.solvers.hals.HALS`.
    """

    floor: float  # of what is divided by
    penalty: Penalty
    tol: float = 1e-3  # of the inner solves: with less, noise hides what a pass gains
    final_tol: float = 1e-6
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
        found = kl_newton.solve(v, h.T, w_penalty(self.penalty, v), self.floor, tol, w)
        return found.astype(h.dtype)

    def accumulate(self, v: Cells, w: Array, h: Array, exact: bool) -> Sums:
        columns = v.transpose()
        num, gram, loss = kl_newton.quadratic_models(columns, w, h.T, self.floor)
        pull = w.sum(axis=0, dtype=np.float64) if v.implicit_zeros else 0.0
        return Sums(num.T, gram, loss, columns.row_weight, w_sum=pull)

    def loss(self, v: Cells, w: Array, h: Array, final: bool = False) -> float:
        return divergence.divergence(v, w, h, 1.0, 0.0 if final else self.floor)

    def update_h(self, given: Array, totals: Sums, least: float = LEAST) -> Array:
        """H at the bottom of the quadratic model about the one that was given, but not too far from it.

        An entry keeps at least the share ``least``. Near 0 a model goes no further than to twice an entry:
        a column whose sum is further from that of V gets a multiplicative update.
        """
        num, gram = self.penalty.equations(totals, len(given))
        begun = given.T.astype(np.float64)
        h = np.maximum(refit_rows(begun, num, gram, self.tol), least * begun)
        explains = totals.gram[:, packed_grams.packed_diagonal(len(given))] > 0
        h[~explains & (num < self.penalty.right * begun)] = 0  # what explains no entry > 0 only costs
        if isinstance(totals.w_sum, np.ndarray):
            above = np.maximum(
                totals.num.T - packed_grams.apply_packed_gram(totals.gram, begun) + totals.w_sum, 0
            )
            weighs = self.penalty.right_l1 + self.penalty.right * begun
            below = totals.w_sum + np.reshape(totals.column_weight, (-1, 1)) * weighs
            low = (begun * above).sum(axis=1) > FURTHEST * (begun * below).sum(axis=1)
            h[low] = (begun * above / np.maximum(below, np.finfo(np.float64).tiny))[low]
        h[h < NOTHING * h.max()] = 0
        return np.ascontiguousarray(h.T, given.dtype)

    def with_penalty(self, penalty: Penalty) -> Self:
        return replace(self, penalty=penalty)

    def find_h(self, known: KnownW, read: Read) -> tuple[Array, Sums]:
        h = known.equal_entries
        return self.iterate_h(h, read(h, known.w), lambda h: read(h, known.w), known.most)

    def fit_h(self, h: Array, totals: Sums, look: Look, sumsq: float) -> tuple[Array, float]:
        """Newton's steps begin at ``h``, and its sums have the first: that is one more read, mostly."""
        right, found = self.iterate_h(h, totals, look, ahead=AHEAD)
        return self.penalty.without_dead(totals, right), found.residual

    def iterate_h(
        self, h: Array, totals: Sums, look: Look, most: int = MOST_READS, ahead: int = 0
    ) -> tuple[Array, Sums]:
        """Return the H, (k, n), of the least loss, by Newton's steps, and sums that have its loss.

        Parameters
        ----------
        h, totals : where the steps begin, and what a read of V with it gave.
        look : one more read; W is the same in all.
        most : reads, with the one that is done.
        ahead : steps that h is nearer than equal entries are: entries that should be 0 fall the faster.

        Notes
        -----
        The last step gains so little by its quadratic model that no read tests it; the loss counts that gain.
        """
        solver = self.at_level(self.finest)
        good, best, reached, rate = h, totals, float("inf"), 1.0
        for number in range(most):
            if number:
                totals = look(h)
            loss = totals.residual + solver.penalty.of(totals, h)
            if loss > reached:
                rate *= SHORTER
                if rate < SHORTEST:
                    return good, best
                h = good + h.dtype.type(SHORTER) * (h - good)
                continue
            good, best, reached, rate = h, totals, loss, 1.0
            h = solver.update_h(good, totals, LEAST ** (2 * (number + ahead) + 1))
            gain, size = solver.gain(good, h, totals)
            if 0 <= gain <= CLOSE * reached + np.finfo(h.dtype).eps ** 2 * size:
                return h, totals._replace(residual=reached - gain - solver.penalty.of(totals, h))
        return good, best

    def gain(self, given: Array, h: Array, totals: Sums) -> tuple[float, float]:
        """Return by how much h lowers the loss by the quadratic model about ``given``, and 2 Σ v."""
        num, gram = self.penalty.equations(totals, len(given))
        begun, step = given.T.astype(np.float64), (given - h).T.astype(np.float64)
        curve = packed_grams.apply_packed_gram(gram, begun)
        fall = float(np.vdot(step, 2 * (curve - num) - packed_grams.apply_packed_gram(gram, step)))
        return fall, 2 * float(np.vdot(begun, curve))

    def update(self, state: State, totals: Sums, baseline: float) -> State:
        given = state.h_input
        scales, penalty = self.penalty.balance(*norms_of(totals, given))
        reached = totals.residual + penalty
        if reached > state.loss:
            return self._undone(state).track_held_out(state, totals, given)
        h = h_input = self.update_h(given, totals)
        if state.h_previous is not None and state.accepted:
            further = h + h.dtype.type(state.beta) * (h - state.h)
            h_input = np.maximum(further, h.dtype.type(LEAST) * h)
        return accept_step(
            state,
            h=divide_components(h, scales),
            h_input=divide_components(h_input, scales),
            loss=reached,
            penalty=penalty,
            h_previous=divide_components(given, scales),
        ).track_held_out(state, totals, given)

    def _undone(self, state: State) -> State:
        """To where Newton's step led, without extrapolation; from there by shorter steps."""
        assert state.h_previous is not None
        h, rate = state.h, state.rate
        if np.array_equal(state.h_input, h):
            h, rate = state.h_previous + h.dtype.type(SHORTER) * (h - state.h_previous), SHORTER * rate
        return replace(
            state,
            h=h,
            h_input=h,
            beta=state.beta / SHRINK,
            beta_max=state.last_beta,
            accepted=False,
            rate=rate,
            stalled=rate < SHORTEST,
        )
