"""Tests stand alone: what two test files need is in `support`, or in a conftest."""

import ast
from pathlib import Path

from support.wings import imported

TESTS = Path(__file__).resolve().parents[1]
FOLDERS = {path.name for path in TESTS.iterdir() if path.is_dir()} - {"support", "tools"}
FILES = sorted(path.relative_to(TESTS).as_posix() for path in TESTS.rglob("*.py"))


def is_of_tests(parts: list[str]) -> bool:
    return parts[0] in FOLDERS or any(part.startswith("test_") for part in parts)


def test_no_file_imports_a_test_file() -> None:
    names = {(file, name) for file in FILES for name in imported(ast.parse((TESTS / file).read_text()))}
    assert {(file, name) for file, name in names if is_of_tests(name.split("."))} == set()
