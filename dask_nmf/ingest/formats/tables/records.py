"""`Records`: entries of V as tables have them, from columns of pyarrow or from plain lines of text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from dask_nmf.errors import DataError
from dask_nmf.ingest.entries.texts import Texts, texts_of
from dask_nmf.ingest.options import EXACT_DOUBLE
from dask_nmf.ingest.reading import optional_library
from dask_nmf.kernels.entries.fields import COLUMN, NEWLINE, PADDING, ROW, VALUE, split_records
from dask_nmf.types import Array


class Fields(NamedTuple):
    """The places of the columns of a table that hold the ids of rows, those of columns, and values."""

    row: int
    column: int
    value: int

    def roles(self, width: int) -> Array:
        """Return the role that each column of a table has."""
        roles = np.zeros(width, np.uint8)
        roles[list(self)] = ROW, COLUMN, VALUE
        return roles


class Records(NamedTuple):
    """Some entries of V: their values as float64, and the ids of their rows and columns."""

    values: Array
    rows: Texts
    columns: Texts


def records_of(columns: Sequence[Any], place: Callable[[int], str]) -> Records:
    """Return the records in pyarrow arrays of values, of ids of rows, and of ids of columns.

    Parameters
    ----------
    place : returns how a message names a record

    Raises
    ------
    DataError
        If an id is empty.
    """
    ids = []
    for column in columns[1:]:
        texts, empty = texts_of(column)
        if empty or column.null_count:
            check_ids(column, place)
        ids.append(texts)
    return Records(columns[0].to_numpy(zero_copy_only=False), *ids)


def plain_records(text: bytes, delimiter: str, roles: Array) -> Records | None:
    """Return the records in a text of whole lines; None if a line is not plain, and pyarrow must parse them.

    Parameters
    ----------
    roles : of the fields of a line
    """
    if b"\r" in text:
        text = text.replace(b"\r\n", b"\n")
    if b"\r" in text or not _is_utf8(text):
        return None
    data = np.frombuffer(text + bytes(PADDING), np.uint8)
    most = np.count_nonzero(data == int(NEWLINE))
    starts, ends = np.empty((2, 2, most), np.int32)
    hashes, values = np.empty((2, most), np.uint64), np.empty(most)
    if split_records(data, len(text), ord(delimiter), roles, starts, ends, hashes, values) < 0:
        return None
    rows, columns = (Texts.between(data, *parts) for parts in zip(starts, ends, hashes, strict=True))
    return Records(values, rows, columns)


def check_ids(column: Any, place: Callable[[int], str]) -> None:
    """Refuse an empty id in a column of texts."""
    compute = optional_library("pyarrow.compute")
    empty = compute.index(compute.equal(compute.binary_length(column.fill_null("")), 0), True).as_py()
    if empty >= 0:
        raise DataError(f"{place(empty)}: an id is empty; fill it in")


def may_be_rounded(values: Array) -> bool:
    """Return whether there is a value from which on float64 does not hold all integers."""
    return values.size > 0 and bool(np.fmax.reduce(values, axis=None) >= EXACT_DOUBLE)


def _is_utf8(text: bytes) -> bool:
    if text.isascii():
        return True
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True
