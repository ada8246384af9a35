"""Tables and arrays of other libraries: `nmf` and `NMF` take the same kinds, by panels where they can."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask.array as da
import dask.dataframe as dd
import h5py
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import sparse as pydata
import xarray
import zarr
from support.matrices import LIBRARIES, SOURCES, Array, hdf5, labelled, low_rank, read

from dask_nmf import NMF, nmf, transform
from dask_nmf.sources.registry import open_matrix

ASKED: dict[str, Any] = {"max_iter": 3, "tol": 0}

pytestmark = pytest.mark.usefixtures("several_panels")


@pytest.mark.parametrize("kind", ["list", "pandas", "xarray of dask", "hdf5 contiguous", "csr_array"])
def test_factors_and_weights_may_be_held_as_v_may(kind: str, tmp_path: Path) -> None:
    v, h = low_rank(40, 12, 3), np.random.default_rng(2).random((3, 12))
    make = {**SOURCES, **LIBRARIES, "list": lambda held, path: held.tolist()}[kind]
    ours = nmf(v, 3, H=make(h, tmp_path / "h"), weights=make(v, tmp_path / "w"), **ASKED)
    np.testing.assert_allclose(ours.H, nmf(v, 3, H=h, weights=v, **ASKED).H)
    np.testing.assert_allclose(transform(v, make(h, tmp_path / "again")), transform(v, h))


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
    for factor in (w, new):  # of a DataArray, one that holds an array of Dask
        assert isinstance(factor.data if isinstance(factor, xarray.DataArray) else factor, da.Array)
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


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: (row for row in np.eye(3)), TypeError, "V is generator; give an array .* or the path"),
        (lambda: {"a": [1, 2]}, TypeError, "V is dict; give"),
        (lambda: 3.5, TypeError, "V is float; give"),
        (Tensor, TypeError, r"V is Tensor, .*asarray\(V\) fails \(it is on .*\); give a NumPy array"),
        (lambda: xarray.Dataset({"t": labelled(np.eye(3))}), TypeError, r"one of its variables, as V\['"),
        (lambda: pl.DataFrame(np.eye(3)).lazy(), TypeError, r"V is polars.LazyFrame; give V.collect\(\)"),
        (lambda: pl.Series([1, 2]), ValueError, "1 dimension"),
        (lambda: pd.Series([1, 2]), ValueError, "1 dimension"),
        (lambda: pa.array([1, 2]), ValueError, "1 dimension"),
        (lambda: [1, 2], ValueError, "1 dimension"),
        (lambda: [["a", "b"]], ValueError, "NMF needs real numbers"),
        (lambda: [[1, "b"]], ValueError, "NMF needs real numbers"),
        (lambda: labelled(np.ones((2, 2)))[0], ValueError, "1 dimension"),
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
