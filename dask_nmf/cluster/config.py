"""Our keys in Dask's configuration: ``dask_nmf:`` in YAML, ``DASK_DASK_NMF__…`` in the environment."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, fields, replace
from typing import Any

import dask
from dask.utils import parse_timedelta

SSH = ("hosts", "connect_options", "worker_options", "scheduler_options", "remote_python")


@dataclass(frozen=True)
class Configuration:
    """The keys and their defaults."""

    cluster: str | None = None  # what to start where no scheduler is given: local, ssh or slurm
    workers: int | None = None  # of a cluster that is started
    wait: float = 60.0  # seconds for a first worker, and for the scheduler's file
    fsync: bool = True  # whether a commit waits until a disk has it
    ssh: Mapping[str, Any] = field(default_factory=dict)  # what `distributed.SSHCluster` takes, of `SSH`


KNOWN = (*(key.name for key in fields(Configuration) if key.name != "ssh"), *(f"ssh.{name}" for name in SSH))


def read() -> Configuration:
    """The keys as they are now.

    Raises
    ------
    ValueError
        If there is another key, or a value is none of its key.
    """
    given = _named(dask.config.get("dask_nmf", None))
    ssh = _named(given.pop("ssh", None))
    unknown = sorted({*given, *(f"ssh.{name}" for name in ssh)} - set(KNOWN))
    if unknown:
        raise ValueError(
            f"Dask's configuration has dask_nmf.{unknown[0]}, which is not known; "
            f"known are, after dask_nmf., {', '.join(KNOWN)}"
        )
    found = Configuration(**given, ssh=ssh)
    if found.workers is not None and not (isinstance(found.workers, int) and found.workers >= 1):
        raise ValueError(f"dask_nmf.workers is {found.workers!r}; it must be a number of processes, >= 1")
    if not isinstance(found.fsync, bool):
        raise ValueError(f"dask_nmf.fsync is {found.fsync!r}; it must be true or false")
    try:
        return replace(found, wait=float(parse_timedelta(found.wait)))
    except (ValueError, TypeError, KeyError):
        raise ValueError(f'dask_nmf.wait is {found.wait!r}; write it in seconds, or as "5 minutes"') from None


def without_fsync() -> AbstractContextManager[Any]:
    """Let commits in this process not wait until a disk has them."""
    unsynced: AbstractContextManager[Any] = dask.config.set({"dask_nmf.fsync": False})
    return unsynced


def _named(given: Any) -> dict[str, Any]:
    """A mapping of YAML, with underscores, as Dask takes either."""
    if not isinstance(given or {}, Mapping):
        raise ValueError(f"Dask's configuration has {given!r} under dask_nmf; it must be keys and values")
    return {str(name).replace("-", "_"): value for name, value in (given or {}).items()}
