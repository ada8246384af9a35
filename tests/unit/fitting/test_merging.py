"""Merging of components: the cost of a merge, and a path of ranks from one fit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import nnls
from support.strategies import seeds

from dask_nmf.fitting.starts.sampled.merging import merge, merge_costs, merge_down, merge_path
from dask_nmf.types import Array


def least_loss(v: Array, h: Array) -> float:
    """The squared error of H with the best W."""
    return float(sum(nnls(h.T, row)[1] ** 2 for row in v))


@given(st.integers(0, 2**31), st.integers(3, 6))
def test_merging_two_components_loses_the_least(seed: int, k: int) -> None:
    """The loss of merging is the square of the second singular value of what the pair explains."""
    rng = np.random.default_rng(seed)
    w, h = rng.random((20, k)) * rng.random(k), rng.random((k, 9)) * (rng.random((k, 9)) < 0.7)
    costs = merge_costs(h, w.T @ w)
    for i in range(k):
        assert np.isinf(costs[i, : i + 1]).all()
        for j in range(i + 1, k):
            second = np.linalg.svd(w[:, [i, j]] @ h[[i, j]], compute_uv=False)[1]
            assert costs[i, j] == pytest.approx(second**2, rel=1e-6, abs=1e-9 * np.sum((w @ h) ** 2))
    merged, gram = merge(h, w.T @ w, 0, 1)
    pair = w[:, [0, 1]] @ h[[0, 1]]
    row = merged[-1:]
    left = pair @ row.T / max(float((row @ row.T).item()), 1e-300)
    assert np.sum((pair - left @ row) ** 2) == pytest.approx(
        costs[0, 1], rel=1e-6, abs=1e-9 * np.sum(pair**2)
    )
    assert gram[-1, -1] * np.sum(row**2) == pytest.approx(np.sum((left @ row) ** 2), rel=1e-6)


@given(seeds, st.integers(2, 6))
def test_a_path_of_ranks_has_starts_that_lose_no_more_than_they_cost(seed: int, k: int) -> None:
    """Each merge moves W H by the root of its cost, so that √loss grows by no more, for any V."""
    rng = np.random.default_rng(seed)
    w, h, noise = rng.random((20, k)), rng.random((k, 15)), rng.random((20, 15))
    path = merge_path(h, w.T @ w, range(1, k + 1))
    assert (list(path.starts), list(path.costs)) == ([*range(k, 0, -1)], [*range(k - 1, 0, -1)])
    np.testing.assert_array_equal(path.starts[k], h)
    assert path.costs[k - 1] == merge_costs(h, w.T @ w).min()
    moved = 0.0
    for rank, cost in path.costs.items():
        np.testing.assert_array_equal(path.starts[rank], merge_down(h, w.T @ w, rank))
        moved += np.sqrt(cost)
        for v in (w @ h, w @ h + noise):
            bound = np.linalg.norm(v - w @ h) + moved
            assert np.sqrt(least_loss(v, path.starts[rank])) <= bound * (1 + 1e-9) + 1e-9


@given(seeds)
def test_after_a_fit_without_zeros_the_loss_grows_by_no_more_than_the_cost(seed: int) -> None:
    rng = np.random.default_rng(seed)
    w, h = rng.random((20, 5)), rng.random((5, 15))
    residual = rng.random((20, 15)) @ (np.eye(15) - np.linalg.pinv(h) @ h)  # orthogonal to the rows of H
    path = merge_path(h, w.T @ w, [4])
    least = least_loss(w @ h + residual, path.starts[4])
    assert least <= (np.sum(residual**2) + path.costs[4]) * (1 + 1e-9)


def test_planted_duplicates_are_merged_first() -> None:
    """Three of seven components are another one times a number, up to a little noise."""
    rng = np.random.default_rng(0)
    w, h = rng.gamma(0.5, size=(200, 7)), rng.gamma(0.5, size=(4, 50))
    copies = np.vstack([h, [[2], [0.5], [3]] * h[[0, 0, 2]] + 1e-3 * rng.random((3, 50))])
    path = merge_path(copies, w.T @ w, [3, 4, 6])
    assert list(path.starts) == [6, 4, 3]
    assert max(path.costs[rank] for rank in (6, 5, 4)) < 1e-4 * path.costs[3]
    unit = path.starts[4] / np.linalg.norm(path.starts[4], axis=1, keepdims=True)
    cosines = unit @ (h / np.linalg.norm(h, axis=1, keepdims=True)).T
    assert cosines.max(axis=0).min() > 0.9999


def test_ranks_of_a_path_are_within_h() -> None:
    h = np.ones((3, 5))
    assert merge_path(h, np.eye(3), []) == ({}, {})
    assert merge_down(h, np.eye(3), 9).shape == (3, 5)
    for ranks in ([0, 2], [2, 4]):
        with pytest.raises(ValueError, match=r"and H has 3 rows; give ranks from 1 to 3"):
            merge_path(h, np.eye(3), ranks)
