"""Panels of a few rows, so that a small V has several of them."""

from collections.abc import Iterator

import dask
import pytest

from dask_nmf.planning import row_panels


@pytest.fixture(autouse=True)
def _several_panels(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(row_panels, "SMALLEST", 1)
    monkeypatch.setattr(row_panels, "PANELS", 3)
    with dask.config.set({"scheduler": "synchronous", "dask_nmf.fsync": False}):
        yield
