"""Conversions that were stopped: what tells that an unfinished output may be continued."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from shutil import rmtree
from typing import Any

from dask_nmf._version import __version__
from dask_nmf.errors import StoreUnavailableError
from dask_nmf.ingest.entries.journal import FILE
from dask_nmf.storage.locations import Location, is_location
from dask_nmf.storage.objects.requests import stat

logger = logging.getLogger(__name__)

RECORD = "conversion.json"
SCRATCH = "scratch"


class Conversion:
    """A conversion, by what it reads and how: another process continues it if both are the same.

    Parameters
    ----------
    sources : locations and paths; any other source is not known again, and such a conversion begins anew
    settings : everything else that the output depends on
    """

    def __init__(self, sources: Sequence[Any], *settings: Any) -> None:
        stamps = [_stamp(source) for source in sources]
        known = all(stamp is not None for stamp in stamps)
        self._record = json.dumps([__version__, stamps, *map(repr, settings)]) if known else None

    def begin(self, folder: Path) -> Path:
        """Return the folder for temporary files of an output, which keeps those that can be used."""
        scratch = folder / SCRATCH
        if scratch.exists():
            _clear(folder)
        scratch.mkdir(parents=True, exist_ok=True)
        if self._record is not None:
            (folder / RECORD).write_text(self._record)
        return scratch

    def end(self, folder: Path) -> None:
        """Remove what an output has of an unfinished one."""
        (folder / RECORD).unlink(missing_ok=True)
        rmtree(folder / SCRATCH)

    def can_continue(self, folder: Path) -> bool:
        """Return whether an unfinished output is of this conversion, and has something that can be used."""
        record = folder / RECORD
        if not record.exists():
            return False
        if record.read_text() != self._record:
            logger.info(
                "an unfinished conversion to this place had other sources, options or another version of "
                "dask_nmf; this one begins anew"
            )
            return False
        return any(_journals(folder))


def _journals(folder: Path) -> Iterator[Path]:
    return (folder / SCRATCH).rglob(FILE)


def _clear(folder: Path) -> None:
    """Delete everything but sorted runs."""
    kept = {journal.parent for journal in _journals(folder)}
    above = {parent for one in kept for parent in (one, *one.parents)}
    for parent, folders, files in os.walk(folder, topdown=False):
        for name in files if Path(parent) not in kept else ():
            Path(parent, name).unlink()
        for name in folders:
            if Path(parent, name) not in above:
                Path(parent, name).rmdir()


def _stamp(source: Any) -> Any:
    """Return what changes when a source does; None if that is not known."""
    if is_location(source) and source.path is None:
        return _object_stamp(source)
    path = source.path if is_location(source) else source
    if not isinstance(path, Path):
        return None
    try:
        files = sorted(one for one in path.rglob("*") if one.is_file()) if path.is_dir() else [path]
        return [[str(one), one.stat().st_size, one.stat().st_mtime_ns] for one in files]
    except OSError:  # whoever reads the source says what is wrong with it
        return None


def _object_stamp(place: Location) -> str | None:
    try:
        size, stamp = stat(place.address)
    except (OSError, StoreUnavailableError):  # a prefix is no object
        return None
    return stamp and f"{place.address} {size} {stamp}"
