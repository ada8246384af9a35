"""Marks of rows of V, one bit a row."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from dask_nmf.types import Array


def mark_rows(parts: Iterable[Array], size: int) -> Array:
    """Return marks of the rows in ``parts`` among ``size`` rows, packed as by `np.packbits`."""
    marks = np.zeros(-(-size // 8), np.uint8)
    for rows in parts:
        np.bitwise_or.at(marks, rows >> 3, (128 >> (rows & 7)).astype(np.uint8))
    return marks


def unpack(marks: Array, first: int, last: int) -> Array:
    """Return whether each of the rows from first to last is marked, (last - first,), as booleans."""
    start = first // 8
    return np.unpackbits(marks[start : -(-last // 8)])[first - 8 * start :][: last - first].astype(bool)
