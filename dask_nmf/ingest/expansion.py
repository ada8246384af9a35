"""The sources of a conversion, found: wildcards and folders become files, or sets of files of one kind."""

from __future__ import annotations

import glob
import logging
from collections.abc import Sequence
from itertools import groupby
from os.path import basename
from pathlib import Path, PurePath
from typing import Any, NamedTuple
from urllib.parse import quote

from dask_nmf.errors import DataError
from dask_nmf.ingest.files import (
    FilePath,
    ObjectPath,
    common_folder,
    files_below,
    first_in,
    glob_objects,
    has_suffix,
    root_of,
)
from dask_nmf.ingest.formats.images import SUFFIXES as IMAGES
from dask_nmf.ingest.formats.matrices.hierarchies import SUFFIXES
from dask_nmf.ingest.formats.matrices.matrix_market import PARTS, parts_of
from dask_nmf.ingest.output.group import is_converted, open_group
from dask_nmf.storage.locations import Location, is_location, located, location_above
from dask_nmf.wording import counted

logger = logging.getLogger(__name__)

TEXTS = (".txt", ".txt.gz")
RECORDS = (".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz", ".json", ".json.gz")
TABLES = (".csv", ".tsv", ".csv.gz", ".tsv.gz", ".parquet")
MARKET = (".mtx", ".mtx.gz")
FILES = (*TEXTS, *IMAGES, *RECORDS, *TABLES, *MARKET, *SUFFIXES, ".npy", ".npz", ".zarr", ".zip")
KINDS = {"tables": TABLES, "records": RECORDS, "texts": TEXTS, "images": IMAGES}  # of files in a folder
JOINED = ("texts", "images")  # kinds of files that are one source together
ZARR = ("zarr.json", ".zgroup", ".zarray")  # files of a folder that is a Zarr hierarchy


class FileSet(NamedTuple):
    """Files that are one source together: texts, images, or the parts of a matrix of 10x Genomics.

    Attributes
    ----------
    folder : that names of rows are relative to
    place : the location that was given; None if a name with wildcards was
    """

    folder: FilePath
    paths: Sequence[FilePath]
    place: Location | None

    @property
    def kind(self) -> str:
        """Return "texts", "images" or "cells"."""
        return next((kind for kind in JOINED if has_suffix(self.paths[0], KINDS[kind])), "cells")

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
    return _alone(place, place.path)


def _alone(place: Location, path: FilePath) -> list[Any]:
    """Return a file as a source: a set of one, if it is a text or an image."""
    return [FileSet(path.parent, [path], place)] if has_suffix(path, TEXTS + IMAGES) else [place]


def group_of(place: Location) -> Location:
    """Return the group of a V that `convert` wrote, if this is its X; else the place itself."""
    above = location_above(place) if basename(place.address) == "X" else None
    group = None if above is None else open_group(above)
    return place if above is None or group is None or not is_converted(group) else above


def _expand_url(place: Location) -> list[Any]:
    """Return the objects that a URL with wildcards matches, or those in a folder of a store."""
    if any(mark in place.address for mark in "*["):
        found = glob_objects(place.address)
        if not found:
            raise FileNotFoundError(f"no object matches {place.name}; only the last part may have wildcards")
        return [one for path in found for one in _alone(located(path.url), path)]
    folder = ObjectPath(place.address)
    listed = place.is_writable() and not has_suffix(place, FILES)  # others cannot be listed
    return _inside(place, folder) if listed else _alone(place, folder)


def _inside(place: Location, folder: FilePath) -> list[Any]:
    """Return the files of a folder that are of the kind of most of them; `DataError` if it has none."""
    if first_in(folder, ZARR) is not None:
        return [place]
    if first_in(folder, PARTS["matrix"]) is not None:
        return [FileSet(folder, parts_of(folder), place)]
    files = {inner: path for inner, path in files_below(folder).items() if not _is_passed_over(inner)}
    found = {
        kind: [path for path in files.values() if has_suffix(path, suffixes)]
        for kind, suffixes in KINDS.items()
    }
    below = {
        kind: [inner for inner, path in files.items() if has_suffix(path, KINDS[kind]) and inner.parts[1:]]
        for kind in ("tables", "records")
    }
    for kind in below:
        found[kind] = [path for path in found[kind] if path.parent == folder]
    kind = max(found, key=lambda name: len(found[name]))
    _report_below(folder, below, bool(found[kind]))
    if not found[kind]:
        if not files and not isinstance(folder, Path):
            return [place]  # whoever opens it says that there is nothing
        raise DataError(
            f"{folder} has no tables, JSON lines, texts or images, and is neither Zarr nor of 10x Genomics; "
            "give the paths of its files, which may have wildcards"
        )
    others = [f"{len(paths)} {name}" for name, paths in found.items() if paths and name != kind]
    if others:
        logger.info("taken of %s: %d %s, and not %s", folder, len(found[kind]), kind, ", ".join(others))
    if kind in ("tables", "records"):
        return [located(str(path)) for path in found[kind]]
    return [FileSet(folder, found[kind], place)]


def _report_below(folder: FilePath, below: dict[str, list[PurePath]], others: bool) -> None:
    """Warn about tables and records in folders of a folder, which are not taken; refuse if these are all."""
    for kind, paths in below.items():
        if paths:
            several = f"{counted(len(paths), kind.removesuffix('s'))} in folders below {folder}"
            above = paths[0].parent
            suffix = next(suffix for suffix in KINDS[kind] if paths[0].name.lower().endswith(suffix))
            local = isinstance(folder, Path)
            folders = ["*"] * len(above.parts) if local else [quote(part) for part in above.parts]
            shown = "/".join((str(folder), *folders, f"*{suffix}"))
            cure = f"give their names with wildcards, such as '{shown}'"
            if not others:
                raise DataError(f"{folder} has only {several}; {cure}")
            logger.warning("not taken: %s; to take them, %s", several, cure)


def _is_passed_over(path: PurePath) -> bool:
    """Return whether a file below a folder is hidden, or a part of a Zarr hierarchy."""
    return any(part.startswith(".") for part in path.parts) or any(
        part.lower().endswith(".zarr") for part in path.parts[:-1]
    )


def _joined(sources: Sequence[Any]) -> list[Any]:
    """Return sources in which sets of texts, or of images, that follow one another are one set."""
    joined: list[Any] = []
    for kind, group in groupby(sources, _kind_and_root):
        members = list(group)
        if kind is not None and len(members) > 1:
            folder = common_folder([one.folder for one in members])
            members = [FileSet(folder, [path for one in members for path in one.paths], None)]
        joined += members
    return joined


def _kind_and_root(source: Any) -> tuple[str, str] | None:
    """Return what sets of files must have in common to be joined; None for what is not joined."""
    joins = isinstance(source, FileSet) and source.kind in JOINED
    return (source.kind, root_of(source.folder)) if joins else None


def is_file(source: Location) -> bool:
    """Return whether a source is one file, and no folder, as far as its name tells in a store."""
    if source.path is not None:
        return source.path.is_file()
    return has_suffix(source, FILES) and not has_suffix(source, ".zarr")


def name_of(source: Any) -> str:
    """Return how messages call a source."""
    return source.name if is_location(source) or isinstance(source, FileSet) else type(source).__name__
