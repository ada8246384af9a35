"""The sources of a conversion: paths are expanded, and each is opened by the kind that its name tells."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from os.path import commonpath
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from dask_nmf.ingest.files import FilePath, ObjectPath, glob_objects
from dask_nmf.ingest.formats.documents.counting import CountedTexts
from dask_nmf.ingest.formats.documents.decoding import UTF8
from dask_nmf.ingest.formats.documents.texts import (
    CsvTexts,
    Fields,
    JsonLines,
    ParquetTexts,
    TextFiles,
    Texts,
)
from dask_nmf.ingest.formats.images import SUFFIXES as IMAGES
from dask_nmf.ingest.formats.images import ImageFiles, ImageRows
from dask_nmf.ingest.formats.matrices.hierarchies import SUFFIXES, open_hdf5, open_zarr_group
from dask_nmf.ingest.formats.matrices.matrix_market import MatrixMarket, is_10x_folder, open_10x_folder
from dask_nmf.ingest.formats.matrices.matrix_rows import MatrixRows
from dask_nmf.ingest.formats.tables.dense_tables import DenseTable
from dask_nmf.ingest.formats.tables.table import open_table
from dask_nmf.ingest.formats.tables.triplets import Triplets
from dask_nmf.ingest.options import ConvertOptions
from dask_nmf.ingest.rows import RowSource, Stacked
from dask_nmf.storage.locations import Location, is_location, located
from dask_nmf.storage.objects.requests import names_within

TEXTS = (".txt", ".txt.gz")
RECORDS = (".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz")
TABLES = (".csv", ".tsv", ".csv.gz", ".tsv.gz", ".parquet")
MARKET = (".mtx", ".mtx.gz")
FILES = (*TEXTS, *RECORDS, *TABLES, *MARKET, *SUFFIXES, ".npy", ".npz", ".zarr")
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
        return self.paths[0].name.lower().endswith(IMAGES)

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
    return [found for one in source for found in _expand(one)]


def _expand(source: Any) -> list[Any]:
    place = located(source)
    if not is_location(place):
        return [place]
    if place.path is None:
        return _expand_url(place)
    if not place.path.exists():
        found = sorted(glob.glob(str(place.path)))
        if not found:
            raise FileNotFoundError(f"there is nothing at {place.name}; give the path of a file or a folder")
        paths = [Path(path) for path in found]
        if any(all(path.name.lower().endswith(kind) for path in paths) for kind in (TEXTS, IMAGES)):
            return [FileSet(Path(commonpath([path.parent for path in paths])), paths, None)]
        return [located(path) for path in paths]
    if place.path.is_dir():
        return _inside(place, place.path)
    alone = place.name.lower().endswith(TEXTS + IMAGES)
    return [FileSet(place.path.parent, [place.path], place)] if alone else [place]


def _expand_url(place: Location) -> list[Any]:
    """Return the objects that a URL with wildcards matches, or the tables in a folder of a store."""
    if any(mark in place.address for mark in "*["):
        found = glob_objects(place.address)
        if not found:
            raise FileNotFoundError(f"no object matches {place.name}; only the last part may have wildcards")
        return [located(url) for url in found]
    if place.is_writable() and not place.address.endswith(FILES):  # others cannot be listed
        tables = [name for name in names_within(place.address) if name.endswith(TABLES)]
        return [located(f"{place.address}/{quote(name)}") for name in tables] or [place]
    return [place]


def _file(source: Any) -> FilePath | None:
    """Return the file that a source is, or the folder; None for what is read in other ways."""
    if not is_location(source) or source.path is not None:
        return source.path if is_location(source) else None
    return ObjectPath(source.address) if source.name.endswith(TABLES + MARKET + SUFFIXES) else None


def _inside(place: Location, folder: Path) -> list[Any]:
    """Return the tables, records, texts or images of a folder; the folder itself if it has none."""
    if is_10x_folder(folder) or any(Path(folder, name).exists() for name in ZARR):
        return [place]
    for suffixes in (TABLES, RECORDS):
        found = sorted(path for path in folder.iterdir() if path.name.endswith(suffixes))
        if found:
            return [located(path) for path in found]
    below = sorted(folder.rglob("*"))
    for endings in (TEXTS, IMAGES):
        paths = [path for path in below if path.name.lower().endswith(endings)]
        if paths:
            return [FileSet(folder, paths, place)]
    return [place]


def open_sources(
    sources: Sequence[Any], names: Sequence[str], options: ConvertOptions, scratch: Path
) -> RowSource:
    """Open the sources as one."""
    if not sources:
        raise ValueError("no source is given; give the path of a file or a folder")
    if options.text is not None or any(_is_text(one) for one in sources):
        return CountedTexts([_open_texts(one, options) for one in sources], options, scratch)
    if options.counting.given or options.encoding != UTF8:
        named = ", ".join(options.counting.given or ["encoding"])
        raise ValueError(f"{named} is for texts: .txt files, JSON lines, or a column that text names")
    files = [_file(one) for one in sources]
    tables = [path for path in files if path is not None and path.name.endswith(TABLES)]
    if options.entries:
        if len(tables) < len(sources):
            raise ValueError(
                "row, column and value name columns of tables; give .csv, .tsv or .parquet files"
            )
        return Triplets([open_table(path) for path in tables], options, scratch)
    if any(isinstance(one, FileSet) for one in sources):
        return _open_images(sources, options)
    if options.row is not None and not tables:
        raise ValueError("row names a column of a table; give .csv, .tsv or .parquet files, or leave it out")
    opened = []
    for number, one in enumerate(sources):
        own = scratch / str(number)
        own.mkdir()
        opened.append(_open_one(one, options, own))
    return opened[0] if len(opened) == 1 else Stacked(opened, names)


def name_of(source: Any) -> str:
    """Return how messages call a source."""
    return source.name if is_location(source) or isinstance(source, FileSet) else type(source).__name__


def _is_text(source: Any) -> bool:
    files = isinstance(source, FileSet) and not source.images
    return files or (is_location(source) and source.name.endswith(RECORDS + TEXTS))


def _open_images(sources: Sequence[Any], options: ConvertOptions) -> ImageRows:
    """Open images; refuse sources of other kinds beside them."""
    found = [ImageFiles(one.folder, one.paths) for one in sources if isinstance(one, FileSet) and one.images]
    if len(found) < len(sources):
        raise ValueError("images and files of other kinds are given together; convert them one by one")
    return ImageRows(found, options)


def _open_texts(source: Any, options: ConvertOptions) -> Texts:
    """Open texts; refuse a source that has none."""
    if isinstance(source, FileSet) and not source.images:
        if options.text is not None:
            raise ValueError(
                "text names a field of JSON lines, or a column of a table; leave it out for .txt files"
            )
        return TextFiles(source.folder, source.paths, options.encoding)
    path = source.path if is_location(source) else None
    if is_location(source) and path is None:
        raise ValueError(f"{source.name} is in a store, and texts are read from files; copy it to a disk")
    if path is None or not path.name.endswith(RECORDS + TABLES):
        raise ValueError(f"{name_of(source)} holds no texts; give .txt files, .jsonl, .csv, .tsv or .parquet")
    if options.text is None:
        raise ValueError(f"{path} holds records; name the field with the text: text='body', --text body")
    fields = Fields(options.text, options.row)
    if path.suffix == ".parquet":
        return ParquetTexts(path, fields)
    kind = JsonLines if path.name.endswith(RECORDS) else CsvTexts
    return kind(path, fields, options.encoding)


def _open_one(source: Any, options: ConvertOptions, scratch: Path) -> RowSource:
    """Open a source of a kind that its suffix tells."""
    path = _file(source)
    if isinstance(path, Path) and is_10x_folder(path):
        return open_10x_folder(path, options, scratch)
    if path is not None and path.name.endswith(MARKET):
        return MatrixMarket(path, options, scratch)
    if options.duplicates != "error":
        raise ValueError(
            f"duplicates is {options.duplicates!r}, and is for MatrixMarket and for tables of entries, with "
            "row, column and value; leave it out"
        )
    if path is not None:
        if path.name.endswith(SUFFIXES):
            return open_hdf5(path, options, scratch)
        if path.name.endswith(TABLES):
            return DenseTable(open_table(path), options)
    named = None
    if is_location(source) and (path is None or (isinstance(path, Path) and path.is_dir())):
        named = open_zarr_group(source, options, scratch)
    if options.dataset is not None and named is None:
        raise ValueError("dataset is a path inside of an HDF5 file or a Zarr group; leave it out")
    return named or MatrixRows(source, options, scratch)
