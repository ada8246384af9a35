"""Compare the versions of packages on a cluster with those here; send this package to nodes that lack it."""

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
NAME = "dask-nmf-package"  # of the plugins that carry this package
SHOWN = 3  # differences that the warning names

Versions = Mapping[str, str | None]


def check(client: Client, upload: bool = False) -> None:
    """Check that all workers of a cluster can run tasks of this process; warn of other versions in one line.

    Parameters
    ----------
    upload : whether to send this package to nodes that lack it, also to workers that join later

    Raises
    ------
    ValueError
        If a process lacks a package, or cannot work with this one. The text has its address and the cure.
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
    reported = client.get_versions(packages=PACKAGES)
    others = {"the scheduler": reported["scheduler"]} | {
        _worker(a): said for a, said in reported["workers"].items()
    }
    line = difference(
        reported["client"]["packages"], {process: said["packages"] for process, said in others.items()}
    )
    if line:
        logger.warning(line)


def difference(here: Versions, others: Mapping[str, Versions]) -> str | None:
    """Return the differences from the versions here as one line, or None. Most of them do no harm.

    Raises
    ------
    ValueError
        If a process lacks a package, or runs another minor version of Python, which may not read pickles of
        this one.
    """
    differences: dict[str, str] = {}
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
            differences.setdefault(package, f"{package} is {ours} here and {theirs} on {process}")
    if not differences:
        return None
    shown = sorted(differences.values())[:SHOWN]
    more = f" (and {len(differences) - SHOWN} more)" if len(differences) > SHOWN else ""
    return f"versions differ: {'; '.join(shown)}{more}; install the same everywhere"


def _minor(python: str) -> str:
    return ".".join(python.split(".")[:2])


def _worker(address: str) -> str:
    return f"the worker at {address}"


def _ours(client: Client) -> Iterator[tuple[str, Any]]:
    """Yield the version of this package, or the error of its import, for the scheduler and each worker."""
    version = (
        pkgutil.resolve_name,
        "dask_nmf:__version__",
    )  # every process can unpickle a function of the standard library
    try:
        yield "the scheduler", client.run_on_scheduler(*version)
    except ImportError as error:
        yield "the scheduler", error
    for address, answer in client.run(*version, on_error="return").items():
        yield _worker(address), answer


def _upload(client: Client) -> None:
    """Send this package to the scheduler and to every worker, now or when it joins."""
    data = _zipped()

    def unpack(node: Any) -> None:
        """Unpack as files: numba keeps its cache beside them, and Dask removes both with the node."""
        folder = Path(node.local_directory) / NAME
        with ZipFile(BytesIO(data)) as package:
            package.extractall(folder)
        if str(folder) not in sys.path:
            sys.path.append(str(folder))  # after an installed package
        importlib.invalidate_caches()

    # Classes of a function are pickled whole. Those of this module would need the module where they arrive.
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
