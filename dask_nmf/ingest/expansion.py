"""The sources of a conversion, found: wildcards and folders become files, or sets of files of one kind."""

from __future__ import annotations

import glob
import logging
from collections.abc import Sequence
from itertools import groupby
from os.path import basename, commonpath
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from dask_nmf.errors import DataError
from dask_nmf.ingest.files import glob_objects, has_suffix
from dask_nmf.ingest.formats.images import SUFFIXES as IMAGES
from dask_nmf.ingest.formats.matrices.hierarchies import SUFFIXES
from dask_nmf.ingest.formats.matrices.matrix_market import is_10x_folder
from dask_nmf.ingest.output.group import is_converted, open_group
from dask_nmf.storage.locations import Location, is_location, located, location_above
from dask_nmf.storage.objects.requests import names_within
from dask_nmf.wording import counted

logger = logging.getLogger(__name__)

TEXTS = (".txt", ".txt.gz")
RECORDS = (".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz", ".json", ".json.gz")
TABLES = (".csv", ".tsv", ".csv.gz", ".tsv.gz", ".parquet")
MARKET = (".mtx", ".mtx.gz")
FILES = (*TEXTS, *RECORDS, *TABLES, *MARKET, *SUFFIXES, ".npy", ".npz", ".zarr")
KINDS = {"tables": TABLES, "records": RECORDS, "texts": TEXTS, "images": IMAGES}  # of files in a folder
ZARR = ("zarr.json", ".zgroup", ".zarray")  # files of a folder that is a Zarr hierarchy


class FileSet(NamedTuple):
    """Files of one row each, or of some rows, that are one source together.

    Attributes
    ----------
    folder : that names of rows are relative to
    place : the location that was given; None if a name with wildcards was
    """

    folder: Path
    paths: Sequence[Path]
    place: Location | None

    @property
    def images(self) -> bool:
        """Return whether the files are images, and not texts."""
        return has_suffix(self.paths[0], IMAGES)

    @property
    def name(self) -> str:
        """Return how messages call the files."""
        return f"{len(self.paths)} files in {self.folder}" if self.paths[1:] else str(self.paths[0])


def expand(source: Any) -> list[Any]:
    """Return sources one by one: locations for paths, of which wildcards and folders of tables may give many.

    Raises
    ------
    FileNotFoundError
        If a path leads to nothing.
    """
    if not isinstance(source, list | tuple) or not all(isinstance(one, str | Path) for one in source):
        source = [source]
    return _joined([found for one in source for found in _expand(one)])


def _expand(source: Any) -> list[Any]:
    place = located(source)
    if not is_location(place):
        return [place]
    place = group_of(place)
    if place.path is None:
        return _expand_url(place)
    if not place.path.exists():
        found = sorted(glob.glob(str(place.path)))
        if not found:
            raise FileNotFoundError(f"there is nothing at {place.name}; give the path of a file or a folder")
        if found == [str(place.path)]:
            raise FileNotFoundError(f"{place.name} is a link to nothing; give the path of a file or a folder")
        return [one for path in found for one in _expand(path)]
    if place.path.is_dir():
        return _inside(place, place.path)
    alone = has_suffix(place, TEXTS + IMAGES)
    return [FileSet(place.path.parent, [place.path], place)] if alone else [place]


def group_of(place: Location) -> Location:
    """Return the group of a V that `convert` wrote, if this is its X; else the place itself."""
    above = location_above(place) if basename(place.address) == "X" else None
    group = None if above is None else open_group(above)
    return place if above is None or group is None or not is_converted(group) else above


def _expand_url(place: Location) -> list[Any]:
    """Return the objects that a URL with wildcards matches, or the tables in a folder of a store."""
    if any(mark in place.address for mark in "*["):
        found = glob_objects(place.address)
        if not found:
            raise FileNotFoundError(f"no object matches {place.name}; only the last part may have wildcards")
        return [located(url) for url in found]
    if place.is_writable() and not has_suffix(place, FILES):  # others cannot be listed
        tables = [name for name in names_within(place.address) if name.lower().endswith(TABLES)]
        return [located(f"{place.address}/{quote(name)}") for name in tables] or [place]
    return [place]


def _inside(place: Location, folder: Path) -> list[Any]:
    """Return the files of a folder that are of the kind of most of them; the folder itself if it has none."""
    if is_10x_folder(folder) or any(Path(folder, name).exists() for name in ZARR):
        return [place]
    files = [path for path in sorted(folder.rglob("*")) if not _is_hidden(path.relative_to(folder))]
    found = {kind: [path for path in files if has_suffix(path, suffixes)] for kind, suffixes in KINDS.items()}
    below = {kind: [path for path in found[kind] if path.parent != folder] for kind in ("tables", "records")}
    for kind in below:
        found[kind] = [path for path in found[kind] if path.parent == folder]
    kind = max(found, key=lambda name: len(found[name]))
    _report_below(folder, below, bool(found[kind]))
    if not found[kind]:
        return [place]
    others = [f"{len(paths)} {name}" for name, paths in found.items() if paths and name != kind]
    if others:
        logger.info("taken of %s: %d %s, and not %s", folder, len(found[kind]), kind, ", ".join(others))
    if kind in ("tables", "records"):
        return [located(path) for path in found[kind]]
    return [FileSet(folder, found[kind], place)]


def _report_below(folder: Path, below: dict[str, list[Path]], others: bool) -> None:
    """Warn about tables and records in folders of a folder, which are not taken; refuse if these are all."""
    for kind, paths in below.items():
        if paths:
            several = f"{counted(len(paths), kind.removesuffix('s'))} in folders below {folder}"
            depth = len(paths[0].relative_to(folder).parent.parts)
            suffix = next(suffix for suffix in KINDS[kind] if has_suffix(paths[0], suffix))
            cure = f"give their names with wildcards, such as '{Path(folder, *['*'] * depth, '*' + suffix)}'"
            if not others:
                raise DataError(f"{folder} has only {several}; {cure}")
            logger.warning("not taken: %s; to take them, %s", several, cure)


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _joined(sources: Sequence[Any]) -> list[Any]:
    """Return sources in which sets of texts, or of images, that follow one another are one set."""
    joined: list[Any] = []
    for images, group in groupby(sources, lambda one: one.images if isinstance(one, FileSet) else None):
        members = list(group)
        if images is not None and len(members) > 1:
            folder = Path(commonpath([one.folder for one in members]))
            members = [FileSet(folder, [path for one in members for path in one.paths], None)]
        joined += members
    return joined


def is_file(source: Location) -> bool:
    """Return whether a source is one file, and no folder, as far as its name tells in a store."""
    if source.path is not None:
        return source.path.is_file()
    return has_suffix(source, FILES) and not has_suffix(source, ".zarr")


def name_of(source: Any) -> str:
    """Return how messages call a source."""
    return source.name if is_location(source) or isinstance(source, FileSet) else type(source).__name__
