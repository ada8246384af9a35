"""`convert`: files of other kinds become a Zarr group, which appears when it is whole."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, cast

import zarr

from dask_nmf.ingest.expansion import FileSet, expand, group_of, name_of
from dask_nmf.ingest.options import ConvertOptions, layer_path
from dask_nmf.ingest.output.checkpoint import Checkpoint
from dask_nmf.ingest.output.codecs import Storage, parse_chunks
from dask_nmf.ingest.output.damage import Damaged
from dask_nmf.ingest.output.group import Written, is_converted, write_group
from dask_nmf.ingest.output.unfinished import Conversion
from dask_nmf.ingest.recipe.options import Counting, Steps
from dask_nmf.ingest.recipe.preparation import prepare
from dask_nmf.ingest.recipe.stored import write_recipe
from dask_nmf.storage import locations
from dask_nmf.storage.locations import Location, ZarrStore, is_location, located
from dask_nmf.wording import counted

logger = logging.getLogger(__name__)


class Converted(NamedTuple):
    """The result of a conversion: where X was written, and how.

    Attributes
    ----------
    entries : that a sparse X stores; None if X is dense
    chunks : of X, or of its entries if it is sparse

    Examples
    --------
    >>> from pathlib import Path
    >>> from dask_nmf.ingest import convert
    >>> length = Path("V.csv").write_text("name,first,second\\na,1,2\\nb,3,4\\n")
    >>> print(convert("V.csv", "V.zarr", row="name"))
    2 x 2, dense, float32, chunks of 2 x 2, codec lz4, with checksums
    """

    address: str
    shape: tuple[int, int]
    dtype: str
    entries: int | None
    chunks: tuple[int, ...]
    codec: str

    def __str__(self) -> str:
        """Return one line for people."""
        kind = "dense" if self.entries is None else f"sparse with {counted(self.entries, 'entry')}"
        cut = " x ".join(map(str, self.chunks))
        return (
            f"{self.shape[0]} x {self.shape[1]}, {kind}, {self.dtype}, chunks of {cut}, codec {self.codec}, "
            "with checksums"
        )


def convert(
    source: Any,
    destination: str | Path,
    *,
    row: str | None = None,
    column: str | None = None,
    value: str | None = None,
    duplicates: str = "error",
    missing: str | None = None,
    dtype: str | None = None,
    dataset: str | None = None,
    layer: str | None = None,
    transpose: bool = False,
    text: str | None = None,
    encoding: str = "utf-8",
    stop_words: str | None = None,
    ngrams: tuple[int, int] = (1, 1),
    hash_columns: int | None = None,
    min_count: int | None = None,
    max_frequency: float | None = None,
    normalize_rows: float | str | None = None,
    log1p: bool = False,
    top_columns: int | None = None,
    top_by: str = "variance",
    tfidf: bool = False,
    scale_columns: str | None = None,
    like: str | Path | None = None,
    chunks: int | tuple[int, ...] | str | None = None,
    codec: str = "lz4",
    overwrite: bool = False,
) -> Converted:
    """Write V from files of other kinds to a Zarr group in AnnData's layout, in bounded memory.

    Parameters
    ----------
    source : a path, or several whose rows follow one another; names of files may have wildcards. Paths are
        of ``.csv``, ``.tsv`` and ``.parquet`` tables, MatrixMarket's ``.mtx``, folders and ``.h5`` files of
        10x Genomics, ``.h5ad``, HDF5, what `open_matrix` takes, folders of ``.txt`` files or images, and
        ``.jsonl``; of text files also compressed by gzip.
        Whatever else `nmf` takes is taken too, with the names of rows and columns that it has: arrays, tables
        of pandas, polars, pyarrow and Dask, a `DataArray` of xarray, an AnnData.
    destination : path or URL of the group: ``X`` is V, ``obs/_index`` and ``var/_index`` are the names of its
        rows and columns, if it has names.
    row, column, value : names of the columns of a table whose records are entries of V. ``row`` alone is the
        column with the names of rows. Rows and columns stand in the order in which their ids first appear.
    duplicates : the value of an entry that is there more than once in MatrixMarket or tables of entries:
        "error", "sum", "mean" or "last". In other sparse matrices it is the sum, as in SciPy.
    missing : "nan" to keep NaN and empty fields as missing entries.
    dtype : "float32" or "float64"; by default that of ``like``, or "float64" where the source stores that,
        else "float32".
    dataset : path inside of an HDF5 file, a Zarr group or an AnnData, such as "raw/X"; by default "X".
    layer : name of a layer of AnnData, in a file or in Python: "counts" is the dataset "layers/counts".
    transpose : whether the columns of the source are the rows of V, as of tables of features by samples.
        Names go with them; ``row``, ``column`` and ``value`` still name columns of the source.
    text : field of JSON lines, or column of a table, with texts whose words are counted; ``row`` is then the
        field with the names of rows. ``.txt`` files are texts without it.
    encoding : of texts, by a name that Python knows.
    stop_words, ngrams, hash_columns : how words are counted; see `Counting`.
    min_count, max_frequency, normalize_rows, log1p, top_columns, top_by, tfidf, scale_columns : the steps
        from the values of the source to V, in this order; see `Steps`. They are recorded with V.
    like : path or URL of a V that `convert` wrote: its columns are taken, by their names, and its steps.
    chunks : rows, or rows and columns, of a chunk; entries of a chunk of a sparse V. By default 8 MiB or 2²⁰.
    codec : "lz4", "zstd" or "none", each with a CRC-32C of each chunk.
    overwrite : whether to replace an earlier conversion.

    Returns
    -------
    Converted, which says what was written: shape, type, chunks.

    Raises
    ------
    DataError
        If a source cannot be read or V is not a non-negative matrix; it names the line or the record.
    FileNotFoundError, FileExistsError, ValueError, RunLocked
        If there is no source; if there is a destination; for options that do not fit; if another process
        writes to the destination.

    Examples
    --------
    >>> from pathlib import Path
    >>> from dask_nmf.ingest import convert
    >>> written = Path("ratings.csv").write_text("user,item,rating\\nann,tea,5\\nbob,rice,2\\n")
    >>> convert("ratings.csv", "ratings.zarr", row="user", column="item", value="rating").shape
    (2, 2)
    """
    steps = Steps(min_count, max_frequency, normalize_rows, log1p, top_columns, top_by, tfidf, scale_columns)
    inside = layer_path(layer, dataset)
    reading = ConvertOptions(dtype, missing, row, column, value, duplicates, inside, text, encoding)
    counting = Counting(stop_words, ngrams, hash_columns)
    more = {"counting": counting, "steps": steps, "like": located(like), "transpose": transpose}
    options = replace(reading, **more)
    storage = Storage(parse_chunks(chunks), codec)
    return convert_to(expand(source), locations.locate(destination), options, storage, overwrite)


def convert_to(
    sources: Sequence[Any], output: Location, options: ConvertOptions, storage: Storage, overwrite: bool
) -> Converted:
    """Write V from sources that `expand` gave to a location; see `convert`."""
    if options.like is not None:
        options = replace(options, like=group_of(options.like))
    for source in sources:
        place = source.place if isinstance(source, FileSet) else source
        locations.check_apart(output, source=place if is_location(place) else None, like=options.like)
    check = partial(locations.check_replaceable, output, overwrite, _is_ours, "dask-nmf convert")
    names = [name_of(source) for source in sources]
    read = [*chain(*(one.paths if isinstance(one, FileSet) else [one] for one in sources))]
    folders = [one.folder for one in sources if isinstance(one, FileSet)]  # which names of rows depend on
    like = [] if options.like is None else [options.like]
    conversion = Conversion([*read, *like], options, storage, folders)
    with (
        output.atomic_output(check, conversion.can_continue) as store,
        _scratch(store, conversion) as scratch,
    ):
        write = partial(_write, store, scratch, sources, names, options, storage)
        try:
            written = write()
        except Damaged as damage:
            logger.info("the files of a conversion that was stopped are damaged (%s); it begins anew", damage)
            conversion.begin_anew(Path(cast(str, store)))
            written = write()
    shape, dtype, entries, chunks = written
    converted = Converted(output.address, shape, str(dtype), entries, chunks, storage.codec)
    numbers = {"event": "done", **converted._asdict()}
    logger.info("%s: %s", output.name, converted, extra={"nmf": numbers})
    return converted


def _write(
    store: ZarrStore,
    scratch: Path,
    sources: Sequence[Any],
    names: Sequence[str],
    options: ConvertOptions,
    storage: Storage,
) -> Written:
    """Write V to a store, after what a conversion that was stopped has written."""
    with ExitStack() as files:
        source, recipe = prepare(sources, names, options, scratch, files)
        checkpoint = Checkpoint(scratch, Path(store)) if isinstance(store, str) else None
        add = partial(write_recipe, recipe=recipe)
        return write_group(store, source, storage, names, add, checkpoint)


@contextmanager
def _scratch(store: ZarrStore, conversion: Conversion) -> Iterator[Path]:
    """Yield a folder for temporary files: inside of an output on a disk, until that is whole."""
    if isinstance(store, str):
        yield conversion.begin(Path(store))
        conversion.end(Path(store))
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def _is_ours(place: Location) -> bool:
    return is_converted(zarr.open_group(place.store(), mode="r"))
