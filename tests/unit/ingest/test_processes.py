"""Functions of texts in several processes: values in order, errors as they were, and no process left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psutil
import pytest
from support.servers import until

from dask_nmf.ingest.formats.documents.processes import Processes


@pytest.fixture(scope="module")
def processes() -> Iterator[Processes]:
    with closing(Processes(2)) as some:
        yield some
    assert all(process.returncode == -signal.SIGKILL for process in some._all)


def test_values_come_in_order_and_from_other_processes(processes: Processes) -> None:
    assert list(processes.map(str.upper, map(str, range(300)), len)) == [str(i) for i in range(300)]
    assert os.getpid() not in set(processes.map(eval, ["__import__('os').getpid()"] * 5, len))


def test_an_error_is_raised_here_and_the_processes_go_on(processes: Processes) -> None:
    with pytest.raises(ValueError, match="'x'"):
        list(processes.map(int, ["1", "x", "2"], len))
    assert list(processes.map(int, ["1", "2"], len)) == [1, 2]


def test_what_a_function_prints_is_no_value(processes: Processes, capfd: pytest.CaptureFixture[str]) -> None:
    assert list(processes.map(print, ["tea"], len)) == [None]


def test_a_process_that_ended_is_named() -> None:
    with closing(Processes(1)) as processes, pytest.raises(RuntimeError, match="exit code 7; if memory"):
        list(processes.map(os._exit, [7], lambda code: 1))


def test_modules_are_found_where_this_process_finds_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "a:b"
    folder.mkdir()
    (folder / "module_of_a_user.py").write_text("answer = 42")
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [*sys.path, tmp_path, ""])
    with closing(Processes(1)) as processes:
        assert list(processes.map(eval, ["__import__('module_of_a_user').answer"], len)) == [42]


def test_none_computes_here() -> None:
    with closing(Processes(0)) as processes:
        assert list(processes.map(eval, ["__import__('os').getpid()"], len)) == [os.getpid()]


def test_they_end_with_this_process_however_it_ends() -> None:
    killed = """
import os, signal
from dask_nmf.ingest.formats.documents.processes import Processes
processes = Processes(2)
print(*processes.map(eval, ["__import__('os').getpid()"] * 20, len), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", killed], stdout=subprocess.PIPE, text=True, check=False)
    assert done.returncode == -signal.SIGKILL
    until(lambda: not any(psutil.pid_exists(int(number)) for number in done.stdout.split()))
