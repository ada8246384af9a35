"""Objects with names of rows and columns are converted with these, as files are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anndata
import dask.dataframe
import numpy as np
import pandas as pd
import polars as pl
import pytest
import scipy.sparse
import xarray as xr
from support.converted import matrix_of, names_of

from dask_nmf.errors import DataError
from dask_nmf.ingest import convert
from dask_nmf.sources.registry import open_matrix

V = np.random.default_rng(0).integers(1, 9, (4, 3)).astype(np.float32)
ROWS, COLUMNS = ["d", "b", "a", "c"], ["x", "z", "y"]
TABLE = pd.DataFrame(V, ROWS, COLUMNS)
ARRAY = xr.DataArray(V, {"cell": ROWS, "gene": COLUMNS}, ("cell", "gene"))
OBJECTS = {
    "pandas": lambda: TABLE,
    "dask": lambda: dask.dataframe.from_pandas(TABLE, npartitions=3, sort=False),
    "xarray": lambda: ARRAY,
    "xarray by columns": lambda: ARRAY.T.copy().T,
    "lazy xarray": lambda: ARRAY.chunk({"cell": 3}),
    "anndata": lambda: anndata.AnnData(V, TABLE[[]], TABLE.T[[]]),
    "sparse anndata": lambda: anndata.AnnData(scipy.sparse.csc_matrix(V), TABLE[[]], TABLE.T[[]]),
}


@pytest.mark.parametrize("name", OBJECTS)
def test_names_are_stored_beside_v(tmp_path: Path, name: str) -> None:
    convert(OBJECTS[name](), tmp_path / "v.zarr")
    np.testing.assert_array_equal(matrix_of(tmp_path / "v.zarr"), V)
    assert names_of(tmp_path / "v.zarr", "obs") == ROWS
    assert names_of(tmp_path / "v.zarr", "var") == COLUMNS


@pytest.mark.parametrize("backed", [False, True])
def test_layers_and_raw_of_an_annotated_object(tmp_path: Path, backed: bool) -> None:
    obs, var = (pd.DataFrame(index=pd.Index(names, dtype=object)) for names in (ROWS, COLUMNS))
    adata = anndata.AnnData(V, obs, var)
    adata.raw = adata
    adata = adata[:, 1:].copy()
    adata.layers["counts"] = scipy.sparse.csr_matrix(V[:, 1:] + 1)
    if backed:
        adata.write_h5ad(tmp_path / "v.h5ad")
        adata = anndata.read_h5ad(tmp_path / "v.h5ad", backed="r")
    for options, v, columns in (
        ({"layer": "counts"}, V[:, 1:] + 1, COLUMNS[1:]),
        ({"dataset": "raw/X"}, V, COLUMNS),
        ({"dataset": "X"}, V[:, 1:], COLUMNS[1:]),
    ):
        convert(adata, tmp_path / "v.zarr", overwrite=True, **options)
        np.testing.assert_array_equal(matrix_of(tmp_path / "v.zarr"), v)
        assert names_of(tmp_path / "v.zarr", "obs") == ROWS
        assert names_of(tmp_path / "v.zarr", "var") == columns
    for options, message in (
        ({"layer": "logs"}, "AnnData has no layer 'logs'; its layers: counts"),
        ({"dataset": "obsm/pca"}, "X, raw/X or layers/NAME is taken, and not obsm/pca"),
    ):
        with pytest.raises(DataError, match=message):
            convert(adata, tmp_path / "w.zarr", **options)
    with pytest.raises(DataError, match="AnnData has no raw"):
        convert(anndata.AnnData(V), tmp_path / "w.zarr", dataset="raw/X")


def test_objects_of_which_one_side_has_names(tmp_path: Path) -> None:
    convert(pl.DataFrame(dict(zip(COLUMNS, V.T, strict=True))), tmp_path / "v.zarr")
    labels = open_matrix(tmp_path / "v.zarr").labels
    assert labels.rows is None
    assert names_of(tmp_path / "v.zarr", "var") == COLUMNS


@pytest.mark.parametrize("source", [V, pd.DataFrame(V), scipy.sparse.csr_array(V)])
def test_names_that_only_count_are_none(tmp_path: Path, source: Any) -> None:
    convert(source, tmp_path / "v.zarr")
    assert not open_matrix(tmp_path / "v.zarr").labels


@pytest.mark.parametrize("inside", ["", "counts"])
def test_coordinates_beside_an_array_in_zarr(tmp_path: Path, inside: str) -> None:
    ARRAY.rename("counts").to_dataset().to_zarr(tmp_path / "in.zarr", zarr_format=2)
    source = tmp_path / "in.zarr" if inside else tmp_path / "in.zarr" / "counts"
    convert(source, tmp_path / "v.zarr", dataset=inside or None)
    assert names_of(tmp_path / "v.zarr", "obs") == ROWS
    assert names_of(tmp_path / "v.zarr", "var") == COLUMNS


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_like_gives_the_dtype_of_v(tmp_path: Path, dtype: str) -> None:
    other = "float32" if dtype == "float64" else "float64"
    (tmp_path / "v.csv").write_text(TABLE.to_csv())
    np.save(tmp_path / "v.npy", V.astype(other))
    convert(tmp_path / "v.csv", tmp_path / "v.zarr", dtype=dtype)
    for source in (tmp_path / "v.csv", tmp_path / "v.npy", scipy.sparse.csc_array(V.astype(other))):
        assert convert(source, tmp_path / "w.zarr", like=tmp_path / "v.zarr", overwrite=True).dtype == dtype
        np.testing.assert_array_equal(matrix_of(tmp_path / "w.zarr"), V)
    given = convert(
        tmp_path / "v.csv", tmp_path / "w.zarr", like=tmp_path / "v.zarr", dtype=other, overwrite=True
    )
    assert given.dtype == other


def test_steps_keep_the_names_and_like_finds_columns_by_them(tmp_path: Path) -> None:
    convert(TABLE, tmp_path / "v.zarr", top_columns=2, top_by="sum")
    kept = [COLUMNS[index] for index in sorted(np.argsort(-V.sum(0), kind="stable")[:2])]
    assert names_of(tmp_path / "v.zarr", "var") == kept
    convert(TABLE[["y", "x", "z"]], tmp_path / "new.zarr", like=tmp_path / "v.zarr")
    assert names_of(tmp_path / "new.zarr", "var") == kept
    assert names_of(tmp_path / "new.zarr", "obs") == ROWS
    np.testing.assert_array_equal(matrix_of(tmp_path / "new.zarr"), TABLE[kept])
