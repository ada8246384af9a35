"""Weighted entries: weight 0 is missing, weights of rows are counts, products are found."""

from typing import Any

import numpy as np
import pytest
import scipy.optimize
import scipy.sparse
from support.grids import pairwise
from support.matrices import Array, low_rank
from support.observed import RANK, SHAPES, arrays, assert_close, factors, ratings, shapes, solvers, squares

from dask_nmf import nmf, transform
from dask_nmf.kernels.blocks import masking, row_batches

pytestmark = pytest.mark.usefixtures("several_panels")


@pairwise({"make": [np.asarray, scipy.sparse.csr_array], "solver": ["hals", "mu"], "shape": SHAPES})
def test_weight_zero_is_missing(solver: str, shape: tuple[int, int], make: Any) -> None:
    v = ratings(shape)
    there = make((~np.isnan(v)).astype(float))
    asked: dict[str, Any] = {"solver": solver, "max_iter": 4, "alpha_W": 0.01}
    assert_close(
        nmf(np.nan_to_num(v, nan=99.0), RANK, weights=there, **asked), nmf(v, RANK, missing="nan", **asked)
    )


@shapes
@solvers
def test_a_constant_weight_changes_only_the_loss(solver: str, shape: tuple[int, int]) -> None:
    v, weights = ratings(shape), np.random.default_rng(2).random(shape)
    asked: dict[str, Any] = {"solver": solver, "missing": "nan", "max_iter": 4, "alpha_W": 0.01}
    one, four = (nmf(v, RANK, weights=factor * weights, **asked) for factor in (1, 4))
    assert_close(one, four)
    np.testing.assert_allclose(one.error_history, four.error_history, rtol=1e-9)
    assert four.reconstruction_err == pytest.approx(2 * one.reconstruction_err, rel=1e-9)
    w, h = arrays(one)
    assert one.reconstruction_err == pytest.approx(np.sqrt(squares(v, w, h, weights).sum()), rel=1e-9)


@solvers
def test_the_weight_of_a_row_is_how_often_it_is_there(solver: str) -> None:
    v, start = low_rank(60, 25, RANK, noise=1), factors((60, 25))
    often = np.random.default_rng(3).integers(0, 4, 60)
    asked: dict[str, Any] = {"solver": solver, "init": "custom", "max_iter": 3, "tol": 0}
    weighted = nmf(v, RANK, weights=np.tile(often[:, None], (1, 25)), H=start["H"], **asked)
    repeated = nmf(np.repeat(v, often, axis=0), RANK, H=start["H"], **asked)
    np.testing.assert_allclose(weighted.H, repeated.H, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(weighted.error_history, repeated.error_history, rtol=1e-9)
    np.testing.assert_array_equal(weighted.W.compute()[often == 0], 0)


def test_weights_of_new_rows() -> None:
    v, h = ratings((60, 25)), factors((60, 25))["H"]
    there = ~np.isnan(v)
    by_weight = transform(np.nan_to_num(v), h, weights=there.astype(float))
    assert by_weight is not None
    np.testing.assert_allclose(by_weight, transform(v, h, missing="nan"), rtol=1e-5, atol=1e-7)


WEIGHTS = {
    "ones": np.ones((60, 25)),
    "one number": np.full((60, 25), 3.0),
    "rows": np.repeat(np.arange(1.0, 61)[:, None], 25, axis=1),
    "rows and columns": np.outer(np.arange(1.0, 61), np.arange(25, 0.0, -1)),
}


@pytest.mark.parametrize("weights", WEIGHTS.values(), ids=WEIGHTS)
@solvers
def test_weights_that_are_products_are_found_and_count_as_any(solver: str, weights: Array) -> None:
    v = low_rank(60, 25, RANK)
    rule = masking.EntryMask(weighted=True)
    (strip, *_) = row_batches.iter_row_batches(masking.MaskedBlock(v, weights, np.arange(60), rule))
    assert strip.cells.separable
    uneven = weights.copy()
    uneven[0, 0] *= 1 + 1e-9  # of no account, but they are products no more
    ours, theirs = (
        nmf(v, RANK, weights=own, solver=solver, max_iter=3, tol=0, alpha_W=0.01, random_state=3)
        for own in (weights, uneven)
    )
    assert_close(ours, theirs, 1e-5)
    assert ours.reconstruction_err == pytest.approx(theirs.reconstruction_err, rel=1e-6)
