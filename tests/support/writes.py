"""A small V, fits of it with a run, and the folders of data that they wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from support.matrices import low_rank
from support.runs import OPTIONS

from dask_nmf import Result, nmf

M, N = 40, 15
PASSES = 4
V = low_rank(M, N, 3)


def fit(store: Path, **options: Any) -> Result:
    return nmf(V, **{**OPTIONS, "max_iter": PASSES, "store": store, **options})


def data_of(run: Path) -> list[str]:
    """Return the purposes of the folders of data in a run, from their names."""
    return sorted(place.name.split("-")[0] for place in (run / "data").iterdir())
