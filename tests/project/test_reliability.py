"""Each promise of docs/reliability.md has a test, and each test of failures is a promise."""

import re
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
PAGE = (TESTS.parent / "docs" / "reliability.md").read_text()
ROWS = [line for line in PAGE.splitlines() if line.startswith("| ") and not line.startswith("| what breaks")]


@cache
def names_in(pattern: str) -> set[str]:
    """Names of the tests in some files."""
    return {
        name
        for path in TESTS.rglob(pattern)
        for name in re.findall(r"^def (test_\w+)", path.read_text(), re.M)
    }


@pytest.mark.parametrize("row", ROWS)
def test_every_promise_names_tests_that_exist(row: str) -> None:
    named = re.findall(r"`(test_\w+)`", row.rsplit("|", 2)[1])
    assert named
    assert set(named) <= names_in("test_*.py")


def test_every_failure_that_is_tested_is_promised() -> None:
    assert names_in("test_failures*.py") <= set(re.findall(r"`(test_\w+)`", PAGE))
