"""Matrices with missing entries, in every kind of source that can hold them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
import scipy.optimize
import scipy.sparse
from support.matrices import SOURCES, Array, dask_csr, low_rank

from dask_nmf import Result
from dask_nmf.kernels.blocks.groups import held_out_groups

RANK = 3


def ratings(shape: tuple[int, int], missing: float = 0.4, seed: int = 0, noise: float = 1) -> Array:
    """Return a V of low rank with NaN for missing entries, and some observed zeros."""
    v = low_rank(*shape, RANK, noise, seed)
    random = np.random.default_rng(seed + 1)
    v[random.random(shape) < 0.1] = 0
    v[random.random(shape) < missing] = np.nan
    return v


def entries(v: Array) -> scipy.sparse.csr_array:
    """Return a CSR matrix that stores the entries that are not NaN, zeros included."""
    there = ~np.isnan(v)
    indptr = np.concatenate([[0], np.cumsum(there.sum(axis=1))])
    return scipy.sparse.csr_array((v[there], np.nonzero(there)[1], indptr), shape=v.shape)


def _stored(make: Callable[[Any, Path], Any]) -> Callable[[Array, Path], Any]:
    """Return a maker of a sparse V that stores what is not missing."""
    return lambda v, path: make(entries(v), path)


def held_out_entries(shape: tuple[int, int], seed: int, share: float) -> Array:
    """Return which entries of V are held out, (m, n)."""
    groups = held_out_groups(seed, share, *map(np.arange, shape))
    return ~groups.counts[groups.rows][:, groups.columns]


HOLDERS: dict[str, Callable[[Array, Path], Any]] = {
    **{kind: SOURCES[kind] for kind in ("numpy", "dask", "zarr v3", "npy")},
    "dask of csr": lambda v, path: dask_csr(v, entries),
    **{
        kind: _stored(SOURCES[kind])
        for kind in ("csr_array", "csc_array", "csr in zarr", "csc in zarr", "npz csr")
    },
}


def how(kind: str) -> str:
    """Return the setting ``missing`` for a kind of source."""
    return "unstored" if "cs" in kind else "nan"


SHAPES = {"tall": (60, 25), "wide": (25, 60)}
shapes = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
solvers = pytest.mark.parametrize("solver", ["hals", "mu"])


def factors(shape: tuple[int, int]) -> dict[str, Array]:
    random = np.random.default_rng(1)
    return {"W": random.random((shape[0], RANK)) + 0.1, "H": random.random((RANK, shape[1])) + 0.1}


def arrays(result: Result) -> tuple[Array, Array]:
    return dask.compute(result.W, result.H)


def assert_close(one: Result, other: Result, rounding: float = 1e-6) -> None:
    """Check that the factors of two results are equal up to a relative difference."""
    for mine, theirs in zip(arrays(one), arrays(other), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=rounding, atol=1e-9)


def squares(v: Array, w: Array, h: Array, weights: Array | float = 1.0) -> Array:
    """Return ω (v − w h)² of every entry, 0 where it is missing."""
    return np.nan_to_num(weights * (v - w @ h) ** 2)


ONES = np.ones((60, 25))
