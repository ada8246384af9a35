"""A bucket with V on a real server, fits of it, and comparisons of their results."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import obstore
import pytest
import zarr
from support.matrices import Array

from dask_nmf import Result, Run, nmf
from dask_nmf.storage.objects import requests
from dask_nmf.storage.objects.object_store import ObjectStore

KEY, SECRET = "one-key", "a-secret-that-nobody-else-has"
V = "s3://bucket/v.zarr"
SHAPE, CHUNKS = (900, 50), (100, 50)
PASSES = 4

only_moto = pytest.mark.parametrize("server", ["moto"], indirect=True)


def enter(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    """Set the environment variables that give access to the server at an address."""
    for name, value in {
        "AWS_ENDPOINT_URL": address,
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ALLOW_HTTP": "true",
    }.items():
        monkeypatch.setenv(name, value)


def store(where: ObjectStore | Path, v: Array) -> None:
    zarr.create_array(where, shape=v.shape, chunks=CHUNKS, dtype=v.dtype)[:] = v


def fit(matrix: str | Path, output: str | Path, **settings: object) -> Result:
    return nmf(matrix, 5, store=output, tol=0, **{"max_iter": PASSES, **settings})  # type: ignore[arg-type]


def same_factors(one: str | Path, other: str | Path) -> None:
    """Check that both runs have equal W and H, bit for bit."""
    for name in ("W", "H"):
        np.testing.assert_array_equal(
            Run.load_result(one).array(name)[:], Run.load_result(other).array(name)[:]
        )


def keys() -> set[str]:
    """Return the keys of all objects in the bucket, without those of V."""
    found = obstore.list(requests.connect("s3://bucket")).collect()
    return {told["path"] for told in found if not told["path"].startswith("v.zarr")}
