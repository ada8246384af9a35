"""Cells in CSV files: every form that is read, and every line that is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import zarr
from support.factors import (
    LEFT,
)

from dask_nmf import predict
from dask_nmf.errors import DataError
from dask_nmf.inference import predict as predict_module
from dask_nmf.storage.locations import locate, locate_file

LINES = {
    "names": ("row,column\n3,4\n", [3], [4]),
    "names in another order": ("column,row\n4,3\n", [3], [4]),
    "quoted names in capitals": ('"Column","ROW"\n"4","3"\n', [3], [4]),
    "names among others": ('name,column,value,row\n"a, b\n c",4,1.5,3\n,5,nan,2\n', [3, 2], [4, 5]),
    "a name of an index that is empty": (",row,col\n0,3,4\n", [3], [4]),
    "tabs": ("\n\ncolumn\trow\n4\t3\n", [3], [4]),
    "tabs, no names": ("3\t4\n", [3], [4]),
    "tabs, and a name with a comma": ('"a, b"\tcolumn\trow\nx\t4\t3\n', [3], [4]),
    "names in another order, of Windows": ('\ufeff"column" , "row"\r\n4,3\r\n', [3], [4]),
    "an output of predict": ("row,column,value\n3,4,1.5\n", [3], [4]),
    "none": ("3,4", [3], [4]),
    "of Windows": ("\ufeffrow,column\r\n3,4\r\n\r\n", [3], [4]),
    "spaces": (" 3 ,\t4 \n", [3], [4]),
    "many": ("".join(f"{i},{i + 1}\n" for i in range(23)), list(range(23)), list(range(1, 24))),
    "nothing": ("row,column\n", [], []),
    "empty": ("", [], []),
}


@pytest.mark.parametrize("case", LINES)
@pytest.mark.usefixtures("small_steps")
def test_pairs_of_a_file(folder: Path, case: str) -> None:
    text, rows, columns = LINES[case]
    (folder / "pairs.csv").write_text(text, encoding="utf-8", newline="")
    run, pairs, output = (str(folder / name) for name in ("run.zarr", "pairs.csv", "out.csv"))
    assert predict_module.predict_to(locate(run), Path(pairs), locate_file(output), False) == len(rows)
    expected = predict(*(zarr.open_group(run, mode="r")[name] for name in "WH"), rows, columns)
    lines = [f"{i},{j},{value!s}" for i, j, value in zip(rows, columns, expected, strict=True)]
    assert (folder / "out.csv").read_text().splitlines() == ["row,column,value", *lines]


BAD_LINES = {
    "text": (b"1,2\n" * 6 + b"x,3\n", "line 7: 'x,3' is no pair of integers; write row,column"),
    "no names": (b"x,3\n", "line 1: 'x,3'"),
    "other names": (b"user,item\n1,2\n", "line 1: 'user,item' does not name row and column once each"),
    "one name": (b"\n\nrow,item\n1,2\n", "line 3: 'row,item' does not name row and column"),
    "a name twice": (b"row,column,Row\n1,2,3\n", "line 1: 'row,column,Row' does not name"),
    "fewer fields than names": (b"a,column,row\n4,3\n", "line 2: '4,3' has no pair of integers where the"),
    "more fields than names": (b"a,column,row\nb,c,4,3\n", "line 2: 'b,c,4,3' has no pair of integers"),
    "no number under a name": (b"a,column,row\n3,4,x\n", "line 2: '3,4,x' has no pair"),
    "outside by the names": (b"column,row\n45,3\n", "line 2: row 3, column 45 is outside of W H, 300 x 40"),
    "three, no names": (b"1,2,3\n", "line 1: '1,2,3' is no pair of integers; write row,column, counted from"),
    "names later": (b"1,2\nrow,column\n", "line 2: 'row,column'"),
    "one number": (b"1\n", "line 1: '1'"),
    "three": (b"row,column\n1,2,3\n", "line 2: '1,2,3'"),
    "floats": (b"1.0,2\n", "line 1: '1.0,2'"),
    "semicolons": (b"1;2\n", "line 1: '1;2'"),
    "underscores": (b"1_0,2\n", "line 1: '1_0,2'"),
    "a huge number": (b"1," + b"9" * 5000 + b"\n", "line 1: '1,999"),
    "a negative one": (b"0,0\n-1,2\n", "line 2: row -1, column 2 is outside of W H, 300 x 40"),
    "no text": (bytes(range(256)), "line 1"),
}


@pytest.mark.parametrize("case", BAD_LINES)
@pytest.mark.usefixtures("small_steps")
def test_a_bad_line_is_named_and_nothing_is_written(folder: Path, case: str) -> None:
    text, words = BAD_LINES[case]
    (folder / "pairs.csv").write_bytes(text)
    with pytest.raises(DataError) as told:
        predict_module.predict_to(
            locate(folder / "run.zarr"), folder / "pairs.csv", locate_file(folder / "out.csv"), False
        )
    assert f"pairs.csv, {words}" in str(told.value)
    assert len(str(told.value)) < 200 + len(str(folder))
    assert {path.name for path in folder.iterdir()} == LEFT


OUTPUTS = {
    "no folder": ("no/out.csv", False, NotADirectoryError, "make it first"),
    "a file of the user": ("pairs.csv", True, FileExistsError, "not an output of predict"),
    "a folder": ("v.zarr", True, FileExistsError, "not an output of predict"),
}


@pytest.mark.parametrize("case", OUTPUTS)
def test_an_output_takes_the_place_of_none_but_its_like(folder: Path, case: str) -> None:
    output, overwrite, kind, words = OUTPUTS[case]
    run, pairs, place = (str(folder / name) for name in ("run.zarr", "pairs.csv", output))
    with pytest.raises(kind, match=words):
        predict_module.predict_to(locate(run), Path(pairs), locate_file(place), overwrite)
    assert {path.name for path in folder.iterdir()} == LEFT


@pytest.mark.parametrize(("pairs", "kind"), [("none.csv", FileNotFoundError), ("v.zarr", DataError)])
def test_pairs_must_be_a_file(folder: Path, pairs: str, kind: type[Exception]) -> None:
    with pytest.raises(kind, match="give a CSV file"):
        predict_module.predict_to(
            locate(folder / "run.zarr"), folder / pairs, locate_file(folder / "out.csv"), False
        )
    assert {path.name for path in folder.iterdir()} == LEFT
