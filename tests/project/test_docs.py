"""What the documents say: every command and every Python example runs, and the options are those there are.

In a fenced block of language `console` the lines after `$` are run, together, by bash; after `--help` the
output is compared. Blocks of language `python` are run as a script, those of a page together, but for the
ones with a `__main__` of their own; some of them with a smaller V, or fewer seeds. `text` is only read.
"""

import ast
import json
import re
import subprocess
from collections.abc import Iterator
from itertools import groupby, pairwise
from pathlib import Path

import click
import numpy as np
import pytest
import zarr
from support.command import Forks
from support.docs import ENVIRONMENT, ROOT, bash, blocks, commands, shell
from support.servers import until
from support.wings import FOLDERS, MAY_IMPORT, PACKAGE, WINGS, tree, wing
from tools import draw_wings

from dask_nmf.cli.app import app
from dask_nmf.cli.process.exit_codes import ExitCode
from dask_nmf.cluster.backends import worker_settings

PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "cluster_configs").rglob("*.md")),
]
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


@pytest.fixture(scope="module")
def by_hand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The file of a scheduler that was started, with its workers, as the page says."""
    folder = tmp_path_factory.mktemp("by-hand")
    (folder / "cluster_configs").symlink_to(ROOT / "cluster_configs")
    start = commands(blocks(BY_HAND, "console")[0])[:-1]
    file = folder / "scheduler.json"
    with subprocess.Popen(bash([*start, "wait"]), cwd=folder, env=ENVIRONMENT) as process:
        try:
            until(file.exists)
            yield file
        finally:
            process.terminate()


def having(language: str, inside: Path = ROOT) -> list[Path]:
    return [page for page in PAGES if blocks(page, language) and page.is_relative_to(inside)]


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
    (tmp_path / "cluster_configs").symlink_to(ROOT / "cluster_configs")
    return tmp_path


def test_blocks_are_of_known_languages() -> None:
    for page in PAGES:
        fences = re.findall(r"^ *```(.*)$", page.read_text(), re.MULTILINE)
        assert set(fences[::2]) <= {"console", "python", "text"}, page
        assert set(fences[1::2]) <= {""}, page


def runnable(page: Path) -> list[str]:
    lines = [command for block in blocks(page, "console") for command in commands(block)]
    return [line for line in lines if not line.endswith("--help")]


def run(lines: list[str], folder: Path, forks: Forks, **environment: str) -> None:
    """Run commands of ours in processes that need not import first, and what lies between them by bash."""
    for ours, some in groupby(lines, lambda line: bool(re.fullmatch(r"dask-nmf [\w\s./-]+", line))):
        if not ours:
            shell(list(some), folder, **environment)
            continue
        for line in some:
            done = forks.run(line.split(), folder, **environment)
            assert done.returncode == 0, done.stderr


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


def test_help_is_as_documented() -> None:
    helps = [block for block in blocks(ROOT / "docs" / "cli.md", "console") if "--help\n" in block]
    documented = {commands(block)[0]: block.split("\n", 1)[1] for block in helps}
    assert set(documented) == {
        "dask-nmf --help",
        *(f"dask-nmf {name} --help" for name in app.commands),
    }
    for command, text in documented.items():
        assert shell([command], ROOT) == text, f"docs/cli.md has another output of {command} at COLUMNS=100"


def test_every_option_is_explained() -> None:
    prose = re.sub(
        r"^```.*?^```$", "", (ROOT / "docs" / "cli.md").read_text(), flags=re.MULTILINE | re.DOTALL
    )
    for command in app.commands.values():
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert f"`{max(parameter.opts, key=len)}`" in prose, f"{command.name}: {parameter.opts}"


def test_words_that_differ_in_the_command_stand_in_one_table() -> None:
    words = (ROOT / "docs" / "choosing.md").read_text().partition("## Words")[2].partition("\nAll other")[0]
    documented = set(re.findall(r"`([^`]+)`", words))
    for option in app.commands["fit"].params:
        if isinstance(option, click.Option) and f"--{str(option.name).replace('_', '-')}" not in option.opts:
            assert {option.name, *option.opts} <= documented, option.name


def test_exit_codes_are_as_documented() -> None:
    table = re.findall(r"^\| (\d+) \|", (ROOT / "docs" / "cli.md").read_text(), re.MULTILINE)
    assert set(map(int, table)) == set(ExitCode)


def test_the_wings_are_as_documented() -> None:
    rows = re.findall(
        r"^\| `([\w/]+)/` \| (.*?) \| (.*?) \|$", (ROOT / "docs" / "architecture.md").read_text(), re.M
    )
    purposes = {
        folder.relative_to(PACKAGE).as_posix(): ast.get_docstring(
            ast.parse((folder / "__init__.py").read_text())
        )
        for folder in FOLDERS[1:]
    }
    assert {folder: purpose for folder, purpose, _ in rows} == purposes
    for folder, _, may in rows:
        below = set(WINGS[: WINGS.index(folder)]) if may == "all below" else set(re.findall(r"`(\w+)`", may))
        assert "/" in folder or below == MAY_IMPORT[folder] & set(WINGS)


def test_the_stops_of_a_fit_are_in_the_code_each_below_the_one_before() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    named = re.findall(r"`([\w/]+)\.py`: `(\w+)`", page)
    for file, name in named:
        defined = ast.walk(tree(file.replace("/", ".")))
        assert name in {node.name for node in defined if isinstance(node, ast.FunctionDef)}, f"{file}: {name}"
    stops = [wing(file.replace("/", ".")) for file in re.findall(r"^\d\. `([\w/]+)\.py`", page, re.M)]
    assert len(stops) == 8
    order = [*WINGS, "api"]
    assert all(order.index(lower) <= order.index(upper) for upper, lower in pairwise(stops))
    for file in re.findall(r"`([\w/]+\.py)`", page + (ROOT / "docs" / "contributing.md").read_text()):
        assert (PACKAGE / file).exists() or (ROOT / file).exists() or "NAME" in file, file


def test_links_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)", page.read_text()):
            assert "://" in target or (page.parent / target).exists(), f"{page}: {target}"


def test_a_fit_on_workers_that_were_started_by_hand(folder: Path, by_hand: Path) -> None:
    (folder / "scheduler.json").symlink_to(by_hand)
    seen = shell([commands(blocks(BY_HAND, "console")[0])[-1], ASK_WORKERS], folder)
    assert "run.zarr: relative error" in seen
    for name, value in worker_settings.MALLOC.items():
        assert seen.count(f"{name}={value}") == 2, seen


def test_the_drawing_of_the_wings_is_current() -> None:
    assert draw_wings.DRAWING.read_text() == draw_wings.draw(draw_wings.imports_of_wings())
