"""Entries that are masked or null, in whatever holds them, are NaN in the panels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.grids import pairwise
from support.matrices import Array, frame, labelled, low_rank, read
from support.strategies import chunkings

from dask_nmf import NMF, nmf, predict, transform
from dask_nmf.sources.registry import open_matrix

ASKED: dict[str, Any] = {"max_iter": 3, "tol": 0}
BELOW = 1e6  # what a mask hides

pytestmark = pytest.mark.usefixtures("several_panels")


def gaps(shape: tuple[int, int] = (40, 12)) -> Array:
    """Where a V has nothing."""
    return np.random.default_rng(1).random(shape) < 0.2


def masked(v: Array, mask: Array) -> Any:
    """An array that hides something."""
    return np.ma.array(np.where(mask, BELOW, v).astype(v.dtype), mask=mask)


def in_some_chunks(v: Array, mask: Array) -> da.Array:
    """A Dask array whose meta does not tell that blocks of it are masked."""

    def hide(block: Array, block_info: Any) -> Any:
        (first, last), (left, right) = block_info[0]["array-location"]
        at = mask[first:last, left:right]
        return masked(block, at) if at.any() else block

    whole = da.from_array(v, chunks=(7, 5))
    return whole.map_blocks(hide, dtype=v.dtype, meta=np.empty((0, 0), v.dtype))


def nulls(v: Array, mask: Array) -> pd.DataFrame:
    """A table of nullable numbers."""
    kind = v.dtype.name.replace("i", "I").replace("f", "F").replace("u", "U")
    return frame(v).astype(kind).mask(pd.DataFrame(mask, columns=frame(v).columns))


MASKED: dict[str, Callable[[Array, Array], Any]] = {
    "numpy": masked,
    "numpy F": lambda v, mask: masked(v.T, mask.T).T,
    "rows": lambda v, mask: list(masked(v, mask)),
    "list": lambda v, mask: np.where(mask, None, v.astype(object)).tolist(),
    "numpy objects": lambda v, mask: np.where(mask, None, v.astype(object)),
    "list of masked": lambda v, mask: [
        [np.ma.masked if hidden else value for value, hidden in zip(*row, strict=True)]
        for row in zip(v.tolist(), mask.tolist(), strict=True)
    ],
    "dask": lambda v, mask: da.from_array(masked(v, mask), chunks=(7, 5)),
    "dask.ma": lambda v, mask: da.ma.masked_equal(da.from_array(np.where(mask, 99, v), chunks=(7, 5)), 99),
    "dask, some chunks": in_some_chunks,
    "xarray": lambda v, mask: labelled(v).where(~mask),
    "xarray of dask": lambda v, mask: labelled(da.from_array(masked(v, mask), chunks=(7, 5))),
    "pandas": nulls,
    "pandas of arrow": lambda v, mask: nulls(v, mask).convert_dtypes(dtype_backend="pyarrow"),
    "pandas objects": lambda v, mask: nulls(v, mask).astype(object),
    "polars": lambda v, mask: pl.from_arrow(pa.Table.from_pandas(nulls(v, mask))),
    "pyarrow": lambda v, mask: pa.Table.from_pandas(nulls(v, mask)),
    "dask frame": lambda v, mask: dd.from_pandas(nulls(v, mask), npartitions=3),
}  # fmt: skip


@pairwise(
    {
        "kind": list(MASKED),
        "dtype": ["float32", "float64", "int16", "int64"],
        "wide": {"tall": False, "wide": True},
    }
)
def test_what_is_masked_is_nan(kind: str, dtype: str, wide: bool) -> None:
    shape = (12, 40) if wide else (40, 12)
    v = np.round(9 * low_rank(*shape, 3)).astype(dtype)
    opened = open_matrix(MASKED[kind](v, gaps(shape)))
    np.testing.assert_array_equal(read(opened), np.where(gaps(shape), np.nan, v))
    assert opened.dtype.kind == "f"


@given(data=st.data())
def test_no_chunking_of_a_masked_array_shows_what_is_below(data: st.DataObject) -> None:
    v, mask = low_rank(40, 12, 3), gaps()
    cut = da.from_array(masked(v, mask), chunks=data.draw(chunkings(v.shape)))
    np.testing.assert_array_equal(read(open_matrix(cut)), np.where(mask, np.nan, v))


@pytest.mark.parametrize("kind", ["numpy", "dask, some chunks", "pandas", "polars", "dask frame"])
def test_a_fit_never_sees_what_is_below_a_mask(kind: str) -> None:
    v, mask = low_rank(40, 12, 3), gaps()
    x, known = MASKED[kind](v, mask), np.where(mask, np.nan, v)
    asked: dict[str, Any] = {**ASKED, "missing": "nan", "alpha_W": 0.01}
    theirs = nmf(known, 3, **asked)
    ours = nmf(x, 3, **asked)
    np.testing.assert_allclose(ours.H, theirs.H, rtol=1e-9)
    assert ours.relative_error == pytest.approx(theirs.relative_error)
    model = NMF(3, random_state=0, **asked)
    np.testing.assert_allclose(model.fit_transform(x), theirs.W, rtol=1e-9)
    np.testing.assert_allclose(model.transform(x), transform(known, theirs.H, missing="nan", alpha_W=0.01))
    learned, expected = (NMF(3, random_state=0, **asked).partial_fit(part) for part in (x, known))
    np.testing.assert_allclose(learned.components_, expected.components_, rtol=1e-9)
    for call in (lambda: nmf(x, 3), lambda: NMF(3).fit(x), lambda: transform(x, theirs.H)):
        with pytest.raises(ValueError, match=r'V has nan at row .*masked, be missing: missing="nan"'):
            call()
    with pytest.raises(ValueError, match=r"'unstored' and V is dense; .*missing='nan'"):
        nmf(x, 3, missing="unstored")


def test_a_mask_that_hides_nothing_is_none() -> None:
    v = np.round(9 * low_rank(40, 12, 3)).astype("int16")
    opened = open_matrix(np.ma.array(v, mask=False))
    assert opened.fingerprint() == open_matrix(v).fingerprint()
    assert nmf(np.ma.array(v), 3, **ASKED).relative_error == nmf(v, 3, **ASKED).relative_error


@pytest.mark.parametrize("name", ["W", "H", "fixed_W", "fixed_H", "weights"])
def test_nothing_else_may_be_masked(name: str) -> None:
    v = low_rank(40, 12, 3)
    shape = {"W": (40, 3), "fixed_W": (40, 3), "weights": v.shape}.get(name, (3, 12))
    given = np.ma.array(np.ones(shape), mask=np.eye(*shape))
    with pytest.raises(ValueError, match=f"{name} has nan at row"):
        nmf(v, 3, **{name: given})
    if name == "H":
        with pytest.raises(ValueError, match=r"H is a masked array; .*filled\(0\)"):
            predict(np.ones((40, 3)), given, [0], [0])
        with pytest.raises(ValueError, match="H has nan"):
            transform(v, given)
        with pytest.raises(ValueError, match="H has nan"):
            NMF(3).partial_fit(v, H=given)
