"""Factors in every form that V may have, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask.array as da
import h5py
import numpy as np
import pytest
from support.factors import (
    RANK,
    in_zarr,
    shapes,
)
from support.matrices import LIBRARIES, SOURCES, Array, sparse

from dask_nmf import NMF, predict, recommend

FORMS: dict[str, Callable[[Array, Path], Any]] = {
    name: {**SOURCES, **LIBRARIES, "list": lambda factor, path: factor.tolist()}[name]
    for name in (
        "list", "csr_array", "dask csr_array", "zarr v3", "csr in zarr", "csc in zarr", "npy", "polars",
        "hdf5 contiguous", "masked", "pandas nullable", "pyarrow", "dask frame", "xarray", "xarray lazy",
        "pydata",
    )
}  # fmt: skip


@shapes
@pytest.mark.parametrize("form", FORMS)
def test_factors_come_in_any_form_that_v_has(shape: tuple[int, int], form: str, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    w, h = random.random((shape[0], RANK)), random.random((RANK, shape[1]))
    v, rows, columns = sparse(*shape), random.integers(0, shape[0], 30), random.integers(0, shape[1], 30)
    held = [FORMS[form](factor, tmp_path / name) for name, factor in (("w", w), ("h", h))]
    np.testing.assert_allclose(predict(*held, rows, columns), (w @ h)[rows, columns], rtol=1e-12)
    if form in ("list", "dask frame", "csc in zarr", "hdf5 contiguous"):
        found, expected = (recommend(v, *given, 4) for given in (held, (w, h)))
        np.testing.assert_array_equal(found.columns, expected.columns)
        np.testing.assert_allclose(found.values, expected.values, rtol=1e-12)
    model = NMF(RANK)
    model.components_, model.n_components_ = h, RANK
    np.testing.assert_allclose(model.inverse_transform(held[0]), w @ h, rtol=1e-12)


def test_a_packed_factor_is_decoded(tmp_path: Path) -> None:
    w = in_zarr(np.full((40, 1), 1000, "u2"), (7, 1))
    w.attrs["scale_factor"] = 0.001
    h = h5py.File(tmp_path / "h.h5", "w").create_dataset("h", data=np.full((1, 30), 50, "u2"))
    h.attrs["scale_factor"] = 0.1
    assert predict(w, h, [0, 39], [0, 29]) == pytest.approx([5, 5])
    assert predict(w, np.ones((1, 90)), [0], [0]) == pytest.approx([1])
    assert recommend(np.zeros((40, 30)), w, h, 1).values == pytest.approx(np.full((40, 1), 5))


NO_FACTORS: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "nothing": ({"W": None}, TypeError, "W is NoneType; give an array"),
    "a path of nothing": ({"H": "no.npy"}, FileNotFoundError, "there is nothing at .*no.npy"),
    "one dimension": ({"W": [1.0, 2.0]}, ValueError, "W has 1 dimension"),
    "a gap": ({"W": [[1.0], [None]]}, ValueError, "W has nan at row 1, column 0; a factor must be finite"),
    "text": ({"H": [["a", "b"]]}, ValueError, "H has entries of type"),
    "unknown size": (
        {"W": da.ones((4, 1), chunks=(2, 1))[da.ones(4, chunks=2) > 0]}, ValueError, "W has unknown chunk"
    ),
    "means of another kind": ({"means": (1, 2, 3)}, TypeError, "means is tuple; give the means of a fit"),
    "one bound": ({"clip": 5}, ValueError, "clip is 5; give two numbers"),
    "masked rows": ({"rows": np.ma.array([0, 1], mask=[0, 1])}, ValueError, "rows has 1 masked of 2 entries"),
    "masked columns": (
        {"columns": np.ma.array([0, 1], mask=[1, 1])}, ValueError, "columns has 2 masked .*compressed"
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", NO_FACTORS)
def test_what_is_no_factor_or_option_is_refused(case: str) -> None:
    given, kind, words = NO_FACTORS[case]
    asked = {"W": np.ones((2, 1)), "H": np.ones((1, 2)), "rows": [0, 1], "columns": [0, 1], **given}
    with pytest.raises(kind, match=words):
        predict(**asked)
    if "columns" not in given:
        with pytest.raises(kind, match=words):
            recommend(np.ones((2, 2)), count=2, **{name: asked[name] for name in asked if name != "columns"})
