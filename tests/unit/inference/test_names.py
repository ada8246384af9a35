"""Cells and rows by their names: in files, in Python, in what is written; and every name that is refused."""

from __future__ import annotations

import csv
import logging
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from dask import config
from support.matrices import low_rank
from support.named import names, write_anndata

from dask_nmf import Run, nmf, predict, recommend
from dask_nmf.errors import DataError, RunMismatch
from dask_nmf.inference import predict as predict_module
from dask_nmf.inference import recommend as recommend_module
from dask_nmf.inference.cells.reading import read_cells
from dask_nmf.sources.labels.index import ABSENT, REPEATED, NameIndex
from dask_nmf.sources.labels.names import Labels, in_memory
from dask_nmf.storage.locations import locate, locate_file

ROWS = [
    *names("user, ", 18),
    "7",
    "7",
]  # a name with a comma; one that looks like a number, and is there twice
COLUMNS = [*names("film ", 11), "3"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with ratings of which a third is missing, and a run of them."""
    folder = tmp_path_factory.mktemp("names")
    v = low_rank(20, 12, 2, noise=0.3)
    v[np.random.default_rng(0).random(v.shape) < 0.3] = 0
    write_anndata(folder / "V.zarr", scipy.sparse.csr_array(v), ROWS, COLUMNS)
    nmf(folder / "V.zarr", 2, missing="unstored", max_iter=5, store=folder / "run.zarr")
    return folder


def predicted(folder: Path, text: str) -> list[dict[str, str]]:
    (folder / "pairs.csv").write_text(text)
    output = locate_file(folder / "out.csv")
    predict_module.predict_to(locate(folder / "run.zarr"), folder / "pairs.csv", output, True)
    with open(folder / "out.csv", newline="") as file:
        return list(csv.DictReader(file))


def values_of(folder: Path) -> np.ndarray:
    return np.matmul(*(Run.load_result(folder / "run.zarr").read(name) for name in "WH"))


@pytest.mark.parametrize(
    "text",
    [
        '"user, 3",film 4\n"user, 17",3\n',
        'column,other,row\nfilm 4,1,"user, 3"\n3,2,"user, 17"\n',
        'row,column_number\n"user, 3",4\n"user, 17",11\n',
        "col_number,row_number\n4,3\n11,17\n",
        '"user, 3"\tfilm 4\n"user, 17"\t3\n',
    ],
)
@pytest.mark.usefixtures("small_steps")
def test_pairs_are_names_and_so_is_the_output(text: str, folder: Path) -> None:
    lines = predicted(folder, text)
    assert [(line["row"], line["column"]) for line in lines] == [("user, 3", "film 4"), ("user, 17", "3")]
    expected = values_of(folder)[[3, 17], [4, 11]]
    np.testing.assert_allclose([float(line["value"]) for line in lines], expected, rtol=1e-6)


def test_many_pairs_are_looked_up_in_batches(folder: Path, small_steps: None) -> None:
    pairs = pd.DataFrame({"row": ROWS[:18] * 2, "column": (COLUMNS * 3)[:36]})
    lines = predicted(folder, pairs.to_csv(index=False))
    assert [line["row"] for line in lines] == pairs.row.tolist()
    expected = values_of(folder)[list(range(18)) * 2, (list(range(12)) * 3)[:36]]
    np.testing.assert_allclose([float(line["value"]) for line in lines], expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("row,column\n", None),
        (
            '"user, 3",film 4\nx,film 4\n',
            "line 2: 'x' is no name of a row of the run; a number stands below row_number",
        ),
        (
            "row,column\n7,3\n",
            "line 2: '7' is the name of 2 rows, such as 18 and 19; a number stands",
        ),
        ("row_number,column\n20,3\n", "line 2: row 20 is outside of W H, 20 x 12, counted from 0"),
        (
            "row_number,column\nx,3\n",
            "line 2: 'x,3' is no number of a row and name of a column; write row,column",
        ),
        (
            'item,user\n"user, 3",3\n',
            "line 1: 'item' is no name of a row of the run; if this line is a header, it must have the "
            "headings row,column, each once; a number stands below row_number",
        ),
        ("a,b,c\n", "line 1: 'a,b,c' does not name row and column once each"),
        ("row,row_number,column\n", "line 1: 'row,row_number,column' does not name"),
    ],
)
def test_what_names_no_cell_is_refused(text: str, words: str | None, folder: Path) -> None:
    if words is None:
        assert predicted(folder, text) == []
        return
    with pytest.raises(DataError) as told:
        predicted(folder, text)
    assert words in str(told.value)


SPACED = Labels(in_memory([" a", "a", " ", "b "], "rows"), in_memory(["x", " x"], "columns"))


def test_blanks_around_names_belong_to_them(tmp_path: Path) -> None:
    (tmp_path / "pairs.csv").write_text('row,column\n a,x\na, x\n" "," x"\nb , x\n')
    rows, columns = next(read_cells(tmp_path / "pairs.csv", (4, 2), SPACED))
    assert (rows.tolist(), columns.tolist()) == ([0, 1, 2, 3], [0, 1, 1, 1])
    (tmp_path / "pairs.csv").write_text('"row", "column"\n" a", "x"\n"a",  x\n')
    rows, columns = next(read_cells(tmp_path / "pairs.csv", (4, 2), SPACED))
    assert (rows.tolist(), columns.tolist()) == ([0, 1], [0, 0])
    (tmp_path / "pairs.csv").write_text("row,column\n  a,x\n")
    with pytest.raises(DataError, match="'  a' is no name of a row of the run, and 'a' is one; leave the bl"):
        next(read_cells(tmp_path / "pairs.csv", (4, 2), SPACED))


@pytest.mark.parametrize(
    "text", ['"a, ""b""", c\n', '"a, ""b"""\t c\n', "\n" + '"a, ""b"""'.replace(" ", "\t ") + ", c\n"]
)
def test_a_blank_before_a_quote_inside_of_quotes_leaves_blanks_to_names(text: str, tmp_path: Path) -> None:
    (tmp_path / "pairs.csv").write_text(text)
    rows = in_memory(['a, "b"', 'a,\t "b"'], "rows")
    labels = Labels(rows, in_memory(["c", " c"], "columns"))
    (_, columns), *_ = read_cells(tmp_path / "pairs.csv", (2, 2), labels)
    assert columns.tolist() == [1]


def test_a_header_of_other_names_is_told_where_columns_have_numbers(tmp_path: Path) -> None:
    (tmp_path / "pairs.csv").write_text("item,user\na,0\n")
    labels = Labels(in_memory(["a", "b"], "rows"), None)
    with pytest.raises(DataError, match=r"line 1: 'item,user' .* if this line is a header, .* row,column"):
        next(read_cells(tmp_path / "pairs.csv", (2, 2), labels))


def best_of(folder: Path, v: str) -> None:
    """Write the best column of each row of a V to a file."""
    places = locate(folder / "run.zarr"), locate(folder / v)
    options, output = recommend_module.ListOptions(1), locate_file(folder / "one.csv")
    with config.set(scheduler="synchronous"):
        recommend_module.recommend_to(*places, options, output, True, lambda matrix: config.set())


def test_a_v_that_was_written_since_the_fit_is_told(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    best_of(folder, "V.zarr")
    assert not caplog.records
    v = low_rank(20, 12, 2, noise=0.4)
    write_anndata(folder / "changed.zarr", scipy.sparse.csr_array(v), ROWS, COLUMNS)
    best_of(folder, "changed.zarr")
    (record,) = caplog.records
    told = record.getMessage()
    assert "changed.zarr was written since the fit of" in told
    assert f"dask-nmf verify {folder / 'run.zarr'} {folder / 'changed.zarr'} tells" in told
    (folder / "one.csv").unlink()
    write_anndata(folder / "turned.zarr", scipy.sparse.csr_array(v), ROWS, COLUMNS[::-1])
    with pytest.raises(RunMismatch, match=r"column 0 is '3' in .*turned.zarr.*; give the V that was fitted"):
        best_of(folder, "turned.zarr")
    assert not (folder / "one.csv").exists()


def test_lists_have_names_of_rows_and_columns(folder: Path) -> None:
    (folder / "rows.csv").write_text('row\n"user, 5"\n"user, 2"\n')
    options = recommend_module.ListOptions(3, None, folder / "rows.csv")
    places = locate(folder / "run.zarr"), locate(folder / "V.zarr")
    with config.set(scheduler="synchronous"):
        recommend_module.recommend_to(
            *places, options, locate_file(folder / "best.csv"), True, lambda matrix: config.set()
        )
        best = recommend(
            folder / "V.zarr", *(folder / f"run.zarr/{name}" for name in "WH"), 3, "unstored", rows=[2, 5]
        )
    table = pd.read_csv(folder / "best.csv")
    pairs = zip([2, 5], best.columns, strict=True)
    expected = [(ROWS[row], COLUMNS[j]) for row, found in pairs for j in found if j >= 0]
    assert list(zip(table.row, table.column, strict=True)) == expected
    np.testing.assert_allclose(table.value, best.values[best.columns >= 0], rtol=1e-6)


def test_python_takes_names_and_the_names_of_all(folder: Path) -> None:
    result = Run.load_result(folder / "run.zarr")
    W, H = result.read("W"), result.read("H")
    for some in (
        ["user, 3", "user, 17"],
        np.array(["user, 3", "user, 17"]),
        pd.Index(["user, 3", "user, 17"]),
    ):
        for all_names in (ROWS, result.row_names, pd.Index(ROWS)):
            found = predict(W, H, some, [4, 11], row_names=all_names)
            np.testing.assert_allclose(found, (W @ H)[[3, 17], [4, 11]], rtol=1e-6)
    found = predict(W, H, [3], ["film 4"], column_names=result.column_names)
    np.testing.assert_allclose(found, (W @ H)[3, 4], rtol=1e-6)
    with config.set(scheduler="synchronous"):
        one = recommend(folder / "V.zarr", W, H, 3, "unstored", rows=["user, 5"], row_names=ROWS)
        other = recommend(folder / "V.zarr", W, H, 3, "unstored", rows=[5])
    np.testing.assert_array_equal(one.columns, other.columns)


@pytest.mark.parametrize(
    ("rows", "all_names", "words"),
    [
        (["x"], ROWS, "'x' is no name of a row"),
        (["7"], ROWS, "'7' is the name of 2 rows, such as 18 and 19; give a number"),
        (["user, 3"], None, "rows are names; give all names too, as row_names, or give numbers"),
        (["user, 3"], ROWS[:-1], "row_names are 19 and W H has 20 rows; give one for each"),
    ],
)
def test_python_refuses_other_names(
    rows: list[str], all_names: list[str] | None, words: str, folder: Path
) -> None:
    result = Run.load_result(folder / "run.zarr")
    with pytest.raises(ValueError, match=words):
        predict(result.read("W"), result.read("H"), rows, [1], row_names=all_names)


def test_the_index_finds_each_name_once() -> None:
    index = NameIndex(in_memory(["b", "a", "b", "", "ü"], "names"), "row")
    assert index.find(["a", "b", "", "ü", "c", "a"]).tolist() == [1, REPEATED, 3, 4, ABSENT, 1]
    assert index.find([]).tolist() == []
