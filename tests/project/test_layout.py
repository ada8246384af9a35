"""Tests stand alone: what two test files need is in `support`, or in a conftest."""

import ast
from pathlib import Path

import pytest
from support.wings import imported

TESTS = Path(__file__).resolve().parents[1]
FOLDERS = {path.name for path in TESTS.iterdir() if path.is_dir()} - {"support", "tools"}
FILES = sorted(path.relative_to(TESTS).as_posix() for path in TESTS.rglob("*.py"))


@pytest.mark.parametrize("file", FILES)
def test_no_file_imports_a_test_file(file: str) -> None:
    names = [name.split(".") for name in imported(ast.parse((TESTS / file).read_text()))]
    assert not [name for name in names if name[0] in FOLDERS]
    assert not [name for name in names if any(part.startswith("test_") for part in name)]
