"""Standard output and standard error that nobody reads, or that are not there."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from support.command import COMMAND

from dask_nmf import nmf
from dask_nmf.cli import run
from dask_nmf.cli.app import app
from dask_nmf.cli.process.exit_codes import ExitCode
from dask_nmf.inference.transform_output import summary
from dask_nmf.storage.locations import locate


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with V and a run."""
    folder = tmp_path_factory.mktemp("pipes")
    v = np.random.default_rng(0).random((40, 6))
    np.save(folder / "v.npy", v)
    nmf(v, 2, store=folder / "run.zarr", max_iter=2)
    return folder


@pytest.fixture
def unread() -> Iterator[int]:
    """The end for writing of a pipe whose other end is closed."""
    reader, writer = os.pipe()
    os.close(reader)
    yield writer
    os.close(writer)


def called(folder: Path, *words: str, stdout: int, stderr: int = subprocess.PIPE) -> tuple[int, bytes]:
    """Return the exit code of the command, and what it says on standard error."""
    done = subprocess.run([*COMMAND, *words], cwd=folder, stdout=stdout, stderr=stderr, check=False)
    return done.returncode, done.stderr or b""


def test_the_shell_sees_the_code_of_a_closed_pipe(folder: Path) -> None:
    python, option, script = COMMAND
    slow = f"import time; time.sleep(.2); {script}"  # `true` has ended by then
    words = [python, option, slow, "info", "run.zarr"]
    told = subprocess.run(
        ["bash", "-c", '"$@" | true; echo "${PIPESTATUS[0]}"', "bash", *words],
        cwd=folder, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert (told.stdout, told.stderr) == ("141\n", "")


@pytest.mark.parametrize("words", [["fit", "--help"], ["--version"]])
def test_help_that_nobody_reads_ends_quietly(folder: Path, unread: int, words: list[str]) -> None:
    assert called(folder, *words, stdout=unread) == (ExitCode.PIPE_CLOSED, b"")


def test_a_fit_that_nobody_listens_to_is_done(folder: Path, unread: int) -> None:
    fit = ["fit", "v.npy", "--rank", "2", "--output", "new.zarr"]
    assert called(folder, *fit, stdout=unread, stderr=unread)[0] == ExitCode.PIPE_CLOSED
    assert summary(locate(folder / "new.zarr"))["state"] == "finished"


def test_an_error_that_nobody_reads_keeps_its_code(folder: Path, unread: int) -> None:
    assert called(folder, "fit", "--nothing", stdout=unread, stderr=unread)[0] == ExitCode.USAGE


def test_standard_streams_that_are_closed_are_not_needed(folder: Path) -> None:
    told = subprocess.run(
        ["bash", "-c", '"$@" <&- >&- 2>&-; echo $?', "bash", *COMMAND, "info", "run.zarr"],
        cwd=folder, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert (told.stdout, told.stderr) == ("0\n", "")


def test_a_connection_that_breaks_is_not_taken_for_a_closed_pipe(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def breaks(**options: object) -> None:
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr(app.commands["info"], "callback", breaks)
    monkeypatch.setattr("sys.argv", ["dask-nmf", "info", "run.zarr"])
    assert run.run() == ExitCode.TRY_AGAIN
    assert "run the same command again" in capfd.readouterr().err
