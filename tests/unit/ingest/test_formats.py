"""Each kind of file becomes the matrix that another library reads from it, with its names."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet
import pytest
import scipy.io
import scipy.sparse
import zarr
from support.converted import matrix_of, names_of

from dask_nmf.ingest import convert, rows
from dask_nmf.ingest.entries import sorting
from dask_nmf.ingest.formats.matrices import market_text, matrix_rows
from dask_nmf.ingest.formats.tables import csv_table, parquet_table
from dask_nmf.ingest.output import growing

SPARSE = scipy.sparse.random_array((60, 25), density=0.2, rng=np.random.default_rng(0), dtype=np.float32)
DENSE = np.random.default_rng(0).random((60, 25), np.float32)
TRIPLETS = {"row": "user", "column": "item", "value": "rating"}


@pytest.fixture(params=["as they are", "small"])
def steps(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps as they are, and of a few rows, entries and characters."""
    if request.param == "small":
        monkeypatch.setattr(matrix_rows, "BATCH", 500)
        monkeypatch.setattr(market_text, "TEXT", 997)
        monkeypatch.setattr(csv_table, "BLOCK", 64)
        monkeypatch.setattr(parquet_table, "RECORDS", 7)
        monkeypatch.setattr(growing, "AT_ONCE", 200)
        monkeypatch.setattr(sorting.RowSorter.__init__, "__defaults__", (40, 30))


@pytest.mark.usefixtures("steps")
@pytest.mark.parametrize("kind", ["csr", "csc"])
def test_npz(tmp_path: Path, kind: str) -> None:
    scipy.sparse.save_npz(tmp_path / "v.npz", SPARSE.asformat(kind))
    written = convert(tmp_path / "v.npz", tmp_path / "v.zarr")
    assert written[1:4] == (SPARSE.shape, "float32", SPARSE.nnz)
    np.testing.assert_array_equal(matrix_of(tmp_path / "v.zarr"), SPARSE.toarray())


@pytest.mark.usefixtures("steps")
@pytest.mark.parametrize("shape", [(60, 25), (25, 60)])
def test_npy_and_rechunking(tmp_path: Path, shape: tuple[int, int]) -> None:
    v = DENSE.reshape(shape)
    np.save(tmp_path / "v.npy", v)
    convert([tmp_path / "v.npy"] * 2, tmp_path / "v.zarr", chunks=(7, 4), codec="none")
    convert(tmp_path / "v.zarr", tmp_path / "again.zarr", chunks="11", codec="zstd")
    for name in ("v.zarr", "again.zarr"):
        np.testing.assert_array_equal(matrix_of(tmp_path / name), np.vstack([v, v]))
    assert zarr.open_array(tmp_path / "again.zarr" / "X").chunks == (11, shape[1])


def test_zarr_in_a_zip(tmp_path: Path) -> None:
    with zarr.storage.ZipStore(tmp_path / "v.zip", mode="w") as store:
        zarr.create_array(store, data=DENSE)
    convert(tmp_path / "v.zip", tmp_path / "v.zarr")
    np.testing.assert_array_equal(matrix_of(tmp_path / "v.zarr"), DENSE)


@pytest.mark.usefixtures("steps")
@pytest.mark.parametrize("symmetry", ["general", "symmetric"])
@pytest.mark.parametrize("field", ["real", "integer", "pattern"])
def test_matrix_market(tmp_path: Path, field: str, symmetry: str) -> None:
    v: Any = (SPARSE * 9).ceil()
    if symmetry == "symmetric":
        v = v @ v.T
    scipy.io.mmwrite(tmp_path / "v.mtx", v.tocoo(), "a comment", field, symmetry=symmetry)
    convert(tmp_path / "v.mtx", tmp_path / "v.zarr")
    expected = scipy.io.mmread(tmp_path / "v.mtx", spmatrix=False).toarray()
    np.testing.assert_array_equal(matrix_of(tmp_path / "v.zarr"), expected)


def test_a_matrix_without_entries(tmp_path: Path) -> None:
    (tmp_path / "v.mtx").write_text("%%MatrixMarket matrix coordinate real general\n3 2 0\n")
    assert convert(tmp_path / "v.mtx", tmp_path / "v.zarr")[1:4] == ((3, 2), "float32", 0)
    assert zarr.open_group(tmp_path / "v.zarr")["X/indptr"][:].tolist() == [0, 0, 0, 0]


@pytest.mark.usefixtures("steps")
def test_a_folder_of_10x_gives_cells_by_features(tmp_path: Path) -> None:
    folder = tmp_path / "filtered"
    folder.mkdir()
    scipy.io.mmwrite(folder / "matrix.mtx", SPARSE)
    (folder / "matrix.mtx.gz").write_bytes(gzip.compress((folder / "matrix.mtx").read_bytes()))
    (folder / "matrix.mtx").unlink()
    barcodes = "".join(f"CELL{i}-1\n" for i in range(25))
    features = "".join(f"ENSG{i}\tGENE{i}\tGene Expression\n" for i in range(60))
    (folder / "barcodes.tsv.gz").write_bytes(gzip.compress(barcodes.encode()))
    (folder / "features.tsv.gz").write_bytes(gzip.compress(features.encode()))
    convert(folder, tmp_path / "v.zarr")
    np.testing.assert_array_equal(matrix_of(tmp_path / "v.zarr"), SPARSE.toarray().T)
    assert names_of(tmp_path / "v.zarr", "obs") == [f"CELL{i}-1" for i in range(25)]
    assert names_of(tmp_path / "v.zarr", "var") == [f"ENSG{i}" for i in range(60)]


@pytest.mark.usefixtures("steps")
@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".csv.gz", ".parquet"])
def test_dense_tables(tmp_path: Path, suffix: str) -> None:
    frame = pd.DataFrame(DENSE.astype(float), [f"row {i}" for i in range(60)], [f"c{j}" for j in range(25)])
    frame.iloc[5, 3] = np.nan
    for part, name in ((frame[:23], "a"), (frame[23:], "b")):
        path = tmp_path / f"{name}{suffix}"
        if suffix == ".parquet":
            part.to_parquet(path)
        else:
            part.to_csv(path, sep="\t" if suffix == ".tsv" else ",", float_format="%.17g")
    convert(tmp_path / f"*{suffix}", tmp_path / "v.zarr", missing="nan")
    np.testing.assert_array_equal(matrix_of(tmp_path / "v.zarr"), frame.to_numpy(np.float32))
    assert names_of(tmp_path / "v.zarr", "obs") == list(frame.index)
    assert names_of(tmp_path / "v.zarr", "var") == list(frame.columns)


@pytest.mark.parametrize("text", ["1,2\n3,4\n", "\n1;2\n\n3;4", "\ufeffa\tb\n1\t2\n3\t4\n"])
def test_csv_without_names_of_rows(tmp_path: Path, text: str) -> None:
    (tmp_path / "v.csv").write_text(text, encoding="utf-8")
    convert(tmp_path / "v.csv", tmp_path / "v.zarr")
    np.testing.assert_array_equal(matrix_of(tmp_path / "v.zarr"), [[1, 2], [3, 4]])
    assert names_of(tmp_path / "v.zarr", "obs") == ["0", "1"]


@pytest.mark.parametrize("text", [",0,1\nann,1,2\nbob,,4\n", '"","1","2"\n"ann",1,2\n"bob",NA,4\n'])
def test_columns_named_by_numbers(tmp_path: Path, text: str) -> None:
    """The header of pandas' `to_csv` and of R's `write.csv`: the first column has the names of rows."""
    (tmp_path / "v.csv").write_text(text)
    convert(tmp_path / "v.csv", tmp_path / "v.zarr", missing="nan")
    np.testing.assert_array_equal(matrix_of(tmp_path / "v.zarr"), [[1, 2], [np.nan, 4]])
    assert names_of(tmp_path / "v.zarr", "obs") == ["ann", "bob"]
    assert names_of(tmp_path / "v.zarr", "var") in (["0", "1"], ["1", "2"])


def test_a_frame_without_names_of_its_own(tmp_path: Path) -> None:
    pd.DataFrame(DENSE).to_csv(tmp_path / "v.csv", float_format="%.17g")
    convert(tmp_path / "v.csv", tmp_path / "v.zarr", missing="nan")
    np.testing.assert_array_equal(matrix_of(tmp_path / "v.zarr"), DENSE)


@pytest.mark.parametrize("text", ['"a;b",c\n1,2\n3,4\n', '"a\tb";c\n1;2\n3;4\n'])
def test_delimiters_are_sought_outside_of_quotes(tmp_path: Path, text: str) -> None:
    (tmp_path / "v.csv").write_text(text)
    convert(tmp_path / "v.csv", tmp_path / "v.zarr")
    np.testing.assert_array_equal(matrix_of(tmp_path / "v.zarr"), [[1, 2], [3, 4]])
    assert names_of(tmp_path / "v.zarr", "var")[1] == "c"


def test_an_empty_line_is_a_missing_value_of_an_only_column(tmp_path: Path) -> None:
    (tmp_path / "v.csv").write_text("a\n1\n\n3\n")
    convert(tmp_path / "v.csv", tmp_path / "v.zarr", missing="nan")
    np.testing.assert_array_equal(matrix_of(tmp_path / "v.zarr"), [[1], [np.nan], [3]])


@pytest.mark.usefixtures("steps")
@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize("rule", ["sum", "mean", "last"])
def test_tables_of_entries(tmp_path: Path, suffix: str, rule: str) -> None:
    rng = np.random.default_rng(1)
    users = [f"u{i:03}" for i in rng.integers(0, 20, 300)]
    items = rng.integers(0, 30, 300)
    frame = pd.DataFrame({"rating": rng.integers(1, 6, 300), "item": items, "note": "x", "user": users})
    for part, name in ((frame[:123], "a"), (frame[123:], "b")):
        path = tmp_path / f"{name}{suffix}"
        part.to_parquet(path) if suffix == ".parquet" else part.to_csv(path, index=False)
    paths = [tmp_path / f"a{suffix}", str(tmp_path / f"b{suffix}")]
    convert(paths, tmp_path / "v.zarr", **TRIPLETS, duplicates=rule)
    expected = frame.pivot_table("rating", "user", "item", rule, 0, sort=False)
    rows = list(dict.fromkeys(users))
    columns = list(dict.fromkeys(items.tolist()))
    np.testing.assert_allclose(matrix_of(tmp_path / "v.zarr"), expected.loc[rows, columns], rtol=1e-6)
    assert names_of(tmp_path / "v.zarr", "obs") == rows
    assert names_of(tmp_path / "v.zarr", "var") == [str(item) for item in columns]


def test_the_group_is_of_anndata_and_opens_as_its_x(tmp_path: Path) -> None:
    (tmp_path / "v.csv").write_text("user,item,rating\nann,tea,5\nbob,tea,2\nann,rice,3.5\n")
    convert(tmp_path / "v.csv", tmp_path / "v.zarr", **TRIPLETS)
    group = zarr.open_group(tmp_path / "v.zarr", mode="r")
    kinds = {name: group[name].attrs["encoding-type"] for name in ("X", "obs", "var", "obs/_index")}
    assert group.attrs["encoding-type"] == "anndata"
    assert kinds == {"X": "csr_matrix", "obs": "dataframe", "var": "dataframe", "obs/_index": "string-array"}
    assert {path.name for path in (tmp_path / "v.zarr").iterdir()} == {"zarr.json", "X", "obs", "var"}
    np.testing.assert_array_equal(matrix_of(tmp_path / "v.zarr"), matrix_of(tmp_path / "v.zarr" / "X"))


@pytest.mark.usefixtures("steps")
def test_doubles_of_parquet_stay_double(tmp_path: Path) -> None:
    v = np.random.default_rng(0).random((60, 2))
    pd.DataFrame(v, columns=["a", "b"]).to_parquet(tmp_path / "v.parquet")
    assert convert(tmp_path / "v.parquet", tmp_path / "v.zarr").dtype == "float64"
    np.testing.assert_array_equal(matrix_of(tmp_path / "v.zarr"), v)
    entries = pd.DataFrame({"user": np.arange(60), "item": "x", "rating": v[:, 0]})
    entries.to_parquet(tmp_path / "e.parquet")
    assert convert(tmp_path / "e.parquet", tmp_path / "e.zarr", **TRIPLETS).dtype == "float64"
    np.testing.assert_array_equal(matrix_of(tmp_path / "e.zarr"), v[:, :1])
    entries.astype({"rating": "float32"}).to_parquet(tmp_path / "f.parquet")
    assert convert(tmp_path / "f.parquet", tmp_path / "f.zarr", **TRIPLETS).dtype == "float32"


def test_parquet_columns_of_one_name(tmp_path: Path) -> None:
    names = ["a", "gene", "b", "a"]
    frame = pyarrow.table([[1.0, 2.0], ["x", "y"], [3.0, 4.0], [5.0, 6.0]], names=names)
    pyarrow.parquet.write_table(frame, tmp_path / "v.parquet")
    convert(tmp_path / "v.parquet", tmp_path / "v.zarr", row="gene")
    np.testing.assert_array_equal(matrix_of(tmp_path / "v.zarr"), [[1, 3, 5], [2, 4, 6]])
    assert names_of(tmp_path / "v.zarr", "obs") == ["x", "y"]
    assert names_of(tmp_path / "v.zarr", "var") == ["a", "b", "a"]


def test_comments_and_empty_lines_in_the_body_of_matrix_market(tmp_path: Path) -> None:
    body = "3 2 2\n\n% a comment\n1 1 5\r\n  \n3 2 7\n\n"
    (tmp_path / "v.mtx").write_text(f"%%MatrixMarket matrix coordinate real general\n{body}")
    convert(tmp_path / "v.mtx", tmp_path / "v.zarr")
    np.testing.assert_array_equal(matrix_of(tmp_path / "v.zarr"), [[5, 0], [0, 0], [0, 7]])


def test_batches_are_read_while_others_are_written() -> None:
    assert list(rows.read_ahead(iter(range(5)))) == [0, 1, 2, 3, 4]
    with pytest.raises(ZeroDivisionError):
        list(rows.read_ahead(1 // one for one in (1, 0)))


@pytest.mark.parametrize("name", ["A.CSV", "A.TSV", "A.MTX", "A.NPY", "A.PARQUET"])
def test_suffixes_in_capitals(tmp_path: Path, name: str) -> None:
    path, v = tmp_path / name, np.array([[1.0, 2.0], [3.0, 4.0]])
    if name == "A.MTX":
        path.write_text("%%MatrixMarket matrix coordinate real general\n2 2 4\n1 1 1\n1 2 2\n2 1 3\n2 2 4\n")
    elif name == "A.NPY":
        with path.open("wb") as file:
            np.save(file, v)
    elif name == "A.PARQUET":
        pd.DataFrame(v, columns=["a", "b"]).to_parquet(path)
    else:
        pd.DataFrame(v, columns=["a", "b"]).to_csv(path, index=False, sep="\t" if name == "A.TSV" else ",")
    convert(path, tmp_path / "v.zarr")
    np.testing.assert_array_equal(matrix_of(tmp_path / "v.zarr"), v)


def test_hidden_files_are_no_rows(tmp_path: Path) -> None:
    (tmp_path / "in" / ".git").mkdir(parents=True)
    for name in ("a.txt", "._a.txt", ".git/x.txt"):
        (tmp_path / "in" / name).write_text("one word")
    assert convert(tmp_path / "in", tmp_path / "v.zarr").shape[0] == 1
