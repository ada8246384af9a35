"""Real data that every checkout has: fits are as good as the best of scikit-learn's."""

from __future__ import annotations

import json

import pytest
from support.references import CASES, FILE, KL

from dask_nmf import NMF

BEST = json.loads(FILE.read_text())["least objective"]
CLOSE = 1.001


@pytest.mark.parametrize("name", CASES)
def test_a_fit_is_as_good_as_the_best_of_scikit_learns(name: str) -> None:
    """So is one of three seeds."""
    case = CASES[name]
    v = case.make()
    reached = []
    for seed in range(3):
        model = NMF(case.rank, beta_loss=case.loss, random_state=seed, max_iter=500, tol=1e-6).fit(v)
        reached.append(model.reconstruction_err_**2 / (2 if case.loss == KL else 1) / BEST[name])
        if reached[-1] <= CLOSE:
            return
    pytest.fail(f"{name}: {reached} of the best")


def test_every_reference_is_of_a_case() -> None:
    assert BEST.keys() == CASES.keys()
