"""All tests in this folder and below are run by `make test-real`."""

import pytest


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark a test `real`, before tests are selected by their marks."""
    item.add_marker(pytest.mark.real)
