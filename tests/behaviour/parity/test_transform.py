"""Transform, beside that of scikit-learn."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.decomposition._nmf import non_negative_factorization
from support.parity import FITS, RANK, beta_of, betas, error_of, given, noisy, objective, shapes

from dask_nmf import NMF

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


@pytest.mark.parametrize(("solver", "beta_loss"), [*FITS[:3], ("mu", "itakura-saito"), ("mu", 3.0)])
@shapes
def test_transform_of_what_was_fitted_is_the_w_of_the_fit(
    shape: tuple[int, int], solver: str, beta_loss: Any
) -> None:
    v = noisy(shape)
    model = NMF(RANK, solver=solver, beta_loss=beta_loss, random_state=0, max_iter=100, tol=1e-6)
    w, again = model.fit_transform(v), model.transform(v)
    assert error_of(v, again, model) == pytest.approx(model.reconstruction_err_, rel=2e-2)
    if solver == "hals":
        np.testing.assert_allclose(again, w, rtol=1e-2, atol=1e-3 * w.max())


@betas
@shapes
def test_transform_is_scikit_learns_or_better(shape: tuple[int, int], beta_loss: Any) -> None:
    v, beta = noisy(shape), beta_of(beta_loss)
    penalty = {"alpha_W": 0.01, "l1_ratio": 0.5}
    model = NMF(solver="mu", beta_loss=beta_loss, init="custom", max_iter=1, random_state=0, **penalty)
    ours = model.fit(v, **given(shape)).transform(v)
    solver = "cd" if beta == 2 else "mu"
    theirs = non_negative_factorization(
        v,
        H=model.components_,
        update_H=False,
        solver=solver,
        beta_loss=beta,
        max_iter=300,
        tol=1e-5,
        **penalty,
    )[0]
    reached = [objective(v, w, model.components_, beta, alpha_H=0, **penalty) for w in (ours, theirs)]
    assert reached[0] <= reached[1] * (1 + 1e-6)
