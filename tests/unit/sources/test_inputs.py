"""Masks, tables and arrays of other libraries: `nmf` and `NMF` take the same, and never as a whole."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import dask.dataframe as dd
import h5py
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import scipy.sparse
import sparse as pydata
import xarray
import zarr
from hypothesis import given
from hypothesis import strategies as st
from support.matrices import LIBRARIES, SOURCES, Array, dask_csr, frame, hdf5, labelled, low_rank, read
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


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64", "int16", "int64"])
@pytest.mark.parametrize("kind", MASKED)
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


@pytest.mark.parametrize("kind", ["list", "pandas", "xarray of dask", "hdf5 contiguous", "csr_array"])
def test_factors_and_weights_may_be_held_as_v_may(kind: str, tmp_path: Path) -> None:
    v, h = low_rank(40, 12, 3), np.random.default_rng(2).random((3, 12))
    make = {**SOURCES, **LIBRARIES, "list": lambda held, path: held.tolist()}[kind]
    ours = nmf(v, 3, H=make(h, tmp_path / "h"), weights=make(v, tmp_path / "w"), **ASKED)
    np.testing.assert_allclose(ours.H, nmf(v, 3, H=h, weights=v, **ASKED).H)
    np.testing.assert_allclose(transform(v, make(h, tmp_path / "again")), transform(v, h))


PAIRS = {"u1": [200, 100], "i1": [100, 100], "i2": [30_000, 30_000], "?": [1, 1]}


def twice(make: Callable[..., Any], dtype: Any) -> Any:
    """A matrix whose only entry is stored twice, and once overflows ``dtype``."""
    return make((np.array(PAIRS[dtype], dtype), ([0, 0], [1, 1])), shape=(30, 4))


def bsr(data: Any, shape: tuple[int, int]) -> Any:
    """Blocks of one entry, one of them twice."""
    values, (_, columns) = data
    indptr = np.array([0] + [2] * shape[0])
    return scipy.sparse.bsr_array((values.reshape(-1, 1, 1), columns, indptr), shape=shape)


def csr(data: Any, shape: tuple[int, int]) -> Any:
    """CSR with an entry twice: SciPy would add those of a COO matrix."""
    return scipy.sparse.csr_array((data[0], data[1][1], [0] + [2] * shape[0]), shape=shape)


def csc(data: Any, shape: tuple[int, int]) -> Any:
    """The same in CSC."""
    return scipy.sparse.csc_array((data[0], data[1][0], [0, 0, 2, 2, 2]), shape=shape)


DUPLICATES: dict[str, Callable[..., Any]] = {
    "csr": csr,
    "csc": csc,
    "coo": scipy.sparse.coo_array,
    "coo_matrix": scipy.sparse.coo_matrix,
    "bsr": bsr,
}


@pytest.mark.parametrize("dtype", PAIRS)
@pytest.mark.parametrize("kind", DUPLICATES)
def test_entries_stored_twice_are_added_as_floats(kind: str, dtype: Any, tmp_path: Path) -> None:
    held = twice(DUPLICATES[kind], dtype)
    expected = sum(PAIRS[dtype])
    block = dask.delayed(held)
    ways = {
        "memory": held,
        "columns": held.T,
        "dask": da.from_delayed(block, held.shape, meta=type(held)((0, 0), dtype=held.dtype)),
    }
    if kind in ("csr", "csc"):
        scipy.sparse.save_npz(tmp_path / "v.npz", held)
        ways["npz"] = str(tmp_path / "v.npz")
    for way, source in ways.items():
        found = read(open_matrix(source))
        assert found.max() == found.sum() == expected, way
    estimator = NMF(1, random_state=0, **ASKED).fit(held)
    assert estimator.components_.max() * estimator.transform(held).max() == pytest.approx(expected, rel=1e-4)


def test_narrow_blocks_are_cast_before_they_are_joined() -> None:
    v = np.zeros((6, 8), "u1")
    v[:, 2] = 200
    whole = dask_csr(v, lambda block: csr_of_pairs(block), chunks=(3, 3))
    np.testing.assert_array_equal(read(open_matrix(whole)), 2.0 * v)


def csr_of_pairs(block: Array) -> Any:
    """A CSR block with each entry twice."""
    once = scipy.sparse.csr_array(block)
    pairs = (np.repeat(once.data, 2), np.repeat(once.indices, 2), 2 * once.indptr)
    return scipy.sparse.csr_array(pairs, shape=block.shape)


STREAMED = {
    "zarr array": zarr.Array, "hdf5": h5py.Dataset, "xarray lazy": xarray.DataArray,
    "xarray of dask": xarray.DataArray, "dask frame": dd.DataFrame,
}  # fmt: skip


@pytest.mark.parametrize("kind", STREAMED)
def test_an_estimator_reads_by_panels_what_is_not_in_memory(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    v = low_rank(90, 14, 3)
    x = {**SOURCES, **LIBRARIES}[kind](v, tmp_path / "v")
    sizes: list[int] = []
    real = STREAMED[kind].__array__

    def counted(self: Any, *given: Any, **named: Any) -> Any:
        sizes.append(int(np.prod(self.shape)))
        return real(self, *given, **named)

    monkeypatch.setattr(STREAMED[kind], "__array__", counted)
    model = NMF(3, random_state=0, **ASKED)
    w = model.fit_transform(x)
    new = model.transform(x)
    assert max(sizes, default=0) <= v.size / 2
    assert isinstance(w, da.Array)
    assert isinstance(new, da.Array)
    np.testing.assert_allclose(w, NMF(3, random_state=0, **ASKED).fit_transform(v), rtol=1e-7)
    again = NMF(3, random_state=0, **ASKED).partial_fit(x)
    np.testing.assert_allclose(again.components_, NMF(3, random_state=0, **ASKED).partial_fit(v).components_)


@pytest.mark.filterwarnings("ignore:X has feature names")
@pytest.mark.parametrize("kind", LIBRARIES)
def test_an_estimator_takes_what_nmf_takes(kind: str, tmp_path: Path) -> None:
    v = low_rank(40, 12, 3)
    x = LIBRARIES[kind](v, tmp_path / "v")
    model = NMF(3, random_state=0, max_iter=1, tol=0)
    w = model.fit_transform(x)
    np.testing.assert_allclose(w, nmf(x, 3, max_iter=1, tol=0).W, rtol=1e-12)
    assert model.n_features_in_ == 12
    names = [] if not hasattr(x, "columns") else list(getattr(x, "column_names", x.columns))
    assert list(getattr(model, "feature_names_in_", [])) == [name for name in names if isinstance(name, str)]
    model = NMF(3, max_iter=1, tol=0).fit(v)
    with pytest.raises(ValueError, match="X has 11 features, but NMF is expecting 12"):
        model.transform(LIBRARIES[kind](v[:, :11], tmp_path / "narrow"))


def test_a_dataset_that_travels_is_opened_by_name(tmp_path: Path) -> None:
    v = low_rank(40, 12, 3)
    dataset = hdf5(v, tmp_path / "v", chunks=(7, 5))
    reader = open_matrix(dataset).reader
    travelled = pickle.loads(pickle.dumps(reader))
    dataset.file.close()
    np.testing.assert_array_equal(travelled[0:9, 0:12], v[:9])


class Tensor:
    """What cannot be had as an array."""

    def __array__(self, *given: Any, **named: Any) -> Array:
        raise RuntimeError("it is on another device")


def anndata() -> Any:
    return type("AnnData", (), {"__module__": "anndata._core.anndata"})()


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: (row for row in np.eye(3)), TypeError, "V is generator; give an array .* or the path"),
        (lambda: {"a": [1, 2]}, TypeError, "V is dict; give"),
        (lambda: 3.5, TypeError, "V is float; give"),
        (Tensor, TypeError, r"V is Tensor, .*asarray\(V\) fails \(it is on .*\); give a NumPy array"),
        (lambda: xarray.Dataset({"t": labelled(np.eye(3))}), TypeError, r"one of its variables, as V\['"),
        (lambda: pl.DataFrame(np.eye(3)).lazy(), TypeError, r"V is polars.LazyFrame; give V.collect\(\)"),
        (anndata, TypeError, "V is anndata.AnnData; give V.X"),
        (lambda: pl.Series([1, 2]), ValueError, "1 dimension"),
        (lambda: pd.Series([1, 2]), ValueError, "1 dimension"),
        (lambda: pa.array([1, 2]), ValueError, "1 dimension"),
        (lambda: [1, 2], ValueError, "1 dimension"),
        (lambda: [["a", "b"]], ValueError, "NMF needs real numbers"),
        (lambda: [[1, "b"]], ValueError, "NMF needs real numbers"),
        (lambda: labelled(np.ones((2, 2, 2))[0]).expand_dims("z"), ValueError, "3 dimension"),
        (lambda: pydata.COO(np.eye(3), fill_value=1), ValueError, r"fill_value 1.*V.todense\(\)"),
        (lambda: pydata.COO(np.ones((2, 2, 2))), ValueError, "3 dimension"),
        (lambda: pd.DataFrame({"a": [1], "b": ["x"]}), ValueError, r"no numbers: b \(str\); leave them out"),
        (lambda: pd.DataFrame({"b": pd.Categorical([1])}), ValueError, r"b \(category\)"),
        (lambda: pl.DataFrame({"a": [1], "b": ["x"]}), ValueError, r"b \(String\)"),
        (lambda: pa.table({"a": [1], "b": ["x"]}), ValueError, r"b \(string\)"),
        (lambda: dd.from_pandas(pd.DataFrame({"b": ["x"]})), ValueError, "hold no numbers: b"),
        (lambda: dd.from_pandas(pd.DataFrame({"b": [1.0]})).query("b > 1"), ValueError, "at least one row"),
    ],
)  # fmt: skip
def test_what_is_not_taken_says_what_to_give(
    make: Callable[[], Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        nmf(make(), 1)
    with pytest.raises((TypeError, ValueError)):
        NMF(1).fit(make())


def test_zip_archives_of_zarr(tmp_path: Path) -> None:
    v = low_rank(40, 12, 3)
    zarr.create_array(tmp_path / "V.zarr", data=v, chunks=(7, 5))

    inside = shutil.make_archive(
        str(tmp_path / "V.zarr"), "zip", tmp_path, "V.zarr"
    )  # in a folder of its own
    np.testing.assert_array_equal(read(open_matrix(inside)), v)
    (tmp_path / "bad.zip").write_bytes(b"PK no archive")
    with pytest.raises(ValueError, match=r"bad.zip cannot be read .*BadZipFile"):
        open_matrix(tmp_path / "bad.zip")
