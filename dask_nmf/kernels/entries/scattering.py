"""Counting sorts of the entries of V, which are stable and scatter them in one pass; repeated entries."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dask_nmf.kernels.compiled import compiled
from dask_nmf.types import Array

Numbers = NDArray[np.int64]


@compiled()
def count_keys(keys: Array, counts: Numbers) -> None:
    """Add to the counts how many keys are 0, 1 and so on."""
    for i in range(len(keys)):
        counts[np.uint64(keys[i])] += 1


@compiled()
def places_of(counts: Numbers) -> None:
    """Replace counts by where the first of each key goes."""
    total = 0
    for key in range(len(counts)):
        counts[key], total = total, total + counts[key]


@compiled()
def scatter_entries(
    keys: Array, places: Numbers, indices: Array, values: Array, out_indices: Array, out_values: Array
) -> None:
    """Write indices and values to the places of their keys, which move on by one for each."""
    for i in range(len(keys)):
        key = np.uint64(keys[i])
        place = np.uint64(places[key])
        places[key] += 1
        out_indices[place] = indices[i]
        out_values[place] = values[i]


@compiled()
def scatter_columns(
    ends: Numbers, rows: Array, first: Any, places: Numbers, values: Array, out_columns: Array,
    out_values: Array,
) -> None:  # fmt: skip
    """Write entries that are sorted by column to the places of their rows.

    Parameters
    ----------
    ends : where each column ends
    """
    i = np.uint64(0)
    for column in range(len(ends)):
        while i < np.uint64(ends[column]):
            row = np.uint64(rows[i] - first)
            place = np.uint64(places[row])
            places[row] += 1
            out_columns[place] = np.int32(column)
            out_values[place] = values[i]
            i += np.uint64(1)


@compiled()
def first_repeated(columns: Array, indptr: Numbers) -> tuple[int, int]:
    """Return the row and the place of the first entry of a CSR block that repeats a cell, or -1 for both."""
    for row in range(len(indptr) - 1):
        for i in range(indptr[row] + 1, indptr[row + 1]):
            if columns[i] == columns[i - 1]:
                return row, i
    return -1, -1


@compiled()
def keep_last(columns: Array, values: Array, indptr: Numbers) -> int:
    """Move the last entry of each cell of a CSR block to the front of its arrays; return their number."""
    kept, begin = 0, indptr[0]
    for row in range(len(indptr) - 1):
        end = indptr[row + 1]
        for i in range(begin, end):
            if i + 1 == end or columns[i + 1] != columns[i]:
                columns[kept], values[kept] = columns[i], values[i]
                kept += 1
        indptr[row + 1], begin = kept, end
    return kept
