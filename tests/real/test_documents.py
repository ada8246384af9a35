"""The documents and the tutorials as a person follows them: every command and every Python example runs.

In a fenced block of language `console` the lines after `$` are run, together, by bash. Blocks of language
`python` are run as a script, those of a page together, but for the ones with a `__main__` of their own; some
of them with a smaller V, or fewer seeds. `text` is only read.
"""

import json
import re
import subprocess
from collections.abc import Iterator
from importlib.metadata import version
from itertools import groupby
from pathlib import Path

import numpy as np
import pytest
import zarr
from support.command import Forks
from support.docs import (
    ENVIRONMENT,
    PAGES,
    ROOT,
    assert_prints,
    assert_similar,
    bash,
    blocks,
    commands,
    shell,
    transcript,
)
from support.servers import is_whole_json, until

from dask_nmf.cluster.backends import worker_settings

SMALLER = {  # parts of the examples that would take long
    "README.md": {"(4000, 300), chunks=(1000, 100)": "(400, 30), chunks=(100, 10)"},
    "docs/choosing.md": {
        "for seed in range(3)": "for seed in range(1)",  # the tables in the page have medians of three
        "load_digits().data": "load_digits().data[::6]",
        "(2000, 100)": "(400, 100)",
        "size=(2000, 5)": "size=(400, 5)",
    },
}
BY_HAND = ROOT / "cluster_configs" / "scheduler" / "README.md"
ASK_WORKERS = """python - <<EOF
import os
from distributed import Client

def malloc_settings():
    return " ".join(f"{name}={value}" for name, value in os.environ.items() if name.startswith("MALLOC"))

with Client(scheduler_file="scheduler.json", timeout=30) as client:
    print(client.run(malloc_settings))
EOF"""
TUTORIALS = ROOT / "docs" / "tutorials"
OURS = r"dask-nmf [\w\s./:-]+"  # a line that needs no shell
LIBRARIES = ("NumPy", "SciPy", "scikit-learn")  # a page may name the versions whose docstrings it factorises


@pytest.fixture(scope="module")
def by_hand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The file of a scheduler that was started, with its workers, as the page says."""
    folder = tmp_path_factory.mktemp("by-hand")
    (folder / "cluster_configs").symlink_to(ROOT / "cluster_configs")
    start = commands(blocks(BY_HAND, "console")[0])[:-1]
    file = folder / "scheduler.json"
    with subprocess.Popen(bash([*start, "wait"]), cwd=folder, env=ENVIRONMENT) as process:
        try:
            until(lambda: is_whole_json(file))
            yield file
        finally:
            process.terminate()


def having(language: str, inside: Path = ROOT) -> list[Path]:
    pages = [page for page in PAGES if blocks(page, language) and page.is_relative_to(inside)]
    return [page for page in pages if not page.is_relative_to(TUTORIALS)]


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the data that the documents speak of: V.zarr, and V2.zarr with as many columns."""
    random = np.random.default_rng(0)
    h = random.exponential(size=(5, 40))
    for name, rows in (("V", 300), ("V2", 50)):
        v = random.exponential(size=(rows, 5)) @ h + random.random((rows, 40))
        zarr.create_array(tmp_path / f"{name}.zarr", data=v.astype(np.float32), chunks=(100, 40))
    for name in ("cluster_configs", "examples"):
        (tmp_path / name).symlink_to(ROOT / name)
    return tmp_path


def runnable(page: Path) -> list[str]:
    lines = [command for block in blocks(page, "console") for command in commands(block)]
    return [line for line in lines if not line.endswith("--help")]


def run(lines: list[str], folder: Path, forks: Forks, **environment: str) -> str:
    """Run commands of ours in processes that need not import first, and what lies between them by bash.

    Returns
    -------
    What all of them print.
    """
    printed = ""
    for ours, some in groupby(lines, lambda line: bool(re.fullmatch(OURS, line))):
        if not ours:
            printed += shell(list(some), folder, **environment)
            continue
        for line in some:
            done = forks.run(line.split(), folder, **environment)
            assert done.returncode == 0, done.stderr
            printed += done.stdout
    return printed


def test_commands_of_the_readme_run(folder: Path, by_hand: Path, forks: Forks) -> None:
    address = json.loads(by_hand.read_text())["address"]
    alone = "--memory-limit"  # such a command starts a cluster; a cluster of its own for each would take long
    for line in runnable(ROOT / "README.md"):
        if alone in line:
            run([line], folder, forks)
        else:
            run([line], folder, forks, DASK_SCHEDULER_ADDRESS=address)


@pytest.mark.parametrize("page", having("console", ROOT / "docs"), ids=name_of)
def test_commands_run(page: Path, folder: Path, by_hand: Path, forks: Forks) -> None:
    address = json.loads(by_hand.read_text())["address"]  # a cluster of its own for each would take long
    run(runnable(page), folder, forks, DASK_SCHEDULER_ADDRESS=address)


@pytest.mark.parametrize("page", having("python"), ids=name_of)
def test_python_runs(page: Path, folder: Path, forks: Forks) -> None:
    examples = blocks(page, "python")
    alone = [block for block in examples if "__main__" in block]
    together = "\n".join(block for block in examples if block not in alone)
    for large, small in SMALLER.get(name_of(page), {}).items():
        assert large in together, f"{page}: {large} is not there to be made smaller"
        together = together.replace(large, small)
    for script in filter(None, (together, *alone)):
        (folder / "page.py").write_text(script)
        done = forks.run([folder / "page.py"], folder)
        assert done.returncode == 0, done.stderr


def test_a_fit_on_workers_that_were_started_by_hand(folder: Path, by_hand: Path) -> None:
    (folder / "scheduler.json").symlink_to(by_hand)
    seen = shell([commands(blocks(BY_HAND, "console")[0])[-1], ASK_WORKERS], folder)
    assert "run.zarr: relative error" in seen
    for name, value in worker_settings.MALLOC.items():
        assert seen.count(f"{name}={value}") == 2, seen


def other_versions(page: Path) -> bool:
    """Return whether a library is installed in another version than that which a page names."""
    named = re.findall(rf"({'|'.join(LIBRARIES)}) (\d+\.\d+)\b", page.read_text())
    return any(not f"{version(name)}.".startswith(f"{at}.") for name, at in named)


@pytest.mark.parametrize("page", sorted({*TUTORIALS.glob("*.md")} - {TUTORIALS / "index.md"}), ids=name_of)
def test_tutorials_run_and_print_what_they_show(
    page: Path, folder: Path, by_hand: Path, forks: Forks
) -> None:
    address = json.loads(by_hand.read_text())["address"]
    printed = [
        (run([command], folder, forks, DASK_SCHEDULER_ADDRESS=address), shown)
        for command, shown in transcript(page)
    ]
    for script in blocks(page, "python"):
        (folder / "page.py").write_text(script)
        done = forks.run([folder / "page.py"], folder)
        assert done.returncode == 0, done.stderr
    if other_versions(page):
        return  # which have other texts
    for output, shown in printed:
        assert_prints(output, shown)
    for picture in re.findall(r"\]\(\.\./images/(.*\.png)\)", page.read_text()):
        assert_similar(folder / picture, ROOT / "docs" / "images" / picture)
