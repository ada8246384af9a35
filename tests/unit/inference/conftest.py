"""A folder with a run, and steps of a few rows, columns, cells and lines."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import zarr
from support.factors import (
    RANK,
)
from support.matrices import low_rank, sparse

from dask_nmf import nmf
from dask_nmf.inference import predict as predict_module
from dask_nmf.inference.cells import reading, writing
from dask_nmf.inference.topk import kernel, search
from dask_nmf.planning import worker_memory


@pytest.fixture
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make steps small: a few rows, columns, cells and lines at a time."""
    monkeypatch.setattr(worker_memory, "IN_FLIGHT", 4 * RANK * 8)
    monkeypatch.setattr(predict_module, "ENTRIES", 7 * RANK)
    monkeypatch.setattr(search, "CELLS", 1)
    monkeypatch.setattr(kernel, "STRIP", 4)
    monkeypatch.setattr(kernel, "TILE", 7)
    monkeypatch.setattr(reading, "BATCH", 5)
    monkeypatch.setattr(writing, "LINES", 3)


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with v.zarr, the run of a fit, and pairs.csv of the last 1000 cells."""
    filled = tmp_path_factory.mktemp("filled")
    v = low_rank(300, 40, RANK, dtype=np.float32) * (sparse(300, 40) > 0)
    stored = zarr.create_array(filled / "v.zarr", data=v, chunks=(100, 40))
    nmf(stored, RANK, max_iter=1, store=str(filled / "run.zarr"))
    (filled / "run.zarr.lock").unlink(missing_ok=True)
    cells = [f"{275 + at // 40},{at % 40}\n" for at in range(1000)]
    (filled / "pairs.csv").write_text("row,column\n" + "".join(cells))
    return filled


@pytest.fixture
def folder(filled: Path, tmp_path: Path) -> Path:
    """Return a copy of the folder `filled`."""
    return Path(shutil.copytree(filled, tmp_path / "folder"))
