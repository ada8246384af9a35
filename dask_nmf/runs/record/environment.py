"""The environment of a fit: versions of the software, and how many workers and threads it had."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from functools import cache
from importlib.metadata import version
from typing import Any

from dask_nmf._version import __version__
from dask_nmf.cluster.client import active_client
from dask_nmf.process_settings import CPU_COUNT

PACKAGES = ("numpy", "scipy", "numba", "dask", "distributed", "zarr")


def environment() -> dict[str, Any]:
    """Return the versions and the resources of now, as JSON holds them: no names of hosts, and no paths.

    Without a cluster, this process is the one worker.
    """
    client = active_client()
    threads = {"": CPU_COUNT} if client is None else client.nthreads()
    return {
        "versions": dict(_versions()),
        "workers": len(threads),
        "threads": sum(threads.values()),
    }


@cache  # reading the metadata of a package takes a millisecond and more
def _versions() -> dict[str, str]:
    known = {"dask_nmf": __version__, "python": platform.python_version()}
    return known | {name: version(name) for name in PACKAGES}


def with_environment(
    known: Sequence[dict[str, Any]], passes: int, current: dict[str, Any]
) -> list[dict[str, Any]]:
    """Return the environments of a fit after this many passes; the current one is added if it is another."""
    last = {name: value for name, value in known[-1].items() if name != "from_pass"} if known else None
    return list(known) if last == current else [*known, {"from_pass": passes, **current}]
