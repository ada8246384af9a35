"""A small V that is fitted from several starts."""

from __future__ import annotations

from typing import Any

from support.matrices import low_rank

from dask_nmf import Result, nmf

STARTS = 3
V = low_rank(60, 20, 5, noise=0.5)
OPTIONS: dict[str, Any] = {"n_components": 3, "max_iter": 8, "random_state": 5}


def fit(v: Any, **more: Any) -> Result:
    """Return the fit of V from several starts."""
    return nmf(v, **{**OPTIONS, "n_init": STARTS, **more})
