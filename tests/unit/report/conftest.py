"""A run to report, and figures that are not drawn."""

from pathlib import Path

import numpy as np
import pytest
from support.matrices import low_rank
from support.runs import OPTIONS

from dask_nmf import nmf
from dask_nmf.report.drawing import svg


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of rank 3 of which the last component is dead, and a row of V is zero."""
    place = tmp_path_factory.mktemp("report") / "run.zarr"
    V = low_rank(40, 12, 2)
    V[5] = 0
    nmf(
        V,
        **OPTIONS,
        store=place,
        init="custom",
        H=np.vstack([np.eye(2, 12) + 0.1, np.zeros(12)]),
        solver="mu",
        W=np.ones((40, 3)),
    )
    return place


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are empty, which saves the time of drawing them."""
    monkeypatch.setattr(svg, "svg_text", lambda figure: '<svg xmlns="http://www.w3.org/2000/svg"/>')
