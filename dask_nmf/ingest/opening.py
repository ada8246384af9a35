"""The sources of a conversion: paths are expanded, and each is opened by the kind that its name tells."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dask_nmf.ingest.formats.matrices.hierarchies import SUFFIXES, open_hdf5, open_zarr_group
from dask_nmf.ingest.formats.matrices.matrix_market import MatrixMarket, is_10x_folder, open_10x_folder
from dask_nmf.ingest.formats.matrices.matrix_rows import MatrixRows
from dask_nmf.ingest.formats.tables.dense_tables import DenseTable
from dask_nmf.ingest.formats.tables.table import open_table
from dask_nmf.ingest.formats.tables.triplets import Triplets
from dask_nmf.ingest.options import ConvertOptions
from dask_nmf.ingest.rows import RowSource, Stacked
from dask_nmf.storage.locations import is_location, located

TABLES = (".csv", ".tsv", ".csv.gz", ".tsv.gz", ".parquet")
MARKET = (".mtx", ".mtx.gz")


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
    if not is_location(place) or place.path is None:
        return [place]
    if not place.path.exists():
        found = sorted(glob.glob(str(place.path)))
        if not found:
            raise FileNotFoundError(f"there is nothing at {place.name}; give the path of a file or a folder")
        return [located(path) for path in found]
    if place.path.is_dir():
        tables = sorted(path for path in place.path.iterdir() if path.name.endswith(TABLES))
        if tables and not is_10x_folder(place.path):
            return [located(path) for path in tables]
    return [place]


def open_sources(
    sources: Sequence[Any], names: Sequence[str], options: ConvertOptions, scratch: Path
) -> RowSource:
    """Open the sources as one."""
    if not sources:
        raise ValueError("no source is given; give the path of a file or a folder")
    tables = [one.path for one in sources if is_location(one) and one.path and one.name.endswith(TABLES)]
    if options.entries:
        if len(tables) < len(sources):
            raise ValueError(
                "row, column and value name columns of tables; give .csv, .tsv or .parquet files"
            )
        return Triplets([open_table(path) for path in tables], options, scratch)
    if options.row is not None and not tables:
        raise ValueError("row names a column of a table; give .csv, .tsv or .parquet files, or leave it out")
    opened = []
    for number, one in enumerate(sources):
        own = scratch / str(number)
        own.mkdir()
        opened.append(_open_one(one, options, own))
    return opened[0] if len(opened) == 1 else Stacked(opened, names)


def _open_one(source: Any, options: ConvertOptions, scratch: Path) -> RowSource:
    """Open a source of a kind that its suffix tells."""
    path = source.path if is_location(source) else None
    if path is not None and is_10x_folder(path):
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
    if is_location(source) and (path is None or path.is_dir()):
        named = open_zarr_group(source, options, scratch)
    if options.dataset is not None and named is None:
        raise ValueError("dataset is a path inside of an HDF5 file or a Zarr group; leave it out")
    return named or MatrixRows(source, options, scratch)
