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

    with connect_cluster(ClusterSpec(**where), matrix.bytes):
        follow()
        yield
