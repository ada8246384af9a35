"""The group that a conversion writes: X, obs and var, as AnnData and `open_matrix` read them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import zarr

from dask_nmf._version import __version__
from dask_nmf.errors import DataError
from dask_nmf.ingest.output.codecs import CODECS, NAMES, Storage
from dask_nmf.ingest.output.growing import GrowingArray
from dask_nmf.ingest.rows import Batch, Columns, RowSource, read_ahead
from dask_nmf.storage.arrays.factors import consolidate
from dask_nmf.storage.locations import Location, ZarrStore

MARK = "dask_nmf_convert"  # the attribute of a group that a conversion made
WIDEST = 2**31  # columns of a sparse X, whose indices are int32


class Written(NamedTuple):
    """X as it was written."""

    shape: tuple[int, int]
    dtype: np.dtype[np.generic]
    entries: int | None  # that a sparse X stores; None if X is dense
    chunks: tuple[int, ...]


def write_group(
    store: ZarrStore,
    source: RowSource,
    storage: Storage,
    sources: Sequence[str],
    add: Callable[[zarr.Group], None] | None = None,
) -> Written:
    """Write V, and the names of its rows and columns, to a new group.

    Without names their numbers are written, for AnnData needs some; the mark of the group says which it has.

    Parameters
    ----------
    add : writes what else belongs to the group, at the end

    Raises
    ------
    DataError
        If V has no row or no column; whatever the source raises.
    """
    with closing(read_ahead(source.batches())) as batches:
        root = zarr.create_group(store, zarr_format=3)
        written = _write_batches(root, source, batches, storage, sources)
    if add is not None:
        add(root)
    consolidate(root)
    return written


def _write_batches(
    root: zarr.Group, source: RowSource, batches: Iterator[Batch], storage: Storage, sources: Sequence[str]
) -> Written:
    first = next(batches, None)
    columns = source.columns() if first is not None else Columns(0)
    if first is None or columns.number == 0:
        raise DataError(f"{', '.join(sources)}: V is empty; it must have at least one row and one column")
    named = {"obs": first.names is not None, "var": columns.names is not None}
    mark: dict[str, Any] = {"version": __version__, "sources": list(sources), "named": named}
    root.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0", MARK: mark})
    obs, var = (_index(root, name, storage) for name in ("obs", "var"))
    write = _write_sparse if source.sparse else _write_dense
    blocks = _with_names(chain([first], batches), obs)
    written = write(root, blocks, columns.number, storage, source.dtype)
    _append_names(var, _numbers(0, columns.number) if columns.names is None else columns.names, "column")
    obs.close()
    var.close()
    return written


def open_group(location: Location) -> zarr.Group | None:
    """Open the group at a location; None if there is none."""
    try:
        return zarr.open_group(location.store(), mode="r", use_consolidated=False)
    except (FileNotFoundError, ValueError, TypeError, NotADirectoryError, zarr.errors.BaseZarrError):
        return None  # an array, or what `open_matrix` takes or refuses


def is_converted(group: Any) -> bool:
    """Return whether a conversion made a group."""
    return MARK in group.attrs


def has_names(group: Any, axis: str) -> bool:
    """Return whether the rows ("obs") or columns ("var") of a converted V have names of their own."""
    return bool(group.attrs[MARK]["named"][axis])


def _with_names(batches: Iterable[Batch], index: GrowingArray) -> Iterator[Any]:
    """Yield the blocks of batches; the names of their rows, or their numbers, are appended to an index."""
    first = 0
    for block, names in batches:
        last = first + block.shape[0]
        _append_names(index, _numbers(first, last) if names is None else names, "row")
        yield block
        first = last


def _append_names(index: GrowingArray, names: Any, dimension: str) -> None:
    """Append names; refuse one that UTF-8 cannot hold, such as that of a file in another encoding."""
    try:
        index.append(names)
    except UnicodeEncodeError as error:
        raise DataError(
            f"the name {error.object!a} of a {dimension} is not UTF-8; rename it, or its file"
        ) from None


def _numbers(first: int, last: int) -> Any:
    """Return the names of rows or columns that have none, as AnnData gives them."""
    return np.arange(first, last).astype(np.dtypes.StringDType())


def _index(root: zarr.Group, name: str, storage: Storage) -> GrowingArray:
    """Return the names of a data frame without columns, to be appended to."""
    attributes: dict[str, Any] = {
        "encoding-type": "dataframe",
        "encoding-version": "0.2.0",
        "_index": "_index",
        "column-order": [],
    }
    frame = root.create_group(name, attributes=attributes)
    return GrowingArray(frame, "_index", (), (NAMES,), "string", CODECS[storage.codec])


def _write_dense(
    root: zarr.Group, blocks: Iterator[Any], columns: int, storage: Storage, dtype: np.dtype[np.generic]
) -> Written:
    chunks = storage.dense_chunks(columns, dtype.itemsize)
    array = GrowingArray(root, "X", (columns,), chunks, dtype, CODECS[storage.codec])
    for block in blocks:
        array.append(block)
    array.close()
    return Written((array.rows, columns), dtype, None, array.chunks)


def _write_sparse(
    root: zarr.Group, blocks: Iterator[Any], columns: int, storage: Storage, dtype: np.dtype[np.generic]
) -> Written:
    if columns > WIDEST:
        raise DataError(f"V has {columns} columns; a sparse V may have {WIDEST} at most")
    chunk = (storage.entry_chunk(),)
    attributes: dict[str, Any] = {"encoding-type": "csr_matrix", "encoding-version": "0.1.0"}
    group = root.create_group("X", attributes=attributes)
    parts = {"data": dtype, "indices": np.dtype(np.int32), "indptr": np.dtype(np.int64)}
    data, indices, indptr = (
        GrowingArray(group, name, (), chunk, kind, CODECS[storage.codec]) for name, kind in parts.items()
    )
    entries = 0
    indptr.append([0])
    for block in blocks:
        data.append(block.data)
        indices.append(block.indices)
        indptr.append(entries + block.indptr[1:].astype(np.int64))
        entries += block.nnz
    for part in (data, indices, indptr):
        part.close()
    group.attrs["shape"] = [indptr.rows - 1, columns]
    return Written((indptr.rows - 1, columns), dtype, entries, data.chunks)
