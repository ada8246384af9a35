"""Components of several runs matched with each other."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from support.strategies import seeds

from dask_nmf.quality import match_components, match_runs

random = np.random.default_rng(0)
H = random.gamma(0.5, size=(4, 40))


@given(seeds)
def test_a_matching_has_the_largest_sum_of_cosines(seed: int) -> None:
    rng = np.random.default_rng(seed)
    one, other = rng.gamma(0.3, size=(2, 4, 6))
    found = match_components(one, other)
    cosines = 1 - np.array([[cosine_distance(b, a) for a in one] for b in other])
    best = max(cosines[range(4), order].sum() for order in itertools.permutations(range(4)))
    assert found.cosines.sum() == pytest.approx(best)
    np.testing.assert_allclose(found.cosines, cosines[range(4), found.components])


def cosine_distance(a: Any, b: Any) -> float:
    return float(1 - a @ b / np.sqrt((a @ a) * (b @ b)))


def test_order_and_scale_of_components_do_not_matter() -> None:
    order = [2, 0, 3, 1]
    found = match_components(H[order] * np.array([[1e-200], [3], [1], [1e200]]), H)
    np.testing.assert_array_equal(np.array(order)[found.components], range(4))
    np.testing.assert_allclose(found.cosines, 1)
    assert match_components(np.zeros((1, 3)), np.ones((1, 3))).cosines == [0]


def test_a_component_that_runs_do_not_share_is_the_unstable_one() -> None:
    """Runs share three components; the fourth one is another in each, so that its cosines are small."""
    runs = []
    for _ in range(5):
        h = H + 0.01 * random.random(H.shape)
        h[1] = np.eye(40)[random.integers(40)]
        runs.append(h[random.permutation(4)])
    found = match_runs(runs, [3, 1, 2, 5, 4])
    worst = int(np.argmin(found.component_stability))
    assert found.component_stability[worst] < 0.6
    assert np.delete(found.component_stability, worst).min() > 0.999
    assert found.order.tolist() == [1, 2, 0, 4, 3]
    np.testing.assert_array_equal(found.components, runs[found.medoid])
    np.testing.assert_array_equal(found.matches[found.medoid], range(4))
    pairs = [match_components(a, b).cosines.mean() for a, b in itertools.combinations(runs, 2)]
    assert found.stability == pytest.approx(np.mean(pairs))


def test_the_medoid_is_no_outlier_and_among_equals_the_best_run() -> None:
    outlier = random.gamma(0.5, size=H.shape)
    assert match_runs([outlier, H, H[::-1], 2 * H], [0, 3, 1, 2]).medoid == 2
    found = match_runs([H, 3 * H[::-1]], [float("nan"), 1])
    assert (found.medoid, found.order.tolist()) == (1, [1, 0])
    assert found.stability == pytest.approx(1)
    np.testing.assert_array_equal(found.matches, [[3, 2, 1, 0], [0, 1, 2, 3]])


def test_one_run_has_components_and_no_stability() -> None:
    found = match_runs([H], [1.0])
    assert np.isnan([found.stability, *found.component_stability]).all()
    np.testing.assert_array_equal(found.components, H)


def test_runs_of_different_ranks_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\[\(3, 40\), \(4, 40\)\] for 2 runs, and 2 losses; give"):
        match_runs([H, H[:3]], [1, 2])
    with pytest.raises(ValueError, match="0 losses; give"):
        match_runs([H], [])
    with pytest.raises(ValueError, match="at least one run"):
        match_runs([], [])
