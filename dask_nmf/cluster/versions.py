"""Whether scheduler and workers run what this process runs; the package is sent to those that lack it."""

from __future__ import annotations

import importlib
import logging
import pkgutil
import sys
from collections.abc import Iterator, Mapping
from importlib import resources
from importlib.resources.abc import Traversable
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import ZipFile

from distributed import Client
from distributed.diagnostics.plugin import SchedulerPlugin, WorkerPlugin

import dask_nmf

logger = logging.getLogger(__name__)

PACKAGES = ("numba", "numcodecs", "numpy", "scipy", "zarr")  # besides those that Dask itself compares
IGNORED = ("lz4", "pandas")  # Dask compares them, and this package does without
NAME = "dask-nmf-package"  # of the plugins that carry it
SHOWN = 3  # differences that the line names

Versions = Mapping[str, str | None]


def check(client: Client, upload: bool = False) -> None:
    """See that tasks of this process run on all workers of a cluster; warn, in one line, of other versions.

    Parameters
    ----------
    upload : whether to send this package to those that lack it, also to workers that join later.

    Raises
    ------
    ValueError
        If a process lacks a package, or cannot work with this one; with its address and the cure.
    """
    if upload:
        _upload(client)
    for process, version in _ours(client):
        if isinstance(version, Exception):
            raise ValueError(
                f"{process} lacks the package dask_nmf; install it there, or send it with --upload-package"
            )
        if version != dask_nmf.__version__:  # a task is a call of its inner functions
            raise ValueError(
                f"{process} has dask_nmf {version}, and this process {dask_nmf.__version__}; install the "
                "same there (or, after --upload-package, restart it)"
            )
    told = client.get_versions(packages=PACKAGES)
    others = {"the scheduler": told["scheduler"]} | {_worker(a): said for a, said in told["workers"].items()}
    line = difference(
        told["client"]["packages"], {process: said["packages"] for process, said in others.items()}
    )
    if line:
        logger.warning(line)


def difference(here: Versions, others: Mapping[str, Versions]) -> str | None:
    """What differs from the versions here, in a line. Most differences do no harm.

    Raises
    ------
    ValueError
        If a process lacks a package, or runs another minor of Python: what one pickles the other may not
        read.
    """
    found: dict[str, str] = {}
    for process, versions in others.items():
        for package, ours in here.items():
            theirs = versions.get(package)
            if package in IGNORED or ours in (None, theirs):
                continue
            if theirs is None:
                raise ValueError(f"{process} lacks the package {package}; install {package} {ours} there")
            if package == "python" and _minor(str(ours)) != _minor(theirs):
                raise ValueError(
                    f"{process} runs Python {_minor(theirs)}, and this process {_minor(str(ours))}; "
                    "run the same on both"
                )
            found.setdefault(package, f"{package} is {ours} here and {theirs} on {process}")
    if not found:
        return None
    more = f" (and {len(found) - SHOWN} more)" if len(found) > SHOWN else ""
    return f"versions differ: {'; '.join(sorted(found.values())[:SHOWN])}{more}; install the same everywhere"


def _minor(python: str) -> str:
    return ".".join(python.split(".")[:2])


def _worker(address: str) -> str:
    return f"the worker at {address}"


def _ours(client: Client) -> Iterator[tuple[str, Any]]:
    """The version of this package on the scheduler and on each worker, or the error of its import."""
    version = pkgutil.resolve_name, "dask_nmf:__version__"  # all may unpickle what is Python's own
    try:
        yield "the scheduler", client.run_on_scheduler(*version)
    except ImportError as error:
        yield "the scheduler", error
    for address, found in client.run(*version, on_error="return").items():
        yield _worker(address), found


def _upload(client: Client) -> None:
    """Send this package to the scheduler and to every worker, now or when it joins."""
    data = _zipped()

    def unpack(node: Any) -> None:
        """As files: numba keeps what it compiled beside them, and Dask removes both with the node."""
        folder = Path(node.local_directory) / NAME
        with ZipFile(BytesIO(data)) as package:
            package.extractall(folder)
        if str(folder) not in sys.path:
            sys.path.append(str(folder))  # behind a package that is installed
        importlib.invalidate_caches()

    # Classes of a function are pickled whole; those of this module would need it where they arrive.
    class OnScheduler(SchedulerPlugin):  # type: ignore[misc]
        name = NAME

        async def start(self, scheduler: Any) -> None:
            unpack(scheduler)

    class OnWorker(WorkerPlugin):  # type: ignore[misc]
        name = NAME

        def setup(self, worker: Any) -> None:
            unpack(worker)

    for plugin in OnScheduler(), OnWorker():
        client.register_plugin(plugin)


def _zipped() -> bytes:
    """Return a ZIP archive of the Python files of this package, with those of its subpackages."""
    stored = BytesIO()
    with ZipFile(stored, "w") as package:
        for name, content in _python_files(resources.files(dask_nmf), "dask_nmf"):
            package.writestr(name, content)
    return stored.getvalue()


def _python_files(folder: Traversable, name: str) -> Iterator[tuple[str, bytes]]:
    """Yield the name and content of each Python file below a folder of a package."""
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _python_files(entry, f"{name}/{entry.name}")
        elif entry.name.endswith(".py"):
            yield f"{name}/{entry.name}", entry.read_bytes()
