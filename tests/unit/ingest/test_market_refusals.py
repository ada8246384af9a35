"""MatrixMarket files that are bad, and sums of entries of one cell, are refused with the line and a cure."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.converted import MARKET, TRIPLETS, assert_refused, matrix_of

from dask_nmf.ingest import convert

MATRICES = [
    ("3 3 2\n1 1 1\n4 1 1\n", "v.mtx, line 5: Row index out of bounds; a line has a row of 1 to 3"),
    ("3 3 2\n1 1 1\n1 0 1\n", "v.mtx, line 5: Column index out of bounds"),
    ("3 3 2\n1 1 1\n3 1 -1\n", "v.mtx, line 5, row 3, column 1: -1.0 is negative"),
    ("3 3 3\n1 1 1\n3 1 1\n", "says that it has 3 entries, and has 2: its end is missing"),
    ("3 3 1\n1 1 1\n3 1 1\n", "has more than 1 entry;"),
    ("3 3 2\n1 1 1\n3 1 x\n", "v.mtx, line 5: "),
    ("3 3 2\n1 1 1\n1 1 2\n", "has more than one entry at row 1, column 1"),
    ("999999999 3 1\n1 1 1\n", "has shape (999999999, 3) and 1 entries; leave out rows"),
    ("99999999999 3 1\n1 1 1\n", "is 99999999999 x 3; at most 2147483647 rows"),
    ("3 3 2\n\n1 1 1\n\n3 1 x\n", "v.mtx, line 7: "),
    ("3 3 2\n1 1 1\n% a comment\n\n4 1 1\n", "v.mtx, line 7: Row index out of bounds"),
    ("3 3 2\n1 1 1\n\n3 1 -1\n", "v.mtx, line 6, row 3, column 1: -1.0 is negative"),
    ("3 3\n1 1 1\n", "v.mtx, line 3: the sizes are no three integers"),
    ("3 -3 1\n1 1 1\n", "v.mtx, line 3: the sizes are no three integers >= 0"),
    (
        "3 3 2\n1 1 1\n3 1 1 7\n",
        "v.mtx, line 5: '3 1 1 7' is no entry; the banner says real, and a line then",
    ),
    ("3 3 2\r\n1 1 1\r\n\r\n3 1 2 % why\r\n", "v.mtx, line 6: '3 1 2 % why' is no entry"),
    ("3 3 2\n1 1 1\n3 1 1D5\n", "v.mtx, line 5: '3 1 1D5' is no entry"),
    ("3 3 2\n1 1\n3 1 1\n", "v.mtx, line 4: '1 1' is no entry"),
    ("3 3 2\n1 1 1\n2.5 1 1\n", "v.mtx, line 5: '2.5 1 1' is no entry"),
]
FIELDS = [  # of the banner, a second entry, and the message about it
    (
        "integer",
        "3 1 2.5",
        "line 4: '3 1 2.5' is no entry; the banner says integer, and a line then has a row",
    ),
    (
        "integer",
        "3 1 1e3",
        "a row of 1 to 3, a column of 1 to 3 and an integer; correct the line or the ba",
    ),
    ("integer", "3 1 16777217", "line 4, row 3, column 1: 16777217 is not exact as float32; give dtype"),
    ("unsigned-integer", "3 1 2.5", "line 4: '3 1 2.5' is no entry; the banner says unsigned-integer"),
    (
        "pattern",
        "3 1 5",
        "line 4: '3 1 5' is no entry; the banner says pattern, and a line then has a row of",
    ),
    ("pattern", "3 1.5", "line 4: '3 1.5' is no entry"),
]


@pytest.mark.parametrize(("text", "words"), MATRICES)
def test_matrix_market(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "v.mtx").write_text(MARKET + text)
    assert_refused(tmp_path, "v.mtx", words)


@pytest.mark.parametrize(("field", "line", "words"), FIELDS)
def test_entries_of_another_kind_than_the_banner_says(
    tmp_path: Path, field: str, line: str, words: str
) -> None:
    first = "1 1" if field == "pattern" else "1 1 1"
    (tmp_path / "v.mtx").write_text(
        f"{MARKET.splitlines()[0].replace('real', field)}\n3 3 2\n{first}\n{line}\n"
    )
    assert_refused(tmp_path, "v.mtx", words)


@pytest.mark.parametrize("rule", ["sum", "mean"])
def test_sums_that_float32_would_change(tmp_path: Path, rule: str) -> None:
    low, high = (16777216, 1) if rule == "sum" else (16777216, 16777218)
    (tmp_path / "v.mtx").write_text(f"{MARKET}3 3 3\n1 1 1\n3 2 {low}\n3 2 {high}\n")
    (tmp_path / "v.csv").write_text(f"user,item,rating\nu,i,1\nv,k,{low}\nv,k,{high}\n")
    words = f"{rule} of the entries: 16777217.0 is not exact as float32"
    assert_refused(tmp_path, "v.mtx", f"v.mtx, row 3, column 2, {words}", duplicates=rule)
    named = f"v.csv, user 'v' and item 'k', {words}"
    assert_refused(tmp_path, "v.csv", named, **TRIPLETS, duplicates=rule)
    convert(tmp_path / "v.mtx", tmp_path / "v.zarr", dtype="float64", duplicates=rule)
    assert matrix_of(tmp_path / "v.zarr")[2, 1] == 16777217


def test_sums_that_are_too_large(tmp_path: Path) -> None:
    (tmp_path / "v.mtx").write_text(f"{MARKET}1 1 2\n1 1 3e38\n1 1 3e38\n")
    assert_refused(tmp_path, "v.mtx", "column 1, sum of the entries: 6", duplicates="sum", dtype="float32")


def test_other_matrix_market(tmp_path: Path) -> None:
    (tmp_path / "v.mtx").write_text("%%MatrixMarket matrix array real general\n1 1\n1\n")
    assert_refused(tmp_path, "v.mtx", "give a file in coordinate format")
    (tmp_path / "v.mtx").write_text("1 1\n")
    assert_refused(tmp_path, "v.mtx", "has no banner")


def test_a_symmetric_matrix_is_square(tmp_path: Path) -> None:
    (tmp_path / "v.mtx").write_text(f"{MARKET.replace('general', 'symmetric')}2 3 1\n1 1 1\n")
    assert_refused(tmp_path, "v.mtx", "v.mtx is symmetric and 2 x 3")


def test_the_advice_about_integers_of_matrix_market(tmp_path: Path) -> None:
    (tmp_path / "v.mtx").write_text(f"{MARKET}1 1 1\n1 1 {2**53 + 1}\n")
    assert " real " in MARKET
    convert(tmp_path / "v.mtx", tmp_path / "v.zarr", dtype="float64")
    np.testing.assert_array_equal(matrix_of(tmp_path / "v.zarr"), [[2**53]])
