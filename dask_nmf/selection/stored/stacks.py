"""Arrays below each other in one stored array, written and read a few chunks at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import zarr

from dask_nmf.storage.arrays import write_once
from dask_nmf.storage.arrays.factors import ZarrFactor
from dask_nmf.storage.arrays.write_once import INTEGER_FILL, Layout
from dask_nmf.types import Array

ROWS = 1024  # rows of a stored array in a chunk, at most
CHUNK = 8 * 2**20  # bytes of a chunk, about, at most: so much more than the arrays is in memory at once

Described = tuple[Sequence[int], str]  # the shape and the dtype of a stored array, as a record has them


def describe(pieces: Sequence[Array]) -> Described:
    """Return the shape and the dtype of arrays below each other, which is as wide as the widest of them."""
    widths = zip(*(piece.shape[1:] for piece in pieces), strict=True)
    return [sum(map(len, pieces)), *map(max, widths)], pieces[0].dtype.name


def layout_of(described: Described) -> Layout:
    """Return how an array is stored. Chunks have whole rows."""
    (rows, *others), name = described
    dtype = np.dtype(name)
    row = max(1, int(np.prod(others, dtype=np.int64)) * dtype.itemsize)
    chunks = (min(rows, ROWS, max(1, CHUNK // row)), *others)
    fill = INTEGER_FILL if dtype.kind == "i" else np.nan
    return Layout((rows, *others), chunks, dtype.name, ("row", "column")[: 1 + len(others)], fill)


def write(group: zarr.Group, path: str, pieces: Sequence[Array]) -> None:
    """Write arrays below each other, a chunk at a time, with columns of zeros beside the narrower ones."""
    layout = layout_of(describe(pieces))
    target = write_once.open_array(group, path, layout)
    for first, rows in _chunks(pieces, layout):
        target[first : first + len(rows)] = rows


def read(group: zarr.Group, path: str, described: Described, first: int, last: int) -> Array:
    """Return some rows of a stored array of a factor.

    Raises
    ------
    InvalidRunError
        If a part of them is lost.
    """
    array = write_once.open_array(group, path, layout_of(described))
    return np.ascontiguousarray(ZarrFactor(array, whole=True).read(first, last))


def _chunks(pieces: Sequence[Array], layout: Layout) -> Iterator[tuple[int, Array]]:
    """Yield the first row of each chunk of arrays below each other, and its rows."""
    ends, rows = np.cumsum([len(piece) for piece in pieces]), max(1, layout.chunks[0])
    number, total = 0, int(ends[-1])
    for first in range(0, total, rows):
        parts, begin = [], first
        while begin < min(first + rows, total):
            above = int(ends[number]) - len(pieces[number])
            part = pieces[number][begin - above : first + rows - above]
            parts.append(_widened(part, layout.shape[1:]))
            begin += len(part)
            number += begin == ends[number]
        yield first, parts[0] if len(parts) == 1 else np.concatenate(parts)


def _widened(part: Array, others: tuple[int, ...]) -> Array:
    """Return an array with zeros behind its other dimensions than the first one, up to these sizes."""
    missing = [(0, size - own) for size, own in zip(others, part.shape[1:], strict=True)]
    return np.pad(part, [(0, 0), *missing]) if part.shape[1:] != others else part
