"""The sources of a conversion: each is opened by the kind that its name tells."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from dask_nmf.errors import DataError
from dask_nmf.ingest.expansion import FILES, MARKET, RECORDS, TABLES, TEXTS, FileSet, name_of
from dask_nmf.ingest.files import FilePath, ObjectPath, has_suffix
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
from dask_nmf.ingest.formats.images import ImageFiles, ImageRows
from dask_nmf.ingest.formats.matrices.hierarchies import SUFFIXES, open_hdf5, open_zarr_group
from dask_nmf.ingest.formats.matrices.matrix_market import MatrixMarket, open_10x_parts
from dask_nmf.ingest.formats.matrices.matrix_rows import MatrixRows
from dask_nmf.ingest.formats.tables.dense_tables import DenseTable
from dask_nmf.ingest.formats.tables.table import open_table
from dask_nmf.ingest.formats.tables.triplets import Triplets
from dask_nmf.ingest.options import ConvertOptions
from dask_nmf.ingest.rows import RowSource, Stacked
from dask_nmf.sources.formats.objects.annotated import is_annotated
from dask_nmf.sources.labelled.registry import formed_within
from dask_nmf.storage.locations import is_location


def _file(source: Any) -> FilePath | None:
    """Return the file that a source is, or the folder; None for what is read in other ways."""
    if not is_location(source) or source.path is not None:
        return source.path if is_location(source) else None
    return ObjectPath(source.address) if has_suffix(source, TABLES + MARKET + SUFFIXES) else None


def open_sources(
    sources: Sequence[Any], names: Sequence[str], options: ConvertOptions, scratch: Path, files: ExitStack
) -> RowSource:
    """Open the sources as one; files that stay open meanwhile are closed by a stack."""
    if not sources:
        raise ValueError("no source is given; give the path of a file or a folder")
    if options.text is not None or any(_is_text(one) for one in sources):
        return CountedTexts([_open_texts(one, options) for one in sources], options, scratch)
    if options.counting.given or options.encoding != UTF8:
        named = ", ".join(options.counting.given or ["encoding"])
        raise ValueError(f"{named} is for texts: .txt files, JSON lines, or a column that text names")
    tables = [path for path in map(_file, sources) if path is not None and has_suffix(path, TABLES)]
    if options.entries:
        if len(tables) < len(sources):
            raise ValueError(
                "row, column and value name columns of tables; give .csv, .tsv or .parquet files"
            )
        return Triplets([open_table(path) for path in tables], options, scratch)
    if any(isinstance(one, FileSet) and one.kind == "images" for one in sources):
        return _open_images(sources, options)
    if options.row is not None and not tables:
        raise ValueError("row names a column of a table; give .csv, .tsv or .parquet files, or leave it out")
    opened = []
    for number, one in enumerate(sources):
        own = scratch / str(number)
        own.mkdir(exist_ok=True)
        opened.append(_open_one(one, options, own, files))
    return opened[0] if len(opened) == 1 else Stacked(opened, names)


def _is_text(source: Any) -> bool:
    files = isinstance(source, FileSet) and source.kind == "texts"
    return files or (is_location(source) and has_suffix(source, RECORDS + TEXTS))


def _open_images(sources: Sequence[Any], options: ConvertOptions) -> ImageRows:
    """Open images; refuse sources of other kinds beside them."""
    sets = [one for one in sources if isinstance(one, FileSet) and one.kind == "images"]
    found = [ImageFiles(one.folder, one.paths) for one in sets]
    if len(found) < len(sources):
        raise ValueError("images and files of other kinds are given together; convert them one by one")
    return ImageRows(found, options)


def _open_texts(source: Any, options: ConvertOptions) -> Texts:
    """Open texts; refuse a source that has none."""
    if isinstance(source, FileSet) and source.kind == "texts":
        if options.text is not None:
            raise ValueError(
                "text names a field of JSON lines, or a column of a table; leave it out for .txt files"
            )
        return TextFiles(source.folder, source.paths, options.encoding)
    path = (source.path or ObjectPath(source.address)) if is_location(source) else None
    if path is None or not has_suffix(path, RECORDS + TABLES):
        raise ValueError(f"{name_of(source)} holds no texts; give .txt files, .jsonl, .csv, .tsv or .parquet")
    if options.text is None:
        raise ValueError(f"{path} holds records; name the field with the text: text='body', --text body")
    fields = Fields(options.text, options.row)
    if has_suffix(path, ".parquet"):
        return ParquetTexts(path, fields)
    kind = JsonLines if has_suffix(path, RECORDS) else CsvTexts
    return kind(path, fields, options.encoding)


def _open_one(source: Any, options: ConvertOptions, scratch: Path, files: ExitStack) -> RowSource:
    """Open a source of a kind that its suffix tells."""
    if isinstance(source, FileSet):
        return open_10x_parts(source.paths, options, scratch)
    path = _file(source)
    if path is not None and has_suffix(path, MARKET):
        return MatrixMarket(path, options, scratch)
    if options.duplicates != "error":
        raise ValueError(
            f"duplicates is {options.duplicates!r}, and is for MatrixMarket and for tables of entries, with "
            "row, column and value; leave it out"
        )
    if path is not None:
        if has_suffix(path, SUFFIXES):
            return open_hdf5(path, options, scratch, files)
        if has_suffix(path, TABLES):
            return DenseTable(open_table(path), options)
    if isinstance(path, Path) and path.is_file() and not has_suffix(path, FILES):
        raise DataError(
            f"{path} is a file of another kind; give .csv, .tsv, .parquet, .mtx, .h5ad, .h5, .npy, .npz, "
            "Zarr, also in a .zip, .txt, .jsonl or images"
        )
    if options.dataset is not None and is_annotated(source):
        return MatrixRows(formed_within(source, options.dataset, name_of(source)), options, scratch)
    named = None
    if is_location(source) and (path is None or (isinstance(path, Path) and path.is_dir())):
        named = open_zarr_group(source, options, scratch)
    if options.dataset is not None and named is None:
        raise ValueError("dataset is a path inside of an HDF5 file, a Zarr group or an AnnData; leave it out")
    return named or MatrixRows(source, options, scratch)
