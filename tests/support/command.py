"""The command and scripts in real processes, forked from one that has spent seconds on importing all."""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

from support import holds

# The command without xarray, as most people have it: Dask would import it, and pandas with it, which takes a
# fifth of the processor time of a start.
START = "import sys; sys.modules['xarray'] = None; from dask_nmf.cli.main import main; main()"
COMMAND = [sys.executable, "-c", START]
# The same, held where a test says; run by its path, as the folder of tests is not on the path of a process.
HELD = [sys.executable, "-c", f"import runpy; runpy.run_path({holds.__file__!r})['obey'](); {START}"]
SERVER = """
import gc, json, os, runpy, sys, warnings
import dask.config
import dask_nmf.cli.main, dask_nmf.cli.run, dask_nmf.estimator.nmf, dask_nmf.display.lines

obey = runpy.run_path(sys.argv[1])["obey"]

def begin(words, folder, environment, output, errors, session):
    ready, set_up = os.pipe()
    with warnings.catch_warnings(action="ignore"):
        child = os.fork()
    if child:
        os.close(set_up)
        os.read(ready, 1)  # returns once the child has closed its end
        os.close(ready)
        return child
    if session:
        os.setsid()
    for number, file in ((0, os.devnull), (1, output), (2, errors)):
        opened = os.open(file, os.O_RDWR | os.O_NOCTTY)
        os.dup2(opened, number)
        os.close(opened)
    os.chdir(folder)
    os.environ.clear()
    os.environ |= environment
    dask.config.refresh(paths=[*dask.config.paths, os.environ.get("DASK_CONFIG", "")])
    sys.argv = words
    obey()
    os.close(ready)
    os.close(set_up)
    if words[0] == "dask-nmf":
        dask_nmf.cli.main.main()
    runpy.run_path(words[0], run_name="__main__")
    sys.exit()

def end(child, options):
    found, status = os.waitpid(child, options)
    return os.waitstatus_to_exitcode(status) if found else None

gc.freeze()
for line in sys.stdin:
    number, asked, parts = json.loads(line)
    print(json.dumps([number, begin(*parts) if asked == "begin" else end(*parts)]), flush=True)
"""


class Forks:
    """A server process that is forked for each call of the command or run of a script."""

    def __init__(self) -> None:
        self.numbers = count()
        self.server = subprocess.Popen(
            [sys.executable, "-c", SERVER, holds.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, asked: str, *parts: object) -> int | None:
        """Return the answer of the server; those to questions that were given up are skipped."""
        assert self.server.stdin is not None
        assert self.server.stdout is not None
        number = next(self.numbers)
        print(json.dumps((number, asked, parts)), file=self.server.stdin, flush=True)
        while True:
            answered, answer = json.loads(self.server.stdout.readline())
            if answered == number:
                return None if answer is None else int(answer)

    def begin(
        self,
        words: Any,
        folder: Path,
        places: tuple[Path | str, Path | str],
        environment: Mapping[str, str],
        session: bool = False,
    ) -> Forked:
        """Start the command or a script; it writes to files that exist, maybe in a session of its own."""
        told = list(map(str, words))
        output, errors = map(str, places)
        child = self.ask("begin", told, str(folder), dict(environment), output, errors, session)
        assert child is not None
        return Forked(self, child, told)

    def call(
        self, words: Any, folder: Path, terminal: str = "", **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Call the command in a folder; see `run`."""
        return self.run(["dask-nmf", *words], folder, terminal, **environment)

    def run(
        self, words: Any, folder: Path, terminal: str = "", **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a script or the command; its output goes to the terminal at a path, if one is given."""
        with tempfile.NamedTemporaryFile("r") as output, tempfile.NamedTemporaryFile("r") as errors:
            places = (terminal or output.name, terminal or errors.name)
            process = self.begin(words, folder, places, os.environ | environment)
            return subprocess.CompletedProcess(process.args, process.wait(), output.read(), errors.read())

    def close(self) -> None:
        self.server.communicate()


@dataclass
class Forked:
    """A child of the server, with what tests use of a `Popen`; as there, it stays until it is waited for."""

    forks: Forks
    pid: int
    args: list[str]
    returncode: int | None = None

    def poll(self) -> int | None:
        """Return its exit code, or None while it runs."""
        return self.ended(os.WNOHANG)

    def wait(self, timeout: float | None = None) -> int:
        """Return its exit code once it has ended."""
        deadline = time.monotonic() + (timeout or 0)
        while (code := self.ended(0 if timeout is None else os.WNOHANG)) is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
            time.sleep(0.02)
        return code

    def ended(self, options: int) -> int | None:
        if self.returncode is None:
            self.returncode = self.forks.ask("end", self.pid, options)
        return self.returncode


@cache
def the_forks() -> Forks:
    """Return the server of this process, which ends with it."""
    forks = Forks()
    atexit.register(forks.close)
    return forks


def assert_refused(
    answer: subprocess.CompletedProcess[str], code: int, *words: str, folder: Path, left: set[str]
) -> None:
    """Check a refusal: its exit code, a last line with the words, no traceback, and nothing written."""
    error = answer.stderr.strip().splitlines()
    assert answer.returncode == code, answer.stderr
    assert error[-1].startswith("dask-nmf: ")
    assert "Traceback" not in answer.stderr
    assert all(word in error[-1] for word in words), error[-1]
    assert answer.stdout == ""
    assert {path.name for path in folder.iterdir()} == left


Process = subprocess.Popen[str] | Forked
Run = Callable[..., subprocess.CompletedProcess[str]]
