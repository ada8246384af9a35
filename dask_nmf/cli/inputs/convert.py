"""The command that converts files of other kinds to Zarr."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from dataclasses import fields
from typing import Any

import click

from dask_nmf.cli.options import Command, committing_options, grouped, log_options
from dask_nmf.cli.process import exit_codes
from dask_nmf.cli.process.streams import print_line


@click.command(
    "convert", cls=Command, epilog=exit_codes.HELP, short_help="Convert files of other kinds to Zarr."
)
@click.argument("sources", metavar="SOURCE...", nargs=-1, required=True)
@click.argument("output", metavar="V.zarr")
@grouped("Input", "--row", metavar="NAME", help="Column of a table with the ids, or else the names, of rows.")
@grouped("Input", "--column", metavar="NAME", help="Column of a table of entries with the ids of columns.")
@grouped("Input", "--value", metavar="NAME", help="Column of a table of entries with the values.")
@grouped(
    "Input",
    "--duplicates",
    type=click.Choice(["error", "sum", "mean", "last"]),
    default="error",
    show_default=True,
    help="Value of an entry that occurs more than once in MatrixMarket or in a table of entries.",
)
@grouped("Input", "--layer", metavar="NAME", help="Layer of AnnData, in place of X.")
@grouped(
    "Input",
    "--dataset",
    metavar="PATH",
    help="Path inside of an HDF5 file or a Zarr group, such as raw/X.  [default: X]",
)
@grouped("Input", "--transpose", is_flag=True, help="Take the columns of SOURCE as the rows of V.")
@grouped(
    "Input",
    "--missing",
    type=click.Choice(["nan"]),
    help="Keep NaN and empty fields, as missing entries.  [default: refuse them]",
)
@grouped("Text", "--text", metavar="FIELD", help="Field of JSON lines, or column of a table, with texts.")
@grouped("Text", "--encoding", metavar="NAME", default="utf-8", show_default=True, help="Encoding of texts.")
@grouped("Text", "--stop-words", type=click.Choice(["english"]), help="Leave out common words.")
@grouped(
    "Text",
    "--ngrams",
    nargs=2,
    type=int,
    metavar="MIN MAX",
    default=(1, 1),
    help="Count runs of MIN to MAX words, too, as one.  [default: 1 1]",
)
@grouped(
    "Text",
    "--hash-columns",
    type=int,
    metavar="N",
    help="Count words by their hashes in N columns without names, in one pass.",
)
@grouped(
    "Steps",
    "--min-count",
    type=int,
    metavar="N",
    help="Drop columns that are > 0 in fewer than N rows.",
)
@grouped(
    "Steps",
    "--max-frequency",
    type=float,
    metavar="SHARE",
    help="Drop columns that are > 0 in a greater share of the rows.",
)
@grouped(
    "Steps",
    "--normalize-rows",
    metavar="median|SUM",
    help="Scale each row to this sum, or to the median of the sums of rows.",
)
@grouped("Steps", "--log1p", is_flag=True, help="Replace each x by ln(1 + x).")
@grouped(
    "Steps", "--top-columns", type=int, metavar="N", help="Keep the N columns that rank first by --top-by."
)
@grouped(
    "Steps",
    "--top-by",
    type=click.Choice(["variance", "seurat", "sum"]),
    default="variance",
    show_default=True,
    help="Rank columns by variance, by Seurat's dispersion within columns of similar mean, or by sum.",
)
@grouped(
    "Steps",
    "--tfidf",
    is_flag=True,
    help="Weight columns by inverse frequency and scale rows to norm 1, as TfidfTransformer does.",
)
@grouped(
    "Steps",
    "--scale-columns",
    type=click.Choice(["std", "max"]),
    help="Divide each column by its standard deviation or its maximum.",
)
@grouped(
    "Steps",
    "--like",
    metavar="V0.zarr",
    help="Take the columns, by name, and the steps of a V that convert wrote.",
)
@grouped(
    "Output",
    "--dtype",
    type=click.Choice(["float32", "float64"]),
    help="Floating-point type of V.  [default: that of --like, or float64 if that is stored, else float32]",
)
@grouped(
    "Output",
    "--chunks",
    metavar="SIZES",
    help="ROWS or ROWS,COLUMNS of a chunk; ENTRIES of one if V is sparse.  [default: 8 MiB; 2^20]",
)
@grouped(
    "Output",
    "--codec",
    type=click.Choice(["lz4", "zstd", "none"]),
    default="lz4",
    show_default=True,
    help="Compression: lz4 is quick to read, zstd is smaller. Chunks have checksums.",
)
@committing_options
@log_options
def command(
    sources: tuple[str, ...],
    output: str,
    layer: str | None,
    dataset: str | None,
    like: str | None,
    chunks: str | None,
    codec: str,
    no_fsync: bool,
    overwrite: bool,
    log_format: str,
    debug: bool,
    **options: Any,
) -> int:
    """Convert files to a Zarr group that every command takes as V, in bounded memory.

    \b
    dask-nmf convert counts.mtx.gz V.zarr
    dask-nmf convert "parts/*.csv" V.zarr --row cell
    dask-nmf convert genes_by_cells.csv V.zarr --row gene --transpose
    dask-nmf convert ratings.csv V.zarr --row user --column item --value rating
    dask-nmf convert texts/ V.zarr --stop-words english --min-count 5 --tfidf

    A SOURCE is a .csv, .tsv or .parquet table, a MatrixMarket .mtx, a folder or .h5 of 10x
    Genomics, an .h5ad, HDF5, .npy, .npz or Zarr matrix, a folder of .txt files, .jsonl, or
    images; text files may be compressed by gzip. The rows of several follow one another. V.zarr
    appears when it is whole; a conversion that was stopped goes on where it was.
    """
    from dask_nmf.cluster.config import without_fsync
    from dask_nmf.display import lines
    from dask_nmf.ingest.conversion import convert_to
    from dask_nmf.ingest.expansion import expand
    from dask_nmf.ingest.options import ConvertOptions, layer_path
    from dask_nmf.ingest.output.codecs import Storage, parse_chunks
    from dask_nmf.ingest.recipe.options import Counting, Steps
    from dask_nmf.storage.locations import locate, located

    steps = Steps(**{field.name: options.pop(field.name) for field in fields(Steps)})
    counting = Counting(**{field.name: options.pop(field.name) for field in fields(Counting)})
    inside = layer_path(layer, dataset)
    wanted = ConvertOptions(**options, dataset=inside, counting=counting, steps=steps, like=located(like))
    storage = Storage(parse_chunks(chunks), codec)
    synced = without_fsync() if no_fsync else nullcontext()
    with synced, lines.logging_to_terminal(log_format, sys.stderr.isatty()):
        converted = convert_to(expand(sources), locate(output), wanted, storage, overwrite)
    print_line(f"{output}: {converted}")
    return 0
