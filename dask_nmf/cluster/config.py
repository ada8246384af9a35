"""The keys of this package in Dask's configuration: ``dask_nmf:`` in YAML, ``DASK_DASK_NMF__…`` variables."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, fields, replace
from typing import Any

import dask
from dask.utils import parse_bytes, parse_timedelta

SSH = ("hosts", "connect_options", "worker_options", "scheduler_options", "remote_python")


@dataclass(frozen=True)
class Configuration:
    """The keys in Dask's configuration and their defaults."""

    cluster: str | None = None  # the cluster to start if no scheduler is given: local, ssh or slurm
    workers: int | None = None  # number of workers of a cluster that is started
    wait: float = 60.0  # seconds to wait for a first worker, and for the scheduler's file
    fsync: bool = True  # whether a commit waits until the disk has it
    client_memory: int | str | None = None  # bytes that a selection of ranks may fill in the client
    ssh: Mapping[str, Any] = field(default_factory=dict)  # parameters of `distributed.SSHCluster`, see `SSH`


@dataclass(frozen=True)
class ClusterSpec:
    """The cluster that a command is to run on: a scheduler, or a cluster to start."""

    cluster: str | None = None  # local, ssh or slurm
    workers: int | None = None
    threads_per_worker: int | None = None
    memory_limit: int | str | None = None  # of each worker, in bytes or as text ("2GiB")
    scheduler: str | None = None  # the address of a running scheduler
    scheduler_file: str | None = None
    upload_package: bool = False  # send this package to workers that lack it

    @property
    def sized(self) -> bool:
        """True if the size of a cluster to start is given."""
        return bool(self.workers or self.threads_per_worker or self.memory_limit)


KNOWN = (*(key.name for key in fields(Configuration) if key.name != "ssh"), *(f"ssh.{name}" for name in SSH))


def read() -> Configuration:
    """Return the keys as they are configured now.

    Raises
    ------
    ValueError
        If there is an unknown key, or an invalid value.
    """
    values = _mapping(dask.config.get("dask_nmf", None))
    ssh = _mapping(values.pop("ssh", None))
    unknown = sorted({*values, *(f"ssh.{name}" for name in ssh)} - set(KNOWN))
    if unknown:
        raise ValueError(
            f"Dask's configuration has dask_nmf.{unknown[0]}, which is not known; "
            f"known are, after dask_nmf., {', '.join(KNOWN)}"
        )
    keys = Configuration(**values, ssh=ssh)
    if keys.workers is not None and not (isinstance(keys.workers, int) and keys.workers >= 1):
        raise ValueError(f"dask_nmf.workers is {keys.workers!r}; it must be a number of processes, >= 1")
    if not isinstance(keys.fsync, bool):
        raise ValueError(f"dask_nmf.fsync is {keys.fsync!r}; it must be true or false")
    keys = replace(keys, client_memory=_bytes(keys.client_memory))
    try:
        return replace(keys, wait=float(parse_timedelta(keys.wait)))
    except (ValueError, TypeError, KeyError):
        raise ValueError(f'dask_nmf.wait is {keys.wait!r}; write it in seconds, or as "5 minutes"') from None


def _bytes(size: int | str | None) -> int | None:
    if size is None:
        return None
    try:
        number = int(parse_bytes(size))
    except (ValueError, OverflowError, AttributeError):
        number = 0
    if number <= 0:
        raise ValueError(f'dask_nmf.client_memory is {size!r}; write it as a size, such as "600MB" or "2GiB"')
    return number


def without_fsync() -> AbstractContextManager[Any]:
    """Return a context in which commits of this process do not wait until the disk has them."""
    unsynced: AbstractContextManager[Any] = dask.config.set({"dask_nmf.fsync": False})
    return unsynced


def _mapping(values: Any) -> dict[str, Any]:
    """Return a mapping of YAML with underscores in its keys, because Dask accepts hyphens too."""
    if not isinstance(values or {}, Mapping):
        raise ValueError(f"Dask's configuration has {values!r} under dask_nmf; it must be keys and values")
    return {str(name).replace("-", "_"): value for name, value in (values or {}).items()}
