"""Integers that are not exact as floating-point numbers are refused, and ids are exact."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import zarr
from support.converted import MARKET, TRIPLETS, assert_refused, matrix_of, names_of

from dask_nmf.errors import DataError
from dask_nmf.ingest import convert


def test_integers_that_float64_would_round(tmp_path: Path) -> None:
    inexact = 2**53 + 1
    (tmp_path / "v.mtx").write_text(f"{MARKET.replace('real', 'integer')}3 3 2\n1 1 1\n3 2 {inexact}\n")
    (tmp_path / "v.csv").write_text(f"a,b\n1,1e300\n2,{inexact}\n")
    (tmp_path / "t.csv").write_text(f"user,item,rating\nu,i,1\nv,k,{inexact}\n")
    pd.DataFrame({"a": [1, inexact], "b": [2**60, 1]}).to_parquet(tmp_path / "v.parquet")
    places = {
        "v.mtx": "line 5, row 3, column 2",
        "v.csv": "line 3, column 'b'",
        "t.csv": "line 3, column 'rating'",
    }
    for name, place in {**places, "v.parquet": "record 2, column 'a'"}.items():
        options = TRIPLETS if name == "t.csv" else {}
        words = f"{name}, {place}: {inexact} is not exact as float64; correct it, or store it as a floating"
        assert_refused(tmp_path, name, words, **options, dtype="float64")
    (tmp_path / "v.csv").write_text(f"a,b\n1,1e300\n{2**60},{inexact}.0\n")
    convert(tmp_path / "v.csv", tmp_path / "v.zarr", dtype="float64")
    np.testing.assert_array_equal(matrix_of(tmp_path / "v.zarr"), [[1, 1e300], [2**60, 2**53]])


def wide_sources(folder: Path, v: np.ndarray) -> dict[str, Any]:
    """Return sources that hold V, some of them files."""
    csr = scipy.sparse.csr_array(v)
    np.save(folder / "v.npy", v)
    zarr.create_array(folder / "in.zarr", data=v, chunks=(2, 2), overwrite=True)
    scipy.sparse.save_npz(folder / "v.npz", csr.tocsc())
    for name in ("dense", "sparse"):
        with h5py.File(folder / f"{name}.h5", "w") as file:
            if name == "dense":
                file["X"] = v
                continue
            group = file.create_group("X")
            group.attrs.update({"encoding-type": "csr_matrix", "shape": v.shape})
            for part in ("data", "indices", "indptr"):
                group[part] = getattr(csr, part)
    files = {name: folder / name for name in ("v.npy", "in.zarr", "v.npz", "dense.h5", "sparse.h5")}
    return {**files, "numpy": v, "pandas": pd.DataFrame(v), "csr": csr}


@pytest.mark.parametrize("dtype", [np.int64, np.uint64])
def test_wide_integers_of_arrays_that_float64_would_round(tmp_path: Path, dtype: type) -> None:
    v = np.array([[1, 2], [2**60, 2**53 + 1], [4, 5]], dtype)
    for source in wide_sources(tmp_path, v).values():
        with pytest.raises(DataError, match=r"row 1, column 1: 9007199254740993 is not exact as float64"):
            convert(source, tmp_path / "v.zarr")
    v[1, 1] = 2**53
    for source in (*wide_sources(tmp_path, v).values(), v.astype(np.float64)):
        convert(source, tmp_path / "v.zarr", overwrite=True)
        np.testing.assert_array_equal(matrix_of(tmp_path / "v.zarr"), v)


def test_ids_of_64_bits_are_exact(tmp_path: Path) -> None:
    ids = [2**53 + 1, 2**63 - 1, 2**53]
    frame = pd.DataFrame({"user": ids, "a": [1, 2, 3]})
    frame.to_csv(tmp_path / "v.csv", index=False)
    frame.to_parquet(tmp_path / "v.parquet")
    for name in ("v.csv", "v.parquet"):
        convert(tmp_path / name, tmp_path / "v.zarr", row="user", overwrite=True)
        assert names_of(tmp_path / "v.zarr", "obs") == [str(number) for number in ids]
