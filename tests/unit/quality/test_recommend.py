"""The recommendation of a rank from tables of held-out errors."""

from __future__ import annotations

import json
from math import inf, isnan, nan
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.strategies import seeds

from dask_nmf.quality import Trial, finished_ranks, recommend_rank


def trials(errors: dict[int, Any]) -> list[Trial]:
    """Trials of each rank, one for each of its errors: two seeds of as many folds as needed."""
    return [
        Trial(rank, number % 2, number // 2, error, error / 2)
        for rank, some in errors.items()
        for number, error in enumerate(np.atleast_1d(some))
    ]


@given(seeds, st.integers(2, 8), st.integers(3, 6))
def test_a_planted_rank_is_found(seed: int, rank: int, pairs: int) -> None:
    """The spread of masks, .2, hides the differences of ranks, .01 to .1, unless errors are paired."""
    rng = np.random.default_rng(seed)
    masks = 1 + 0.2 * rng.standard_normal(pairs)
    table = {
        k: masks + (0.1 * (rank - k) if k < rank else 0.01 * (k - rank)) + 1e-4 * rng.standard_normal(pairs)
        for k in range(1, 11)
    }
    rows = trials(table)
    found = recommend_rank([rows[place] for place in rng.permutation(len(rows))])
    assert (found.n_components, found.best) == (rank, rank)
    assert [row.n_components for row in found.table] == list(range(1, 11))


def test_the_least_rank_within_one_standard_error() -> None:
    """Differences to rank 6 are 0 and .02 (mean .01, standard error .01), and .03 and .05 (.04, .01)."""
    found = recommend_rank(trials({4: [1.03, 2.05], 5: [1.0, 2.02], 6: [1.0, 2.0], 7: [1.1, 2.1]}), {5: 0.98})
    assert (found.n_components, found.best) == (5, 6)
    row = found.table[1]
    assert (row.trials, row.pairs) == (2, 2)
    assert (row.difference, row.standard_error) == (pytest.approx(0.01), pytest.approx(0.01))
    assert (row.held_out_error, row.training_error) == (pytest.approx(1.51), pytest.approx(0.755))
    assert found.reason == (
        "the held-out error of rank 5, 1.51, is within one standard error (0.01) of the lowest, 1.5 of rank "
        "6, and no smaller rank is; the stability of its components is 0.98"
    )


def test_the_reason_names_the_least_rank_with_nearly_the_lowest_error() -> None:
    found = recommend_rank(trials({1: 2.0, 2: 1.02, 3: 1.009, 4: 1.005, 5: 1.0}))
    assert found.n_components == 5
    assert "; the error of rank 3 is within 1% of the lowest" in found.reason
    found = recommend_rank(trials({1: 2.0, 2: 1.02, 3: 1.0}))
    assert "within 1" not in found.reason


@pytest.mark.parametrize(
    ("stability", "words"),
    [
        (
            {1: 1.0, 2: 1.0, 3: 0.96, 4: 0.9},
            "0.9, and the largest rank below it with at least 0.95 is 3 (0.96)",
        ),
        ({1: 1.0, 2: 0.99, 3: 0.9, 4: 0.95}, "0.95"),
        ({1: 1.0, 2: 0.9, 3: 0.94, 4: 0.9}, "0.9"),
    ],
)
def test_the_reason_names_the_largest_stable_rank_below_one_that_is_not(
    stability: dict[int, float], words: str
) -> None:
    found = recommend_rank(trials({1: 1.4, 2: 1.2, 3: 1.1, 4: 1.0, 5: 1.3}), stability)
    assert found.n_components == 4
    assert found.reason.endswith(f"; the stability of its components is {words}")


def test_a_minority_of_failed_starts_does_not_hide_the_differences_of_ranks() -> None:
    """The last start of rank 3 has a poor minimum, which its training error shows."""
    errors = {2: [2.0, 2.1, 2.2, 2.3, 2.4], 3: [1.0, 1.1, 1.2, 1.3, 9.0]}
    starts = [Trial(rank, seed, 0, error) for rank, some in errors.items() for seed, error in enumerate(some)]
    alike = [start._replace(training_error=0.3) for start in starts]
    found = recommend_rank(alike)
    assert (found.n_components, found.best) == (2, 2)
    assert [row.trials for row in found.table] == [5, 5]
    known = [start._replace(training_error=0.5 if start.held_out_error == 9 else 0.3) for start in starts]
    found = recommend_rank(known)
    assert (found.n_components, found.best) == (3, 3)
    assert [row.trials for row in found.table] == [5, 4]
    assert found.table[0].difference == pytest.approx(1)
    assert finished_ranks(known, [2, 3]) == set()


@given(seeds, st.integers(1, 6), st.integers(1, 3))
def test_every_rank_is_compared_whichever_starts_fail(seed: int, starts: int, folds: int) -> None:
    rng = np.random.default_rng(seed)
    some = [
        Trial(rank, start, fold, rng.random(), rng.choice([0.1, 0.1, 0.5, nan]))
        for rank in (2, 3, 4)
        for start in range(starts)
        for fold in range(folds)
    ]
    found = recommend_rank(some)
    assert [row.n_components for row in found.table] == [2, 3, 4]
    assert all(row.pairs >= folds for row in found.table)


def test_of_ranks_with_one_error_the_least_is_taken() -> None:
    found = recommend_rank(trials({2: [3.0, 3.0], 3: [1.0, 1.0], 4: [1.0, 1.0 + 1e-15], 5: [1.0, 1.0]}))
    assert (found.n_components, found.best) == (3, 3)
    assert found.reason == (
        "the held-out error of rank 3, 1, is the lowest, and no smaller rank is within one standard error "
        "of it"
    )


def test_one_pair_has_no_standard_error() -> None:
    found = recommend_rank(trials({2: 1.1, 3: 1.05, 4: 1.0}))
    assert found.n_components == 4
    assert isnan(found.table[0].standard_error)
    assert found.reason == (
        "the held-out error of rank 4, 1, is the lowest, and no smaller rank has one as low; the error still "
        "falls at rank 4, the largest one, so try larger ranks"
    )


def test_one_rank_is_recommended_for_want_of_others() -> None:
    found = recommend_rank(trials({3: [0.5, 0.7]}))
    assert (found.n_components, found.reason) == (3, "the held-out error of rank 3, 0.6, is the only one")
    assert (
        recommend_rank(trials({3: 0.5, 4: 0.6})).reason == "the held-out error of rank 3, 0.5, is the lowest"
    )


def test_failed_trials_are_left_out_with_their_pairs() -> None:
    """Rank 3 has failed on the hard mask, and its mean is the lowest for that reason only."""
    found = recommend_rank(
        trials({2: [1.0, 9.0, 1.0], 3: [1.1, nan, 1.1], 4: [nan, inf, nan], 5: [inf, nan]})
    )
    assert (found.n_components, [row.n_components for row in found.table]) == (2, [2, 3])
    assert (found.table[1].trials, found.table[1].difference) == (2, pytest.approx(0.1))


def test_a_rank_without_a_pair_is_left_out() -> None:
    rows = [*trials({2: [1.0, 1.0], 3: [0.5, 0.5]}), Trial(4, 7, 7, 0.1)]
    assert [row.n_components for row in recommend_rank(rows).table] == [2, 3]


def test_tables_that_say_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="no trial has a held-out error"):
        recommend_rank([Trial(2, 0, 0, nan), Trial(3, 0, 0, inf)])
    with pytest.raises(ValueError, match="rank 2, seed 1 and fold 0; give one of each"):
        recommend_rank([Trial(2, 1, 0, 1.0), Trial(2, 1, 0, 2.0)])


def test_a_recommendation_as_json() -> None:
    found = json.loads(json.dumps(recommend_rank(trials({2: 1.0, 3: 2.0})).to_dict()))
    assert (found["n_components"], found["best"], found["table"][1]["held_out_error"]) == (2, 2, 2.0)
    assert found["table"][1]["standard_error"] is None


def test_ranks_whose_error_has_clearly_risen_are_finished() -> None:
    noise = np.array([-0.01, 0.0, 0.01])
    errors = {2: 2 + noise, 4: 1 + noise, 6: 1.001 + noise[::-1], 8: 1.5 + 2 * noise, 10: 2 + 2 * noise}
    ranks = [2, 4, 6, 8, 10, 12]
    assert finished_ranks(trials(errors), ranks) == {8, 10, 12}
    assert finished_ranks(trials({k: errors[k] for k in (2, 4, 6, 8)}), ranks) == {8}
    assert finished_ranks(trials({k: errors[k] for k in (2, 4)}), ranks) == set()
    assert finished_ranks([], ranks) == set()


def test_one_pair_has_clearly_risen_by_two_per_cent() -> None:
    assert finished_ranks(trials({2: 1.0, 3: 1.01, 4: 1.05, 5: 1.03}), range(2, 9)) == {4, 5, 6, 7, 8}
    assert finished_ranks(trials({2: 1.0, 3: 1.05, 4: 1.01}), range(2, 9)) == {3}


@given(seeds)
def test_no_rank_up_to_the_recommended_one_is_finished(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = trials({k: rng.random(rng.integers(1, 5)) for k in rng.choice(20, 5, replace=False) + 1})
    assert min(finished_ranks(rows, range(1, 21)), default=99) > recommend_rank(rows).best
