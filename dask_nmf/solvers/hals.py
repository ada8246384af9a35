"""The solver `HALS`: alternating non-negative least squares for the squared error.

A solver is a frozen record of its options; a `State` holds everything that changes from pass to pass. Both
use panel orientation: W has the rows of the panels, and every panel is given the whole H.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Self

import numpy as np

from dask_nmf.kernels import double_precision, least_squares, row_sums
from dask_nmf.kernels.linalg.householder import PivotedQR
from dask_nmf.kernels.row_sums import Sums
from dask_nmf.solvers.newton import KLNewton
from dask_nmf.solvers.parts.penalties import NO_PENALTY, Penalty, divide_components, norms_of
from dask_nmf.solvers.parts.squared_error import SquaredError, in_threads, loss_of_h, refit_rows, solve_rows
from dask_nmf.solvers.parts.state import Extrapolation, State, extrapolate
from dask_nmf.solvers.solver import (
    FINER,
    FINEST,
    KnownW,
    Problem,
    Read,
    ReadAgain,
    SolverDefaults,
    SolvesRight,
)
from dask_nmf.types import Array, Block


@dataclass(frozen=True)
class HALS(SquaredError, SolvesRight, SolverDefaults):
    """Alternating non-negative least squares with H as the state; see docs/algorithms.md.

    W is solved anew in each panel, H from the sums, both by coordinate descent, and H is extrapolated from
    pass to pass: ``H_y = max(0, H + β (H − H_before))``. β grows while the loss falls. When the loss rises,
    the step is rejected and β shrinks (Ang & Gillis 2019).
    """

    penalty: Penalty = NO_PENALTY
    tol: float = 1e-2  # tolerance of the inner solves, see `least_squares.refit`
    in_float64: bool = False  # whether equations of float32 data are made and solved in float64
    one_pass: ClassVar[Literal[True]] = True
    finest: ClassVar[int] = FINEST

    @property
    def shares_products(self) -> bool:
        return not self.in_float64  # then there are strips in float64

    def at_level(self, level: int) -> Self:
        return replace(self, tol=self.tol * FINER**level, in_float64=True) if level else self

    def solve_w(self, v: Block, h: Array, w: Array | None) -> Array:
        if self.in_float64:
            return self.solve_w_final(v, h, w)
        return least_squares.solve_w(v, h, self.tol, self.penalty.left, self.penalty.left_l1)

    def accumulate(self, v: Block, w: Array, h: Array, exact: bool) -> Sums:
        h_or_none = h if exact else None
        return (
            double_precision.block_sums(v, w, h_or_none)
            if self.in_float64
            else row_sums.block_sums(v, w, h_or_none)
        )

    def solve_w_final(self, v: Block, h: Array, w: Array | None) -> Array:
        solve = double_precision.exact_w if self.in_float64 else least_squares.exact_w
        return solve(v, h, self.penalty.left, self.penalty.left_l1)

    def solve_h(self, h: Array, totals: Sums) -> Array:
        """Return the H (k, n) that solves the normal equations exactly, in the dtype of ``h``."""
        num, gram = self.penalty.equations(totals, len(h))
        return solve_rows(num, gram).T.astype(h.dtype)

    def with_penalty(self, penalty: Penalty) -> Self:
        return replace(self, penalty=penalty)

    def find_h(self, known: KnownW, read: Read) -> tuple[Array, Sums]:
        """Return H by normal equations, or by an orthonormal basis of W if W is badly conditioned."""
        w, columns = known.w, known.columns
        factor = self.factor_of(w) if known.uniform else None
        basis = w if factor is None else factor.basis.astype(w.dtype)
        blank = np.zeros((basis.shape[1], columns), w.dtype)
        totals = read(blank, basis)
        if factor is None:
            return self.solve_h(blank, totals), totals
        return self.solve_h_by_factor(factor, len(w), totals).astype(w.dtype), totals

    def fit_h(self, h: Array, totals: Sums, read_again: ReadAgain, sumsq: float) -> tuple[Array, float]:
        right = self.solve_h(h, totals)
        return right, loss_of_h(sumsq, totals, h, right)

    def factor_of(self, left: Array) -> PivotedQR | None:
        """Return the pivoted QR of a left factor (rows, k) that is too ill-conditioned for normal equations.

        None means that the normal equations for H are accurate enough.
        """
        return least_squares.qr_factor(left.T, self.penalty.right)

    def solve_h_by_factor(self, factor: PivotedQR, rows: int, totals: Sums) -> Array:
        """Return H (k, n), float64, from the QR of a W (rows, k), and sums taken with its basis as W."""
        lasso, target = self.penalty.right_l1 * rows, totals.num.T
        return in_threads(
            lambda some, upper: least_squares.solve_by_qr(target[some], upper, lasso),
            target,
            factor.upper,
        ).T

    def update_h(self, h: Array, totals: Sums) -> Array:
        """Return H (k, n) from the sums; the inner solve begins at ``h``, the H of the pass."""
        num, gram = self.penalty.equations(totals, len(h))
        dtype = np.float64 if self.in_float64 else h.dtype
        updated = refit_rows(h.T.astype(dtype), num.astype(dtype), gram, self.tol)
        return np.ascontiguousarray(updated.T, h.dtype)

    def begin(self, h: Array, w_slot: int = -1) -> State[Extrapolation]:
        return State(h, h, Extrapolation(), w_slot=w_slot)

    def update(self, state: State[Extrapolation], totals: Sums, sumsq: float) -> State[Extrapolation]:
        before, own = state.h_input, state.own
        h = self.update_h(before, totals)
        scales, penalty = self.penalty.balance(*norms_of(totals, h))
        loss = loss_of_h(sumsq, totals, before, h) + penalty
        if loss > state.loss:
            stalled = np.array_equal(before, state.h)  # it was not extrapolated: no smaller β can help
            rejected = replace(state, h_input=state.h, own=own.shrunk(), accepted=False, stalled=stalled)
            return rejected.track_held_out(state, totals, before)
        return State(
            h=divide_components(h, scales),
            h_input=divide_components(extrapolate(h, state.h, own.beta), scales),
            own=own.grown(),
            loss=loss,
            penalty=penalty,
            exact=not np.isnan(totals.residual),
            level=state.level,
        ).track_held_out(state, totals, before)


def make(problem: Problem) -> HALS | KLNewton:
    """Return the solver for the squared error, or for the Kullback-Leibler divergence."""
    if problem.settings.beta == 2:
        return HALS(problem.penalty)
    return KLNewton(problem.floor, problem.penalty)
