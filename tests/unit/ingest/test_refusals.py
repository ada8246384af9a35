"""Bad files are refused with the line or record and a cure, and nothing is left behind."""

from __future__ import annotations

import gzip
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest
import zarr
from support.converted import MARKET, TRIPLETS, assert_refused, matrix_of

from dask_nmf.errors import DataError
from dask_nmf.ingest import convert
from dask_nmf.ingest.formats.tables.csv_table import CsvTable
from dask_nmf.ingest.formats.tables.records import Records

LONG = "".join(f"u{i},i,1\n" for i in range(200_000))
TABLES = [
    ("a,b\n1,2\n\n3,x\n", "v.csv, line 4: 'x' in column 'b' is no number"),
    ("1,2\n3,x\n", "v.csv, line 2: 'x' in column 2 is no number"),
    ("a,b\n1,2\n\n3\n", "v.csv, line 4: '3' has 1 field, and the first line has 2"),
    ("a,b\n1,2\n\n3,-4\n", "v.csv, line 4, column 'b': -4.0 is negative"),
    ("a,b\n1,2\n3,\n", "v.csv, line 3, column 'b': a value is missing (NaN or empty); fill it in, or"),
    ("a,b\n1,2\n3,inf\n", "v.csv, line 3, column 'b': inf is not finite"),
    (
        "a,b\n1,2\n3,16777217\n",
        "line 3, column 'b': 16777217.0 is not exact as float32; give dtype='float64'",
    ),
    ("1,,3\n4,5,6\n", "v.csv, line 1: '1,,3' may be a header or a record with missing values; put a line"),
    ("NA,2\n4,5\n", "v.csv, line 1: 'NA,2' may be a header"),
    ("a\n1\n\n3\n", "v.csv, line 3, column 'a': a value is missing"),
    ("a\n1\n\nx\n", "v.csv, line 4: 'x' in column 'a' is no number"),
    ("a,b\n", "v.csv: V is empty"),
    ("", "v.csv is empty"),
]
ENTRIES = [
    ("u,i,1\nu,,2\n", "v.csv, line 3: an id is empty"),
    ("u,i,1\nu,k,abc\n", "v.csv, line 3: 'abc' in column 'rating' is no number"),
    ("u,i,1\n\nu,k,-3\n", "v.csv, line 4: -3.0 is negative"),
    ("u,i,1\nu,k,\n", "v.csv, line 3: a value is missing"),
    (f"{LONG}u7,i,1\n", "v.csv, line 200002: user 'u7' and item 'i' have a value already; leave one out, or"),
    ('u,i,1\n"u\nv",k,2\n', "v.csv, line 3: an id spans lines"),
    ("u,i,1\nu,k,2,3\n", "v.csv, line 3: 'u,k,2,3' has 4 fields"),
]


def test_a_text_among_numbers_names_both_ways_out(tmp_path: Path) -> None:
    (tmp_path / "v.csv").write_text("user,item,rating\nann,tea,5\n")
    cure = "names of rows, or --row, --column and --value if each line is an entry of V"
    assert_refused(tmp_path, "v.csv", cure, row="user")


@pytest.mark.parametrize(("text", "words"), TABLES)
def test_dense_tables(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "v.csv").write_text(text)
    assert_refused(tmp_path, "v.csv", words)


@pytest.mark.parametrize(("text", "words"), ENTRIES, ids=range(len(ENTRIES)))
def test_tables_of_entries(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "v.csv").write_text(f"user,item,rating\n{text}")
    assert_refused(tmp_path, "v.csv", words, **TRIPLETS)


def test_entries_of_one_cell_that_are_not_found_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "v.csv").write_text("user,item,rating\nu,i,1\nu,i,2\n")

    def only_first(table: CsvTable, *given: Any) -> Iterator[Records]:
        return (records for records in original(table, *given) if not read.append(1) and len(read) == 1)

    read: list[int] = []
    original = CsvTable.records
    monkeypatch.setattr(CsvTable, "records", only_first)
    assert_refused(tmp_path, "v.csv", "user 'u' and item 'i' have several values, which are no", **TRIPLETS)


def test_duplicates_are_for_entries(tmp_path: Path) -> None:
    (tmp_path / "v.csv").write_text("a,b\n1,2\n")
    np.save(tmp_path / "v.npy", np.ones((2, 2)))
    for name in ("v.csv", "v.npy"):
        with pytest.raises(ValueError, match="duplicates is 'sum', and is for MatrixMarket and for tables"):
            convert(tmp_path / name, tmp_path / "v.zarr", duplicates="sum")


def test_text_that_is_not_utf8(tmp_path: Path) -> None:
    (tmp_path / "v.csv").write_bytes("user,item,rating\na,b,1\nJosé,c,2\n".encode("latin-1"))
    assert_refused(tmp_path, "v.csv", "v.csv, line 3: ", **TRIPLETS)


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    (tmp_path / "v.csv").write_bytes("a,José\n1,2\n".encode("latin-1"))
    assert_refused(tmp_path, "v.csv", "v.csv, line 1: 'a,Jos?' is not UTF-8; save the file as UTF-8")
    with h5py.File(tmp_path / "v.h5ad", "w") as file:
        file["X"] = np.ones((2, 2), np.float32)
        for frame in ("obs", "var"):
            file.create_group(frame).attrs["_index"] = "_index"
        file["obs/_index"] = np.array([b"a", b"\xe9"], h5py.string_dtype())
        file["var/_index"] = np.array([b"a", b"b"], h5py.string_dtype())
    assert_refused(tmp_path, "v.h5ad", "v.h5ad/obs/_index cannot be read (UnicodeDecodeError")
    folder = tmp_path / "cells"
    folder.mkdir()
    (folder / "matrix.mtx").write_text(f"{MARKET}1 2 1\n1 1 1\n")
    (folder / "features.tsv").write_text("gene\n")
    (folder / "barcodes.tsv").write_bytes(b"one\ntw\xf6\n")
    assert_refused(tmp_path, "cells", "cells/barcodes.tsv, line 2: a name is not UTF-8; save the file as")


def test_files_whose_names_are_not_utf8(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "dask_nmf.progress")  # pytest-xdist cannot send such a name
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / os.fsdecode(b"x\xe9.txt")).write_text("one two")
    assert_refused(tmp_path, "texts", "the name 'x\\udce9.txt' of a row is not UTF-8; rename it, or its file")


def test_tables_in_folders_below(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    below = tmp_path / "tables" / "more"
    below.mkdir(parents=True)
    (below / "v.csv.gz").write_bytes(gzip.compress(b"a,b\n1,2\n"))
    assert_refused(tmp_path, "tables", f"has only 1 table in folders below {below.parent}; give their names")
    (below.parent / "w.csv").write_text("a,b\n3,4\n")
    convert(below.parent, tmp_path / "v.zarr")
    assert f"not taken: 1 table in folders below {below.parent}" in caplog.text
    assert f"such as '{below.parent}/*/*.csv.gz'" in caplog.text
    assert matrix_of(tmp_path / "v.zarr").tolist() == [[3, 4]]


def test_parquet(tmp_path: Path) -> None:
    pd.DataFrame({"a": [1.0, -2.0], "b": [1, 2]}).to_parquet(tmp_path / "v.parquet")
    assert_refused(tmp_path, "v.parquet", "v.parquet, record 2, column 'a': -2.0 is negative")
    pd.DataFrame({"a": ["x", "y"], "b": [1, 2]}).to_parquet(tmp_path / "v.parquet")
    assert_refused(tmp_path, "v.parquet", "column 'a' is of type")
    pd.DataFrame({"a": ["x", None], "b": [1, 2]}).to_parquet(tmp_path / "v.parquet")
    assert_refused(tmp_path, "v.parquet", "v.parquet, record 2: an id is empty", row="a")
    for ids in ([["x"], ["y"]], [b"x", b"\xff"]):
        pd.DataFrame({"a": ids, "b": [1, 2]}).to_parquet(tmp_path / "v.parquet")
        assert_refused(tmp_path, "v.parquet", "ids must be texts in UTF-8 or numbers", row="a")
    (tmp_path / "v.parquet").write_bytes(b"no parquet")
    assert_refused(tmp_path, "v.parquet", "cannot be read")


def test_matrices(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", np.array([[1.0, 2.0], [3.0, -1.0]]))
    assert_refused(tmp_path, "v.npy", "v.npy: row 1, column 1: -1.0 is negative")


@pytest.mark.parametrize("name", ["v.csv.gz", "v.mtx.gz", "v.npy"])
def test_files_of_another_kind(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"nothing of the kind")
    assert_refused(tmp_path, name, "cannot be read")


def test_files_that_do_not_fit_together(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x,y\n1,2\n")
    (tmp_path / "b.csv").write_text("x,y,z\n1,2,3\n")
    (tmp_path / "c.csv").write_text("y,x\n1,2\n")
    for other, words in (("b", "has 3 columns, and"), ("c", "name their columns differently")):
        with pytest.raises(DataError, match=words):
            convert([tmp_path / "a.csv", tmp_path / f"{other}.csv"], tmp_path / "v.zarr")


def test_options_that_do_not_fit(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", np.ones((2, 2)))
    for options, words in (
        ({"row": "a", "value": "b"}, "only row and value"),
        (TRIPLETS, "name columns of tables"),
        ({"row": "a", "column": "a", "value": "b"}, "are not three columns"),
        ({"duplicates": "first"}, "give one of error, sum, mean, last"),
        ({"codec": "gzip"}, "give one of lz4, zstd, none"),
        ({"chunks": "many"}, "give ROWS"),
        ({"chunks": (0, 1)}, "give ROWS"),
        ({"dtype": "int8"}, "give one of float32, float64"),
    ):
        with pytest.raises(ValueError, match=words):
            convert(tmp_path / "v.npy", tmp_path / "v.zarr", **options)
    with pytest.raises(FileNotFoundError, match="there is nothing at"):
        convert(tmp_path / "*.csv", tmp_path / "v.zarr")


def test_a_link_to_nothing(tmp_path: Path) -> None:
    (tmp_path / "v.npy").symlink_to(tmp_path / "none.npy")
    for name in ("v.npy", "*.npy"):
        with pytest.raises(FileNotFoundError, match="is a link to nothing"):
            convert(tmp_path / name, tmp_path / "v.zarr")


def test_only_an_earlier_conversion_is_replaced(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", np.ones((2, 2)))
    convert(tmp_path / "v.npy", tmp_path / "v.zarr")
    with pytest.raises(FileExistsError, match="exists"):
        convert(tmp_path / "v.npy", tmp_path / "v.zarr")
    np.save(tmp_path / "v.npy", np.full((2, 2), 7))
    convert(tmp_path / "v.npy", tmp_path / "v.zarr", overwrite=True)
    assert (matrix_of(tmp_path / "v.zarr") == 7).all()
    zarr.save(tmp_path / "mine.zarr", np.ones(3))
    with pytest.raises(FileExistsError, match="not an output of dask-nmf convert"):
        convert(tmp_path / "v.npy", tmp_path / "mine.zarr", overwrite=True)
    with pytest.raises(ValueError, match="is inside of"):
        convert(tmp_path / "v.zarr", tmp_path / "v.zarr", overwrite=True)


def test_a_damaged_chunk_is_noticed(tmp_path: Path) -> None:
    convert(np.random.default_rng(0).random((50, 9)), tmp_path / "v.zarr")
    chunk = tmp_path / "v.zarr" / "X" / "c" / "0" / "0"
    content = bytearray(chunk.read_bytes())
    content[len(content) // 2] ^= 1
    chunk.write_bytes(content)
    with pytest.raises(DataError, match="checksum"):
        matrix_of(tmp_path / "v.zarr")


def test_a_missing_library_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "v.csv").write_text("a,b\n1,2\n")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ValueError, match=r"run: pip install 'dask_nmf\[ingest\]'"):
        convert(tmp_path / "v.csv", tmp_path / "v.zarr")


def test_a_file_of_another_kind_and_zarr_beside_tables(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "all"
    folder.mkdir()
    (folder / "notes.py").write_text("a = 1")
    assert_refused(folder, "notes.py", "notes.py is a file of another kind; give .csv, .tsv")
    (folder / "notes.py").rename(tmp_path / "notes.py")
    assert_refused(
        tmp_path, "all", f"{folder} has no tables, JSON lines, texts or images, and is neither Zarr"
    )
    (folder / "v.csv").write_text("a,b\n1,2\n")
    convert(folder / "v.csv", folder / "w.zarr")
    convert(folder, tmp_path / "v.zarr")
    assert "not taken" not in caplog.text
    assert matrix_of(tmp_path / "v.zarr").tolist() == [[1, 2]]
