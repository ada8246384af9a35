"""The command `convert`: its line, its exit codes."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.command import Run, assert_refused
from support.converted import names_of

from dask_nmf.cli import run
from dask_nmf.cli.app import app
from dask_nmf.cli.process.exit_codes import ExitCode


def test_ratings_are_converted(dask_nmf: Run, tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text("user,item,rating\nann,tea,5\nbob,tea,2\nann,rice,3.5\n")
    columns = ("--row", "user", "--column", "item", "--value", "rating")
    answer = dask_nmf("convert", "r.csv", "v.zarr", *columns)
    line = "2 x 2, sparse with 3 entries, float32, chunks of 3, codec lz4, with checksums"
    assert (answer.returncode, answer.stdout) == (0, f"v.zarr: {line}\n")
    assert names_of(tmp_path / "v.zarr", "obs") == ["ann", "bob"]


def test_bad_input_has_one_line_and_a_code(dask_nmf: Run, tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text("a,b\n1,-2\n")
    left = {"r.csv"}
    assert_refused(dask_nmf("convert", "r.csv", "v.zarr"), 3, "line 2", folder=tmp_path, left=left)
    assert_refused(dask_nmf("convert", "s.csv", "v.zarr"), 2, "nothing at", folder=tmp_path, left=left)
    assert_refused(dask_nmf("convert", "r.csv", "r.csv"), 2, "inside of", folder=tmp_path, left=left)


def test_an_interrupt_promises_no_passes(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def interrupted(**options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(app.commands["convert"], "callback", interrupted)
    monkeypatch.setattr("sys.argv", ["dask-nmf", "convert", "v.npy", "v.zarr"])
    assert run.run() == ExitCode.INTERRUPTED
    line = "dask-nmf: interrupted; run the same command again, what was committed is kept"
    assert capfd.readouterr().err.strip().endswith(line)
