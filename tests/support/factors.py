"""Small factors in every kind of array, and readers of the outputs that commands write from them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import zarr
from support.matrices import Array

RANK = 3
SHAPES = {"tall": (60, 25), "wide": (25, 60)}
LEFT = {"v.zarr", "run.zarr", "pairs.csv"}  # the contents of the fixture `folder`
shapes = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)


def in_zarr(factor: Array, chunks: tuple[int, ...]) -> zarr.Array[Any]:
    return zarr.create_array({}, data=factor, chunks=chunks)


def first_of_each(chunks: Any) -> tuple[int, ...]:
    return tuple(sizes[0] for sizes in chunks)


HOLDERS: dict[str, Callable[[Array, Any], Any]] = {
    "numpy": lambda factor, chunks: factor,
    "dask": lambda factor, chunks: da.from_array(factor, chunks=chunks),
    "zarr": lambda factor, chunks: in_zarr(factor, first_of_each(chunks)),
}


def factors(shape: tuple[int, int], seed: int = 0, dtype: Any = np.float64) -> tuple[Array, Array]:
    """Return factors of small integers: their products are exact, and many are equal."""
    random = np.random.default_rng(seed)
    w, h = random.integers(0, 3, (shape[0], RANK)), random.integers(0, 3, (RANK, shape[1]))
    return w.astype(dtype), h.astype(dtype)


def product(folder: Path) -> Array:
    """Return W H of the run in a folder."""
    run = zarr.open_group(folder / "run.zarr", mode="r")
    return np.asarray(run["W"][:] @ run["H"][:])


def table(path: Path) -> Array:
    """Return the lines of an output of predict or recommend, (lines, 3)."""
    assert path.read_text().startswith("row,column,value\n")
    return np.loadtxt(path, delimiter=",", skiprows=1)
