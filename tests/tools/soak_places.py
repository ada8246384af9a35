"""Where the runs of a soak are: a folder on a small disk, or an object store."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import obstore
from support.servers import free_port, listens, process, until

from dask_nmf.storage.objects import requests
from dask_nmf.storage.objects.object_store import ObjectStore

KEYS = {"AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s", "AWS_DEFAULT_REGION": "us-east-1"}


class Folder:
    """A run on the disk."""

    def __init__(self, place: Path) -> None:
        self.output = str(place)
        self.held: Any = place

    def started(self) -> bool:
        """Return whether a fit has committed something."""
        return (self.held / "zarr.json").exists()

    def clear(self) -> None:
        """Remove the run."""
        shutil.rmtree(self.held)


class Bucket:
    """A run in an object store."""

    def __init__(self) -> None:
        self.output = "s3://bucket/run.zarr"
        self.held: Any = ObjectStore(self.output)

    def started(self) -> bool:
        """Return whether a fit has committed something."""
        return any(path.endswith("run.zarr/zarr.json") for path in self._paths())

    def clear(self) -> None:
        """Remove the run and everything else in the bucket."""
        for path in self._paths():
            obstore.delete(requests.connect("s3://bucket"), path)

    def _paths(self) -> list[str]:
        found = obstore.list(requests.connect("s3://bucket"))
        return [each["path"] for some in found for each in some]


@contextmanager
def mounted(place: Path) -> Iterator[None]:
    """Mount a small disk on a folder, if this is root."""
    place.mkdir()
    if os.geteuid() == 0:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", place], check=True)
    try:
        yield
    finally:
        if os.geteuid() == 0:
            subprocess.run(["umount", "--lazy", place], check=True)


@contextmanager
def bucket(folder: Path) -> Iterator[bool]:
    """Run an object store for this process and its children; yield whether one is installed."""
    if shutil.which("moto_server") is None:
        yield False
        return
    port = free_port()
    os.environ |= KEYS | {"AWS_ALLOW_HTTP": "true", "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}
    with process("moto_server", "-H", "127.0.0.1", "-p", port, log=folder / "moto.log"):
        until(lambda: listens(port))
        client = boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"])
        client.create_bucket(Bucket="bucket")
        yield True
