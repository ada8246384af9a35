"""A cluster on hosts that are reached by SSH."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import cycle, islice

import dask
from distributed import Client, SSHCluster

from dask_nmf.cluster.backends.startup import import_optional, start_cluster
from dask_nmf.cluster.backends.worker_settings import TUNED
from dask_nmf.cluster.config import ClusterSpec, Configuration
from dask_nmf.process_settings import SharedSetting

_ssh_settings = SharedSetting(lambda: dask.config.set(TUNED))  # Dask sends these settings to the hosts


@contextmanager
def ssh_cluster(spec: ClusterSpec, configured: Configuration) -> Iterator[Client]:
    """Start a scheduler on the first host of ``dask_nmf.ssh.hosts``, and workers on the others in turn.

    By default each of the others has one worker.

    Raises
    ------
    ValueError, NoWorkers
        If the configuration is not complete, or a host cannot be used; if a host does not answer.
    """
    import_optional("asyncssh", "ssh")
    scheduler, *others = configured.ssh.get("hosts") or [None]
    if not others:
        raise ValueError(
            "dask_nmf.ssh.hosts in Dask's configuration must name the scheduler's host and at least one "
            "worker's (it may be the same)"
        )
    sizes = {"nthreads": spec.threads_per_worker, "memory_limit": spec.memory_limit}
    with (
        _ssh_settings.held(),
        start_cluster(
            "ssh",
            lambda: SSHCluster(
                [scheduler, *islice(cycle(others), spec.workers or len(others))],
                connect_options={"connect_timeout": configured.wait}
                | configured.ssh.get("connect_options", {}),
                worker_options=configured.ssh.get("worker_options", {})
                | {k: v for k, v in sizes.items() if v},
                scheduler_options=configured.ssh.get("scheduler_options", {}),
                remote_python=configured.ssh.get("remote_python"),
            ),
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client
