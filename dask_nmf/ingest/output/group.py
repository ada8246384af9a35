"""The group that a conversion writes: X, obs and var, as AnnData and `open_matrix` read them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from itertools import chain
from typing import Any, NamedTuple, cast

import numpy as np
import zarr

from dask_nmf._version import __version__
from dask_nmf.errors import DataError
from dask_nmf.ingest.output.checkpoint import Checkpoint
from dask_nmf.ingest.output.codecs import CODECS, NAMES, Storage
from dask_nmf.ingest.output.damage import files_left
from dask_nmf.ingest.output.growing import GrowingArray
from dask_nmf.ingest.rows import Batch, Columns, RowSource, read_ahead
from dask_nmf.storage.arrays.factors import consolidate
from dask_nmf.storage.locations import Location, ZarrStore
from dask_nmf.wording import counted

logger = logging.getLogger(__name__)

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
    checkpoint: Checkpoint | None = None,
) -> Written:
    """Write V, and the names of its rows and columns, to a new group, or go on with one from a checkpoint.

    Without names their numbers are written, for AnnData needs some; the mark of the group says which it has.

    Parameters
    ----------
    add : writes what else belongs to the group, at the end

    Raises
    ------
    DataError
        If V has no row or no column; whatever the source raises.
    """
    checkpoint = checkpoint or Checkpoint()
    with closing(read_ahead(source.batches(checkpoint.position))) as batches:
        root = zarr.create_group(store, zarr_format=3) if checkpoint.position is None else _begun(store)
        group = _Group(root, storage, checkpoint)
        written = _write_batches(group, source, batches, sources)
    if add is not None:
        add(root)
    consolidate(root)
    return written


class _Group(NamedTuple):
    """A group that is written, how, and how far it is."""

    root: zarr.Group
    storage: Storage
    checkpoint: Checkpoint

    def array(self, path: str, width: tuple[int, ...], chunks: tuple[int, ...], dtype: Any) -> GrowingArray:
        """Return an array of the group that grows, where it was at the checkpoint."""
        parent, _, name = path.rpartition("/")
        group: Any = self.root[parent] if parent else self.root
        array = GrowingArray(group, name, width, chunks, dtype, CODECS[self.storage.codec])
        return self.checkpoint.track(array)

    def subgroup(self, name: str, attributes: dict[str, Any]) -> zarr.Group:
        """Return a group in this one, made unless it is there."""
        if name not in self.root:
            return self.root.create_group(name, attributes=attributes)
        return cast(zarr.Group, self.root[name])


def _begun(store: ZarrStore) -> zarr.Group:
    """Return a group that was begun, without what is written at the end."""
    with files_left():
        root = zarr.open_group(store, mode="r+", use_consolidated=False)
        for name in ("var", "uns"):
            if name in root:
                del root[name]
        return root


def _write_batches(
    group: _Group, source: RowSource, batches: Iterator[Batch], sources: Sequence[str]
) -> Written:
    going_on = group.checkpoint.position is not None
    first = next(batches, None)
    columns = source.columns() if going_on or first is not None else Columns(0)
    if columns.number == 0:
        raise DataError(f"{', '.join(sources)}: V is empty; it must have at least one row and one column")
    if first is not None and not going_on:
        named = {"obs": first.names is not None, "var": columns.names is not None}
        mark: dict[str, Any] = {"version": __version__, "sources": list(sources), "named": named}
        group.root.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0", MARK: mark})
    obs = _index(group, "obs")
    if going_on:
        logger.info(
            "%s were written before the conversion was stopped; it goes on", counted(obs.length, "row")
        )
    write = _write_sparse if source.sparse else _write_dense
    blocks = _with_names(chain([] if first is None else [first], batches), obs, group.checkpoint)
    written = write(group, blocks, columns.number, source.dtype)
    obs.close()
    var = _index(group, "var")
    _append_names(var, _numbers(0, columns.number) if columns.names is None else columns.names, "column")
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


def _with_names(batches: Iterable[Batch], index: GrowingArray, checkpoint: Checkpoint) -> Iterator[Any]:
    """Yield the blocks of batches; the names of their rows, or their numbers, are appended to an index."""
    first = index.length
    for block, names, position in batches:
        last = first + block.shape[0]
        _append_names(index, _numbers(first, last) if names is None else names, "row")
        yield block
        checkpoint.reach(position)
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


def _index(group: _Group, name: str) -> GrowingArray:
    """Return the names of a data frame without columns, to be appended to."""
    attributes: dict[str, Any] = {
        "encoding-type": "dataframe",
        "encoding-version": "0.2.0",
        "_index": "_index",
        "column-order": [],
    }
    group.subgroup(name, attributes)
    return group.array(f"{name}/_index", (), (NAMES,), "string")


def _write_dense(group: _Group, blocks: Iterator[Any], columns: int, dtype: np.dtype[np.generic]) -> Written:
    array = group.array("X", (columns,), group.storage.dense_chunks(columns, dtype.itemsize), dtype)
    for block in blocks:
        array.append(block)
    array.close()
    return Written((array.rows, columns), dtype, None, array.chunks)


def _write_sparse(group: _Group, blocks: Iterator[Any], columns: int, dtype: np.dtype[np.generic]) -> Written:
    if columns > WIDEST:
        raise DataError(f"V has {columns} columns; a sparse V may have {WIDEST} at most")
    chunk = (group.storage.entry_chunk(),)
    attributes: dict[str, Any] = {"encoding-type": "csr_matrix", "encoding-version": "0.1.0"}
    matrix = group.subgroup("X", attributes)
    parts = {"data": dtype, "indices": np.dtype(np.int32), "indptr": np.dtype(np.int64)}
    data, indices, indptr = (group.array(f"X/{name}", (), chunk, kind) for name, kind in parts.items())
    entries = data.length
    if indptr.length == 0:
        indptr.append([0])
    for block in blocks:
        data.append(block.data)
        indices.append(block.indices)
        indptr.append(entries + block.indptr[1:].astype(np.int64))
        entries += block.nnz
    for part in (data, indices, indptr):
        part.close()
    matrix.attrs["shape"] = [indptr.rows - 1, columns]
    return Written((indptr.rows - 1, columns), dtype, entries, data.chunks)
