"""Factors and weights with names unlike those of V are refused, because entries are matched by place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
import xarray as xr
from support.matrices import low_rank

from dask_nmf import NMF, nmf, recommend, transform

ROWS, COLUMNS = [f"r{i}" for i in range(20)], [f"c{j}" for j in range(8)]
V = pd.DataFrame(low_rank(20, 8, 2), ROWS, COLUMNS)
WEIGHTS = pd.DataFrame(np.random.default_rng(0).random(V.shape), ROWS, COLUMNS)
UNKNOWN = pd.Index([*COLUMNS[:3], pd.NA, *COLUMNS[4:]], dtype="string")
W, H = nmf(V, 2)
ARRAY = xr.DataArray(V, dims=("row", "column"))

REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "rows of weights": (lambda: nmf(V, 2, weights=WEIGHTS[::-1]), "weights has other names of rows than V"),
    "columns of weights": (
        lambda: nmf(V, 2, weights=WEIGHTS[COLUMNS[::-1]]),
        "weights has other names of columns than V: number 0 is c7 in place of c0",
    ),
    "known H": (lambda: nmf(V, 2, fixed_H=H[COLUMNS[::-1]]), "fixed_H has other names of columns"),
    "known W": (lambda: nmf(V, 2, fixed_W=W[::-1]), "fixed_W has other names of rows"),
    "first H": (lambda: nmf(V, 2, H=H[COLUMNS[::-1]]), "H has other names of columns"),
    "estimator": (lambda: NMF(2, init="custom").fit(V, W=W[::-1], H=H), "W has other names of rows"),
    "transform": (lambda: transform(V[COLUMNS[::-1]], H), "H has other names of columns"),
    "weights of transform": (lambda: transform(V, H, weights=WEIGHTS[::-1]), "weights has other names"),
    "recommend": (lambda: recommend(V[::-1], W, H, 2), "W has other names of rows"),
    "polars": (lambda: nmf(pl.DataFrame(V), 2, fixed_H=H[COLUMNS[::-1]]), "fixed_H has other names"),
    "xarray": (lambda: transform(ARRAY[:, ::-1], nmf(ARRAY, 2).H), "H has other coordinates of column"),
    "unknown names": (
        lambda: nmf(V.set_axis(UNKNOWN, axis=1), 2, weights=WEIGHTS.set_axis(UNKNOWN[::-1], axis=1)),
        "weights has other names of columns than V: number 0 is c7 in place of c0",
    ),
    "numbers in another order": (
        lambda: nmf(
            V.set_axis(range(20)), 2, weights=WEIGHTS.set_axis(range(20)).sort_index(ascending=False)
        ),
        "weights has other names of rows than V: number 0 is 19 in place of 0",
    ),
}


@pytest.mark.parametrize(("call", "message"), REFUSED.values(), ids=REFUSED)
def test_other_names_are_refused(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_equal_names_and_none_are_taken() -> None:
    """A table whose rows and columns are only counted is taken by place, as an array is."""
    plain = nmf(V.to_numpy(), 2, weights=WEIGHTS.to_numpy()).relative_error
    for weights in (WEIGHTS, pd.DataFrame(WEIGHTS.to_numpy()), pl.DataFrame(WEIGHTS)):
        assert nmf(V, 2, weights=weights).relative_error == plain
    np.testing.assert_array_equal(transform(V, H), transform(V.to_numpy(), H.to_numpy()))


def test_coordinates_are_those_of_the_dimension_that_has_them() -> None:
    square = xr.DataArray(low_rank(6, 6, 2), {"a": range(6), "b": list("uvwxyz")})
    H = nmf(square, 2, sample_dims="b").H
    assert nmf(square, 2, sample_dims="b", fixed_H=H).relative_error < 0.5
