"""Panels that are looked at in several strips."""

import pytest

from dask_nmf.kernels.blocks import row_batches


@pytest.fixture(autouse=True)
def several_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    """A panel is looked at in several strips."""
    monkeypatch.setattr(row_batches, "STRIP_CELLS", 500)
