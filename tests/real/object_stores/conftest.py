"""Two real servers of object stores: one honours conditions of writes, one checks keys."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import boto3
import numpy as np
import obstore
import pytest
from hypothesis import settings
from support import faults
from support.buckets import KEY, SECRET, SHAPE, V, enter, fit, store
from support.matrices import Array
from support.servers import free_port, listens, process, until

from dask_nmf.storage.objects import requests
from dask_nmf.storage.objects.object_store import ObjectStore

PART = 5  # one of so many writes is tried at once


@pytest.fixture(scope="session")
def ports(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, int]]:
    """Ports of both servers, each of which has a bucket."""
    folder = tmp_path_factory.mktemp("servers")
    moto, rclone = free_port(), free_port()
    (folder / "buckets" / "bucket").mkdir(parents=True)
    (folder / "tmp").mkdir()
    serve = ["rclone", "serve", "s3", folder / "buckets", "--addr", f"127.0.0.1:{rclone}"]
    environment = os.environ | {"TMPDIR": str(folder / "tmp")}
    with ExitStack() as stack:
        for name, command in (
            ("moto", ["moto_server", "-H", "127.0.0.1", "-p", moto]),
            ("rclone", [*serve, "--auth-key", f"{KEY},{SECRET}", "--vfs-cache-mode", "off", "--config", ""]),
        ):
            stack.enter_context(process(*command, log=folder / f"{name}.log", env=environment))
        until(lambda: listens(moto) and listens(rclone))
        address = f"http://127.0.0.1:{moto}"
        boto3.client("s3", "us-east-1", None, True, None, address, KEY, SECRET).create_bucket(Bucket="bucket")
        yield {"moto": moto, "rclone": rclone}


@pytest.fixture(scope="session")
def v() -> Array:
    rng = np.random.default_rng(0)
    w, h = (rng.gamma(0.5, size=size).astype(np.float32) for size in ((SHAPE[0], 5), (5, SHAPE[1])))
    made: Array = (w @ h) * rng.random(SHAPE, dtype=np.float32)
    return made


@pytest.fixture(params=["moto", "rclone"])
def server(
    request: pytest.FixtureRequest, ports: dict[str, int], v: Array, monkeypatch: pytest.MonkeyPatch
) -> Iterator[faults.Proxy]:
    """A proxy before a server that has V, with nothing else in its bucket."""
    with faults.proxy(ports[request.param]) as proxy:
        enter(monkeypatch, proxy.url)
        bucket = requests.connect("s3://bucket")
        for some in obstore.list(bucket):
            obstore.delete(bucket, [told["path"] for told in some])
        store(ObjectStore(V), v)
        proxy.seen.clear()
        yield proxy


@pytest.fixture
def on_disk(v: Array, tmp_path: Path, several_panels: None) -> Path:
    """A run on disk, of the same V."""
    store(tmp_path / "v.zarr", v)
    fit(tmp_path / "v.zarr", tmp_path / "run.zarr")
    return tmp_path / "run.zarr"


@pytest.fixture
def overtaken_at(pytestconfig: pytest.Config) -> range:
    """Numbers of the writes at which a process is overtaken, each in a fit of its own, which takes seconds.

    In a soak they are all writes. Otherwise they are a part of them, another one with another seed.
    """
    if settings.get_current_profile_name() == "many":
        return range(1000)
    return range(int(pytestconfig.getoption("--hypothesis-seed") or 0) % PART, 1000, PART)
