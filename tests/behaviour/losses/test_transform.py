"""Transform with the other losses: the best W of each row, of which a wide fit has that of its H."""

import itertools
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
import scipy.sparse
from sklearn.exceptions import ConvergenceWarning
from support.grids import pairwise
from support.losses import LOSSES, RANK, SHAPES, counts, divergence, matrix, ways
from support.matrices import SOURCES, Array

from dask_nmf import NMF, nmf, transform

pytestmark = pytest.mark.usefixtures("several_panels")


@ways
def test_transform_is_the_w_of_the_fit(solver: str, loss: Any) -> None:
    for shape in SHAPES.values():
        v = matrix(loss, shape)
        result = nmf(v, RANK, solver=solver, beta_loss=loss, tol=1e-8, max_iter=60)
        w, h = dask.compute(result.W, result.H)
        again = transform(v, h, beta_loss=loss)
        assert again is not None
        best = divergence(v, np.asarray(again), h, loss)
        of_fit, slack = divergence(v, w, h, loss), 1e-6 if LOSSES[loss] == 1 else 5e-3
        assert best <= of_fit * (1 + slack)
        assert best >= of_fit * (1 - 2e-2)  # the W that mu carries lags behind its H


@pairwise(
    {
        "options": [
            {},
            {"max_iter": 2, "init": "random"},
            {"alpha_W": 0.02, "l1_ratio": 0.5},
            {"missing": "unstored"},
        ],
        "dtype": [np.float32, np.float64],
        "shape": SHAPES,
    }
)
def test_fit_transform_is_transform(options: dict[str, Any], dtype: Any, shape: tuple[int, int]) -> None:
    v = counts((4 * shape[0], 4 * shape[1]), dtype)
    asked = {"max_iter": 200} | options
    model = NMF(RANK, beta_loss="kullback-leibler", random_state=0, **asked)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        w = model.fit_transform(scipy.sparse.csr_array(v))
    h = model.components_.astype(np.float64)
    np.testing.assert_allclose(model.transform(scipy.sparse.csr_array(v)), w, rtol=1e-4, atol=1e-6 * w.max())
    # the conditions of a minimum in W
    y, there = w.astype(np.float64) @ h, v > 0
    ratio = np.where(there, v / np.where(there, y, 1), 0) - (there if "missing" in options else 1)
    l1, on_w = options.get("l1_ratio", 0), options.get("alpha_W", 0)
    slope = v.shape[1] * on_w * (l1 + (1 - l1) * w) - ratio @ h.T
    size = np.abs(slope).max() + h.sum(axis=1)
    assert (slope > -1e-5 * size).all()
    assert np.abs(w * slope).max() < 1e-5 * w.max() * size.max()


def test_a_wide_fit_reads_v_once_more_so_that_its_w_is_the_best_for_its_h() -> None:
    read: list[tuple[int, ...]] = []

    def block(v: Array) -> Array:
        read.append(v.shape)
        return v

    v = counts((30, 400))
    array = da.from_array(v, chunks=v.shape).map_blocks(block, dtype=v.dtype, meta=v[:0, :0])
    read.clear()
    result = nmf(array, RANK, beta_loss=1)
    W = transform(v, result.H, beta_loss=1)
    assert len(read) == result.n_iter + 3
    np.testing.assert_allclose(result.W, W, rtol=1e-4, atol=1e-6 * np.asarray(W).max())


@cache
def row_by_row(loss: Any) -> Array:
    """Return the W of a wide V, each row of which is solved alone."""
    v, h = matrix(loss, SHAPES["wide"]), np.random.default_rng(0).random((RANK, 60))
    return np.concatenate([np.asarray(transform(row[None], h, beta_loss=loss)) for row in v])


IN_ROWS = ["numpy", "dask csr_array", "zarr v3"]
IN_COLUMNS = [
    ("csc in zarr", "kullback-leibler"),
    ("dask columns", "kullback-leibler"),
    ("dask columns", 1.5),
]


@pytest.mark.parametrize(("kind", "loss"), [*itertools.product(IN_ROWS, LOSSES), *IN_COLUMNS])
def test_transform_solves_each_row_of_a_wide_v(kind: str, loss: Any, tmp_path: Path) -> None:
    v, h = matrix(loss, SHAPES["wide"]), np.random.default_rng(0).random((RANK, 60))
    make = SOURCES.get(kind, lambda v, path: da.from_array(v, chunks=(25, 9)))
    found = transform(make(v, tmp_path / "v"), h, beta_loss=loss)
    expected = divergence(v, row_by_row(loss), h, loss)
    assert divergence(v, np.asarray(found), h, loss) == pytest.approx(expected, rel=1e-6)
