"""All tests in this folder and below are run by `make test-real`."""

import pytest


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark a test `real`, before tests are selected by their marks."""
    item.add_marker(pytest.mark.real)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest tests first, or one process would be left with them at the end."""
    items.sort(key=lambda item: item.path.name != "test_pods.py")
