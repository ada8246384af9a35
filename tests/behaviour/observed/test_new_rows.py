"""New rows with missing entries."""

from pathlib import Path

import dask
import dask.array as da
import numpy as np
import pytest
import scipy.optimize
import scipy.sparse
from distributed import Client
from support.observed import HOLDERS, RANK, factors, how, ratings, shapes

from dask_nmf import transform

pytestmark = pytest.mark.usefixtures("several_panels")


@pytest.mark.parametrize("kind", ["numpy", "dask of csr", "csr in zarr", "csc in zarr"])
@shapes
def test_new_rows_with_missing_entries(shape: tuple[int, int], kind: str, tmp_path: Path) -> None:
    v, h = ratings(shape), factors(shape)["H"]
    w = transform(HOLDERS[kind](v, tmp_path / "v"), h, missing=how(kind), alpha_W=0.05)
    assert w is not None
    for row, ours in zip(v, w.compute(), strict=True):
        there = ~np.isnan(row)
        ridge = np.sqrt(0.05 * there.sum()) * np.eye(RANK)
        theirs = scipy.optimize.nnls(
            np.vstack([h[:, there].T, ridge]), np.concatenate([row[there], np.zeros(RANK)])
        )[0]
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_a_cluster_takes_new_rows_with_missing_entries(client: Client) -> None:
    v, h = ratings((60, 25)), factors((60, 25))["H"]
    ours = transform(da.from_array(v, chunks=(7, 9)), h, missing="nan")
    assert ours is not None
    with dask.config.set(scheduler="synchronous"):
        theirs = transform(v, h, missing="nan")
    np.testing.assert_allclose(ours.compute(), theirs, rtol=1e-7, atol=1e-12)
