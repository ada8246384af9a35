"""Ranks above min(m, n): known factors, penalties, one sample; and the one bound that holds."""

from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import scipy.sparse
import zarr
from scipy.optimize import nnls
from sklearn.decomposition import non_negative_factorization
from support.command import Forks
from support.grids import pairwise
from support.matrices import Array, low_rank

from dask_nmf import NMF, nmf
from dask_nmf.planning import grid, row_panels
from dask_nmf.planning.worker_memory import MIB, Layout

KINDS: dict[str, Any] = {
    "numpy": np.asarray,
    "csr": scipy.sparse.csr_array,
    "csc": scipy.sparse.csc_array,
    "dask": lambda v: da.from_array(v, chunks=(3, 7)),
}
SHAPES = {"wide": (5, 96), "tall": (96, 5), "one row": (1, 40), "one column": (40, 1)}
RANK = 30

pytestmark = pytest.mark.usefixtures("several_panels")
shapes = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)


def with_zeros(*shape: int, share: float = 0.4, dtype: Any = np.float64) -> Array:
    """Random entries, some of them 0, but no row or column of zeros."""
    v = np.random.default_rng(sum(shape)).random(shape)
    v[v < share] = 0
    v[0], v[:, 0] = v[0] + 0.1, v[:, 0] + 0.1
    return v.astype(dtype)


@pairwise({"kind": list(KINDS), "dtype": [np.float32, np.float64], "name": ["W", "H"], "shape": SHAPES})
def test_a_known_factor_may_have_more_components_than_v_has_rows_or_columns(
    shape: tuple[int, int], name: str, dtype: Any, kind: str
) -> None:
    v, rank = with_zeros(*shape, dtype=dtype), RANK if 1 not in shape else 3
    known = (
        with_zeros(shape[0], rank, dtype=dtype) if name == "W" else with_zeros(rank, shape[1], dtype=dtype)
    )
    result = nmf(KINDS[kind](v), rank, **{f"fixed_{name}": known})
    turned, h = (v, known) if name == "H" else (v.T, known.T)
    best = np.linalg.norm([nnls(h.T.astype(float), row.astype(float))[1] for row in turned])
    w, h = (np.asarray(factor, np.float64) for factor in (result.W, result.H))
    reached = np.linalg.norm(v - w @ h)
    close = (1e-4 if dtype == np.float32 else 1e-6) * float(np.linalg.norm(v))
    assert reached == pytest.approx(best, abs=close)
    assert result.reconstruction_err == pytest.approx(reached, abs=close)


@pytest.mark.parametrize("beta_loss", ["frobenius", "kullback-leibler"])
@shapes
def test_penalties_are_those_of_scikit_learn(shape: tuple[int, int], beta_loss: str) -> None:
    v, rank = with_zeros(*shape), min(shape) + 3
    asked: dict[str, Any] = {"alpha_W": 0.02, "alpha_H": 0.02, "l1_ratio": 0.0}
    ours = nmf(v, rank, beta_loss=beta_loss, tol=1e-8, max_iter=400, **asked)
    solver = "cd" if beta_loss == "frobenius" else "mu"
    theirs = non_negative_factorization(
        v, n_components=rank, init="random", solver=solver, beta_loss=beta_loss, tol=1e-8, max_iter=4000,
        random_state=0, **asked,
    )[:2]  # fmt: skip

    def objective(w: Array, h: Array) -> float:
        y = w @ h
        some = np.where(v > 0, v, 1)
        apart = 0.5 * ((v - y) ** 2) if solver == "cd" else v * np.log(some / np.where(v > 0, y, 1)) - v + y
        return float(apart.sum() + 0.01 * (v.shape[1] * (w**2).sum() + v.shape[0] * (h**2).sum()))

    assert objective(np.asarray(ours.W), np.asarray(ours.H)) <= 1.005 * objective(*theirs)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"init": "random"},
        {"solver": "mu"},
        {"solver": "sgd"},
        {"missing": "nan"},
        {"beta_loss": "kullback-leibler"},
        {"beta_loss": 0.5, "solver": "mu"},
        {"init": "custom", "H": np.random.default_rng(0).random((9, 7))},
    ],
    ids=lambda options: " ".join(map(str, options.values()))[:20] or "default",
)
def test_without_penalties_it_is_an_exact_fit_as_in_scikit_learn(options: dict[str, Any]) -> None:
    v = low_rank(25, 7, 7, noise=1)
    for given in (v, scipy.sparse.csr_array(v)):
        if options.get("missing") and given is not v:
            continue
        result = nmf(given, 9, max_iter=40, **options)
        reached = np.linalg.norm(v - np.asarray(result.W) @ np.asarray(result.H)) / np.linalg.norm(v)
        assert reached < 0.05
    assert NMF(9, random_state=0).fit(v).transform(v).shape == (25, 9)


@pytest.mark.parametrize("init", ["nndsvd", "nndsvda", "nndsvdar"])
def test_singular_vectors_are_at_most_so_many(init: str) -> None:
    with pytest.raises(ValueError, match=r"at most 5, or init 'sample' or 'random'"):
        nmf(np.ones((5, 8)), 6, init=init)


def test_the_command_takes_known_signatures_and_resumes(tmp_path: Path, forks: Forks, scheduler: str) -> None:
    v, h = with_zeros(5, 96), with_zeros(RANK, 96)
    np.save(tmp_path / "v.npy", v)
    np.save(tmp_path / "h.npy", h)
    asked = ["fit", "v.npy", "--rank", str(RANK), "--fixed-h", "h.npy", "--output", "run.zarr"]
    for _ in range(2):
        done = forks.call(asked, tmp_path, DASK_SCHEDULER_ADDRESS=scheduler)
        assert done.returncode == 0, done.stderr
    w = zarr.open_group(tmp_path / "run.zarr", mode="r")["W"]
    expected = [nnls(h.T, row)[0] for row in v]
    np.testing.assert_allclose(np.asarray(w) @ h, expected @ h, atol=1e-5)


def test_the_plan_counts_matrices_of_the_ranks_size() -> None:
    layout, rank = Layout(10_000, 8, 8), 4000
    squares = rank**2 * 8
    assert row_panels.plan_panels(layout, rank, None, 1).worker_bytes > 6 * squares
    with pytest.raises(MemoryError, match="does not fit"):
        row_panels.plan_panels(layout, rank, 512 * MIB, 1)
    with pytest.raises(MemoryError, match="nor does a block"):
        grid.plan_grid(layout, rank, 512 * MIB, 1)
