"""Text files that list the rows which `forget` takes out."""

from pathlib import Path

import pytest
import zarr
from support.changed_runs import V, fitted
from support.named import write_named

from dask_nmf.cli.app import app
from dask_nmf.errors import DataError
from dask_nmf.storage.locations import located
from dask_nmf.updates.forget import rows_in_file


def test_a_file_of_rows_is_utf_8_and_ends_of_lines_do_not_matter(tmp_path: Path) -> None:
    columns = [f"gene {i}" for i in range(20)]
    names = ["a", "a ", "b", "c\u2028d", *(f"p{i}" for i in range(196))]
    source = write_named(tmp_path / "v.zarr", V, names, columns)
    place = located(fitted(tmp_path / "run", str(source)))
    ids = tmp_path / "ids.txt"
    ids.write_bytes(b"\xef\xbb\xbfp1\r\np2 \t\r\n\n")
    assert rows_in_file(place, str(ids)) == ["p1", "p2"]
    ids.write_bytes("a \nb\nc\u2028d\n".encode())
    assert rows_in_file(place, str(ids)) == ["a ", "b", "c\u2028d"]
    ids.write_bytes("p1\npé1\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"line 2 of .*ids.txt is not UTF-8 text; save"):
        rows_in_file(place, str(ids))


def test_the_command_reads_a_file_of_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = fitted(tmp_path / "run", V)
    zarr.create_array(tmp_path / "v.zarr", data=V)
    ids = tmp_path / "ids.txt"
    ids.write_text("3\n\n+5\n")
    words = ["forget", str(run), str(tmp_path / "v.zarr"), "--rows", str(ids)]
    with pytest.raises(DataError, match=r"line 3 of .*ids.txt is '\+5'; give the number"):
        app(words, standalone_mode=False)
    ids.write_text("3\n\n5\n")
    assert app(words, standalone_mode=False) == 0
    assert "2 rows taken out, 198 left, polished in one pass; relative error" in capsys.readouterr().out
    assert app(words, standalone_mode=False) == 0
    assert "these 2 rows were taken out already; 198 are left" in capsys.readouterr().out
