"""What the documents say: their links, options, exit codes and wings are those there are.

``tests/real/test_documents.py`` runs their commands and examples.
"""

import ast
import re
from contextlib import nullcontext
from itertools import pairwise

import click
import pytest
from support.docs import PAGES, ROOT, assert_prints, blocks, commands, shell
from support.wings import FOLDERS, MAY_IMPORT, PACKAGE, WINGS, tree, wing
from tools import draw_wings

from dask_nmf.cli.app import app
from dask_nmf.cli.process.exit_codes import ExitCode


def test_blocks_are_of_known_languages() -> None:
    for page in PAGES:
        fences = re.findall(r"^ *```(.*)$", page.read_text(), re.MULTILINE)
        assert set(fences[::2]) <= {"console", "python", "text"}, page
        assert set(fences[1::2]) <= {""}, page


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
    table = re.findall(r"^\| (\d+) \|", (ROOT / "docs" / "exit_codes.md").read_text(), re.MULTILINE)
    assert list(map(int, table)) == sorted(ExitCode)


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


def test_the_drawing_of_the_wings_is_current() -> None:
    assert draw_wings.DRAWING.read_text() == draw_wings.draw(draw_wings.imports_of_wings())


SHOWN = ["run.zarr: relative error 0.2576 after 2 passes", "[...]", "component 4: CD160 1, GZMB 0.99"]


@pytest.mark.parametrize(
    ("printed", "same"),
    [
        ("run.zarr: relative error 0.2571 after 2 passes\nx\ncomponent 4: CD160 1, GZMB 0.98\n", True),
        ("run.zarr: relative error 0.2876 after 2 passes\nx\ncomponent 4: CD160 1, GZMB 0.99\n", False),
        ("run.zarr: relative error 0.2576 after 2 passes\nx\ncomponent 4: CD161 1, GZMB 0.99\n", False),
        ("run.zarr: relative error 0.2576 after 2 passes\nx\ncomponent 4: CD160 1, GZMB 0.99\ny\n", False),
        ("run.zarr: relative error 0.2576 after 2 passes\n", False),
    ],
)
def test_an_output_that_differs_from_the_page_is_found(printed: str, same: bool) -> None:
    with nullcontext() if same else pytest.raises(AssertionError):
        assert_prints(printed, SHOWN)
