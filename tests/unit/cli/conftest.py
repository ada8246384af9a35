"""The command, called in a folder with a V."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
import zarr
from support.command import COMMAND, Forks, Run


@pytest.fixture
def dask_nmf(tmp_path: Path, scheduler: str, forks: Forks) -> Run:
    """Call the command in ``tmp_path``; with ``own=True`` in a new Python, and on its own cluster."""

    def call(*words: object, own: bool = False) -> subprocess.CompletedProcess[str]:
        if not own:
            return forks.call(words, tmp_path, DASK_SCHEDULER_ADDRESS=scheduler)
        return subprocess.run(
            [*COMMAND, *map(str, words)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=250,
            check=False,
        )

    return call


@pytest.fixture
def v(tmp_path: Path) -> np.ndarray:
    """A small V, and its file ``v.zarr`` in ``tmp_path``."""
    rng = np.random.default_rng(0)
    v = rng.gamma(0.5, size=(300, 4)) @ rng.gamma(0.5, size=(4, 40)) + 0.1 * rng.random((300, 40))
    stored = zarr.create_array(tmp_path / "v.zarr", shape=v.shape, chunks=(100, 40), dtype=v.dtype)
    stored[:] = v
    return v


@pytest.fixture
def holes(v: np.ndarray, tmp_path: Path) -> np.ndarray:
    """V with a third of it missing; ``holes.zarr`` has NaN there, ``weights.npy`` 1 and 2."""
    holes = np.where(np.random.default_rng(1).random(v.shape) < 1 / 3, np.nan, v)
    zarr.create_array(tmp_path / "holes.zarr", data=holes, chunks=(100, 40))
    np.save(tmp_path / "weights.npy", np.repeat([[1, 2]], 300, axis=0).repeat(20, axis=1))
    return holes
