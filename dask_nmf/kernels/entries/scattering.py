"""Counting sorts of the entries of V, which are stable: each scatters them to their places in one pass."""

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
