"""The report of how far files have been read, and libraries that read some of them."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from dask_nmf.ingest.files import FilePath, open_binary, size_of
from dask_nmf.progress import report_panel, report_read, report_stage

MEGABYTE = 10**6


class ReadProgress:
    """The report of how many megabytes of some files have been read."""

    def __init__(self, paths: Sequence[FilePath]) -> None:
        self._done = 0
        self._before = 0  # bytes of the files that are read
        report_stage(f"reading {paths[0].name}" + (f" and {len(paths) - 1} more" if paths[1:] else ""))
        report_read(sum(size_of(path) for path in paths) // MEGABYTE, "MB")

    def at(self, position: int) -> None:
        """Report the position in the file that is being read, in bytes."""
        reached = (self._before + position) // MEGABYTE
        for _ in range(self._done, reached):
            report_panel()
        self._done = max(self._done, reached)

    def file_done(self, path: FilePath) -> None:
        """Report that a file was read to its end."""
        size = size_of(path)
        self.at(size)
        self._before += size


def optional_library(name: str) -> Any:
    """Return a module that an extra of this package installs.

    Raises
    ------
    ValueError
        If it is not installed; the message has the command that does.
    """
    try:
        return import_module(name)
    except ImportError:
        library = name.partition(".")[0]
        raise ValueError(
            f"{library} is needed to read this file and is not installed; run: pip install 'dask_nmf[ingest]'"
        ) from None


def arrow_file(path: FilePath) -> Any:
    """Open a file as pyarrow reads it."""
    arrow = optional_library("pyarrow")
    return arrow.OSFile(str(path)) if isinstance(path, Path) else arrow.PythonFile(open_binary(path), "r")
