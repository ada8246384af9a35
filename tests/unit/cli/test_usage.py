"""Help and words of the command."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
from support.command import COMMAND, Run, assert_refused

from dask_nmf.cli.app import app
from dask_nmf.cli.options import GROUPS


@pytest.mark.parametrize(
    ("other", "ours"),
    [("--n-components", "--rank"), ("--random-state", "--seed"), ("--max-itr", "--max-iter")],
)
def test_an_option_of_others_is_refused_with_ours(dask_nmf: Run, other: str, ours: str) -> None:
    told = dask_nmf("fit", "v.zarr", "-o", "run.zarr", "-k", 3, other, 3)
    assert told.returncode == 2
    assert re.search(f"Did you mean '?{ours}'?\\?", told.stderr)  # quoted by later versions of click


def test_help_has_every_option_once_under_a_heading(dask_nmf: Run) -> None:
    seen: set[str] = set()
    for command in app.commands.values():
        lines = dask_nmf(command.name, "--help").stdout.split("\nOptions:\n")[1].splitlines()
        options = [option for option in command.params if isinstance(option, click.Option)]
        for name in (max(option.opts, key=len) for option in options):
            assert sum(f"{name} " in f"{line} " for line in lines if line.startswith("  -")) == 1, name
        headings = [line.rstrip(":") for line in ("Options:", *lines) if re.match(r"\w+:$", line)]
        assert headings == [title for title in GROUPS if title in headings], command.name
        seen |= set(headings)
    assert seen == set(GROUPS)


def test_usage_errors_come_from_the_parser(dask_nmf: Run) -> None:
    assert dask_nmf("fit", "v.zarr", "-o", "run.zarr").returncode == 2
    told = dask_nmf("fit", "v.zarr", "-k", 3, "-o", "run.zarr", "--workers", "many")
    assert told.returncode == 2
    assert "not a valid integer" in told.stderr


def test_no_thread_of_a_library_meets_the_end_of_the_interpreter(tmp_path: Path) -> None:
    """The process is gone before: those of obstore would abort it, whatever its exit code was to be."""
    crashes = "import os; last = type('Last', (), {'__del__': lambda self, abort=os.abort: abort()})()"
    python, option, script = COMMAND
    words = [python, option, f"{crashes}; {script}", "info", "nothing.zarr"]
    told = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert_refused(told, 2, "there is no run at nothing.zarr", folder=tmp_path, left=set())


def test_help_imports_nothing_heavy() -> None:
    script = "import sys, dask_nmf.cli.run; print({'dask', 'numpy', 'zarr', 'sklearn'} & set(sys.modules))"
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "set()"
    began = os.times()
    subprocess.run([*COMMAND, "--help"], capture_output=True, check=True)
    ended = os.times()
    assert ended.children_user + ended.children_system - began.children_user - began.children_system < 2
