"""The updates of H from the sums of a pass, and the state that goes with them."""

from typing import Any

import numpy as np
import pytest
import scipy.optimize
from hypothesis import given
from hypothesis import strategies as st
from support.matrices import Array, low_rank

from dask_nmf.kernels import least_squares, row_sums
from dask_nmf.kernels.row_sums import Sums
from dask_nmf.solvers import mu
from dask_nmf.solvers.hals import HALS
from dask_nmf.solvers.mu import MU
from dask_nmf.solvers.parts import squared_error
from dask_nmf.solvers.parts.loss_terms import SquaredTerms
from dask_nmf.solvers.parts.squared_error import loss_of_h, refit_rows
from dask_nmf.solvers.parts.state import SHRINK, Extrapolation, State

V = low_rank(50, 14, 3, noise=1)
SUMSQ = float(np.sum(V**2))
FIRST = low_rank(3, 14, 3, seed=4) + 0.01


def one_pass(solver: Any, state: State[Any], w: Array | None = None) -> tuple[State[Any], Array]:
    w = solver.solve_w(V, state.h_input, w)
    return solver.update(state, row_sums.block_sums(V, w), SUMSQ), w


def test_h_is_the_least_squares_solution_of_the_sums() -> None:
    solver = HALS(tol=1e-10)
    w = low_rank(50, 3, 2, seed=1)
    state = solver.update(solver.begin(FIRST), row_sums.block_sums(V, w), SUMSQ)
    expected = np.column_stack([scipy.optimize.nnls(w, column)[0] for column in V.T])
    np.testing.assert_allclose(state.h, expected, atol=1e-7)
    assert state.loss == pytest.approx(float(np.sum((V - w @ state.h) ** 2)))


def test_hals_loss_falls_to_that_of_its_fixed_point() -> None:
    solver = HALS()
    state = solver.begin(FIRST)
    losses = []
    for _ in range(60):
        state, _ = one_pass(solver, state)
        losses.append(state.loss)
    assert np.all(np.diff(losses) <= 0)
    w = solver.solve_w_final(V, state.h, None)
    assert float(np.sum((V - w @ state.h) ** 2)) <= state.loss * (1 + 1e-9)
    assert losses[-2] - losses[-1] < 1e-5 * losses[-1]


def test_a_step_that_raises_the_loss_is_undone() -> None:
    solver = HALS()
    good, _ = one_pass(solver, solver.begin(FIRST))
    own = Extrapolation(beta=0.6, last_beta=0.4)
    good = State(good.h, np.zeros_like(FIRST) + FIRST[:, ::-1], own, loss=0.1 * good.loss)
    undone, _ = one_pass(solver, good)
    np.testing.assert_array_equal(undone.h, good.h)
    np.testing.assert_array_equal(undone.h_input, good.h)
    assert undone.loss == good.loss
    assert not undone.accepted
    assert undone.own.beta == pytest.approx(0.6 / SHRINK)
    assert undone.own.beta_max == 0.4


@given(passes=st.integers(1, 12))
def test_extrapolation_stays_within_its_bounds(passes: int) -> None:
    state = HALS().begin(FIRST)
    for _ in range(passes):
        state, _ = one_pass(HALS(), state)
        assert 0 < state.own.beta <= state.own.beta_max <= 1
        assert state.h_input.min() >= 0


@pytest.mark.parametrize("inner", [1, 4])
def test_mu_never_raises_the_loss(inner: int) -> None:
    solver = MU(SquaredTerms(1e-12), 1e-3, inner_iter=inner)
    state, w = solver.begin(FIRST), None
    losses = []
    for _ in range(40):
        state, w = one_pass(solver, state, w)
        losses.append(float(np.sum((V - w @ state.h) ** 2)))
        assert state.loss == pytest.approx(losses[-1])
    assert np.all(np.diff(losses) <= 1e-12 * SUMSQ)


def test_mu_of_columns_keeps_the_pair_that_belongs_together() -> None:
    solver = MU(SquaredTerms(1e-12), 1e-3, w_first=False)
    state, w = one_pass(solver, solver.begin(FIRST), low_rank(50, 3, 2, seed=1))
    np.testing.assert_array_equal(state.h, FIRST)
    assert state.loss == pytest.approx(float(np.sum((V - w @ FIRST) ** 2)))
    np.testing.assert_allclose(state.h_input, FIRST * (w.T @ V) / (w.T @ w @ FIRST), rtol=1e-9)


def test_mu_starts_from_no_zero() -> None:
    assert MU(SquaredTerms(1e-12), 1e-3).solve_w(V, np.eye(3, 14), None).min() > 0


@pytest.mark.parametrize("exact", [False, True])
def test_loss_of_an_updated_h(exact: bool) -> None:
    w, before, after = low_rank(50, 3, 2, seed=1), FIRST, FIRST[:, ::-1]
    totals = row_sums.block_sums(V, w, before if exact else None)
    direct = float(np.sum((V - w @ after) ** 2))
    assert loss_of_h(SUMSQ, totals, before, after) == pytest.approx(direct, rel=1e-10)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_threads_do_not_change_a_row(dtype: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(squared_error, "IN_ONE_GO", 10)
    num, gram = (V @ FIRST.T).astype(dtype), FIRST @ FIRST.T
    start = np.ones_like(num)
    np.testing.assert_array_equal(
        refit_rows(start, num, gram, 1e-3), least_squares.refit(start, num, gram, 1e-3)
    )


def test_lift_leaves_what_is_above() -> None:
    np.testing.assert_array_equal(mu.clip_below(np.asarray([0.0, 1e-9, 2.0]), 0.1), [0.1, 0.1, 2.0])


def test_sums_of_nothing_learnt_leave_h_finite() -> None:
    nothing = Sums(np.zeros((3, 14)), np.zeros((3, 3)), np.nan)
    for solver in (HALS(), MU(SquaredTerms(1e-12), 1e-3)):
        assert np.isfinite(solver.update(solver.begin(FIRST), nothing, 0.0).h_input).all()
