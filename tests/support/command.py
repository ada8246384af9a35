"""The command and scripts in real processes, forked from one that has spent seconds on importing all."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

# The command without xarray, as most people have it: Dask would import it, and pandas with it, which takes a
# fifth of the processor time of a start.
START = "import sys; sys.modules['xarray'] = None; from dask_nmf.cli.main import main; main()"
COMMAND = [sys.executable, "-c", START]
SERVER = """
import gc, json, os, runpy, sys
import dask.config
import dask_nmf.cli.main, dask_nmf.cli.run, dask_nmf.estimator.nmf, dask_nmf.display.lines

gc.freeze()
for line in sys.stdin:
    words, folder, environment, output, errors = json.loads(line)
    child = os.fork()
    if child == 0:
        for number, file in ((0, os.devnull), (1, output), (2, errors)):
            os.dup2(os.open(file, os.O_RDWR), number)
        os.chdir(folder)
        os.environ |= environment
        dask.config.refresh(paths=[*dask.config.paths, os.environ.get("DASK_CONFIG", "")])
        sys.argv = words
        if words[0] == "dask-nmf":
            dask_nmf.cli.main.main()
        runpy.run_path(words[0], run_name="__main__")
        sys.exit()
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Forks:
    """A server process that is forked for each call of the command or run of a script, one at a time."""

    def __init__(self) -> None:
        self.server = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", SERVER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def call(
        self, words: Any, folder: Path, terminal: str = "", **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Call the command in a folder; see `run`."""
        return self.run(["dask-nmf", *words], folder, terminal, **environment)

    def run(
        self, words: Any, folder: Path, terminal: str = "", **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a script or the command; its output goes to the terminal at a path, if one is given."""
        assert self.server.stdin is not None
        assert self.server.stdout is not None
        told = list(map(str, words))
        with tempfile.NamedTemporaryFile("r") as output, tempfile.NamedTemporaryFile("r") as errors:
            places = (terminal or output.name, terminal or errors.name)
            request = (told, str(folder), environment, *places)
            print(json.dumps(request), file=self.server.stdin, flush=True)
            code = int(self.server.stdout.readline())
            return subprocess.CompletedProcess(told, code, output.read(), errors.read())

    def close(self) -> None:
        self.server.communicate()


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


Run = Callable[..., subprocess.CompletedProcess[str]]
