"""A V, another one that differs in one entry, and a fit in a run, for tests of whether it is the same V."""

from pathlib import Path
from typing import Any

import zarr
from support.matrices import Array, low_rank

from dask_nmf import Result, nmf

V = low_rank(30, 20, 3)


def fit(v: Any, folder: Path, **options: Any) -> Result:
    return nmf(v, 3, store=folder / "run.zarr", **{"max_iter": 2, "tol": 0, **options})


def changed(v: Array, row: int = 11, column: int = 7) -> Array:
    """Another V, in one entry, which is in none of its first, middle and last rows and columns."""
    other = v.copy()
    other[row, column] += 1
    return other


def dense(v: Array, path: Path, **options: Any) -> str:
    array = zarr.create_array(str(path), shape=v.shape, dtype=v.dtype, **{"chunks": (7, 9), **options})
    array[...] = v
    return str(path)
