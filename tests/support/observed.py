"""Matrices of which some entries are missing, in all the forms that hold such."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import scipy.optimize
import scipy.sparse
from support.matrices import SOURCES, Array, dask_csr, low_rank

RANK = 3


def ratings(shape: tuple[int, int], missing: float = 0.4, seed: int = 0, noise: float = 1) -> Array:
    """A planted V with NaN where it is missing, and zeros that were observed."""
    v = low_rank(*shape, RANK, noise, seed)
    random = np.random.default_rng(seed + 1)
    v[random.random(shape) < 0.1] = 0
    v[random.random(shape) < missing] = np.nan
    return v


def entries(v: Array) -> scipy.sparse.csr_array:
    """What is not NaN as stored entries, zeros too."""
    there = ~np.isnan(v)
    indptr = np.concatenate([[0], np.cumsum(there.sum(axis=1))])
    return scipy.sparse.csr_array((v[there], np.nonzero(there)[1], indptr), shape=v.shape)


HOLDERS: dict[str, Callable[[Array, Path], Any]] = {
    **{kind: SOURCES[kind] for kind in ("numpy", "dask", "zarr v3", "npy")},
    "dask of csr": lambda v, path: dask_csr(v, entries),
}
for _kind in ("csr_array", "csc_array", "csr in zarr", "csc in zarr", "npz csr"):
    HOLDERS[_kind] = lambda v, path, make=SOURCES[_kind]: make(entries(v), path)


def how(kind: str) -> str:
    return "unstored" if "cs" in kind else "nan"
