"""V cut both ways on processes of workers whose memory a panel does not fit."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from support.cuts import Enough
from support.matrices import low_rank

from dask_nmf import Result, nmf
from dask_nmf.cluster.backends.local import local_cluster
from dask_nmf.iteration.loop import Step

LIMIT = 552_000_000  # bytes of a worker: no room for a panel of 2000 x 3600


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A V in tiles, whose panels do not fit `LIMIT`."""
    path = str(tmp_path_factory.mktemp("large") / "v.zarr")
    v = low_rank(4000, 3600, 8, dtype=np.float32)
    zarr.create_array(path, shape=v.shape, dtype=v.dtype, chunks=(2000, 400))[...] = v
    return path


def test_any_number_of_workers_and_a_fit_that_was_broken_off_give_the_same_bits(
    large: str, tmp_path: Path
) -> None:
    def halt(step: Step) -> None:
        if step.number == 2:
            raise Enough

    def run(name: str, **options: Any) -> Result:
        return nmf(large, 8, store=tmp_path / name, max_iter=3, tol=0, **options)

    with local_cluster(2, 1, LIMIT):
        with pytest.raises(Enough):
            run("broken", callback=halt)
        whole = run("two")
        assert whole.W.chunks[0] == (2000, 2000)
        assert len(whole.H.chunks[1]) > 1
    with local_cluster(1, 1, LIMIT):
        resumed = run("broken")
    for factor in ("W", "H"):
        np.testing.assert_array_equal(getattr(whole, factor), getattr(resumed, factor))
    v = zarr.open_array(large, mode="r")[:]
    error = np.linalg.norm(v - np.asarray(whole.W) @ np.asarray(whole.H)) / np.linalg.norm(v)
    assert whole.relative_error == pytest.approx(error, rel=1e-4)
    assert whole.error_history[0] < 0.03  # a random start is at 0.5
