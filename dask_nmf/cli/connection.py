"""The cluster of a command: the one that its options describe."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def connected(follow: Callable[[], None], matrix: Any, where: dict[str, Any]) -> Iterator[None]:
    """Return a context in which the cluster of the options is the active one, and its progress is shown."""
    from dask_nmf.cluster.config import ClusterSpec
    from dask_nmf.cluster.launch import connect_cluster
    from dask_nmf.display.dashboard import log_dashboard

    with connect_cluster(ClusterSpec(**where), matrix.bytes):
        follow()
        log_dashboard()
        yield


@contextmanager
def planned(follow: Callable[[], None], matrix: Any, where: dict[str, Any]) -> Iterator[Any]:
    """Return a context that gives the workers that the options would start on this machine, without a start.

    It gives None, and enters the context of `connected`, if these options name another kind of cluster.
    """
    from dask_nmf.cluster.config import ClusterSpec
    from dask_nmf.cluster.launch import planned_workers

    sizes = planned_workers(ClusterSpec(**where), matrix.bytes)
    if sizes is not None:
        yield sizes
        return
    with connected(follow, matrix, where):
        yield None
