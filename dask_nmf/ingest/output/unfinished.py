"""Conversions that were stopped: what tells that an unfinished output may be continued."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from shutil import rmtree
from typing import Any

from dask_nmf._version import __version__
from dask_nmf.errors import StoreUnavailableError
from dask_nmf.ingest.entries.journal import FILE as JOURNAL
from dask_nmf.ingest.files import ObjectPath
from dask_nmf.ingest.output.checkpoint import FILE as CHECKPOINT
from dask_nmf.storage.locations import Location, is_location
from dask_nmf.storage.objects.object_store import list_stamps
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
        if scratch.exists() and not (scratch / CHECKPOINT).exists():
            _clear(folder)
        scratch.mkdir(parents=True, exist_ok=True)
        if self._record is not None:
            (folder / RECORD).write_text(self._record)
        return scratch

    def begin_anew(self, folder: Path) -> None:
        """Delete what an output has, of which a part is damaged, and make its empty folders again."""
        rmtree(folder)
        self.begin(folder)

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
        return any(any((folder / SCRATCH).rglob(name)) for name in (JOURNAL, CHECKPOINT))


def _clear(folder: Path) -> None:
    """Delete the group of an output, of which no checkpoint tells how far it is."""
    for one in folder.iterdir():
        if one.is_dir() and one.name != SCRATCH:
            rmtree(one)
        elif one.is_file():
            one.unlink()


def _stamp(source: Any) -> Any:
    """Return what changes when a source does; None if that is not known."""
    if is_location(source) and source.path is None:
        return _object_stamp(source.address) or _prefix_stamp(source)
    if isinstance(source, ObjectPath):
        return _object_stamp(source.url) if source.e_tag is None else [source.url, source.size, source.e_tag]
    path = source.path if is_location(source) else source
    if not isinstance(path, Path):
        return None
    try:
        files = sorted(one for one in path.rglob("*") if one.is_file()) if path.is_dir() else [path]
        return [[str(one), one.stat().st_size, one.stat().st_mtime_ns] for one in files]
    except OSError:  # whoever reads the source says what is wrong with it
        return None


def _object_stamp(url: str) -> str | None:
    """Return the stamp of an object; None if there is none, as at a prefix of objects."""
    with suppress(OSError, StoreUnavailableError):
        size, stamp = stat(url)
        return stamp and f"{url} {size} {stamp}"
    return None


def _prefix_stamp(place: Location) -> str | None:
    """Return a digest of the stamps of all objects below a prefix."""
    with suppress(OSError, StoreUnavailableError):
        stamps = list_stamps(place.address) if place.is_writable() else {}
        if stamps and None not in stamps.values():
            digest = sha256(json.dumps(stamps, sort_keys=True).encode()).hexdigest()
            return f"{place.address} {digest}"
    return None
