"""The source of the panels of V: tasks read them, or Dask has their blocks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby, pairwise
from typing import Any

import dask.array as da
from distributed import Client

from dask_nmf.cluster.client import active_client, assign_contiguous
from dask_nmf.cluster.watch import wait_for_workers
from dask_nmf.errors import WorkersLost
from dask_nmf.execution.graphs.reduction import Panels, heights
from dask_nmf.execution.tasks.panel_reader import PanelReader
from dask_nmf.kernels.blocks.masking import EVERYTHING, EntryMask
from dask_nmf.sources.matrix import Matrix
from dask_nmf.sources.reader import Reader, empty_block

ReaderOf = Callable[[Matrix], Reader]


def open_panels(
    matrix: Matrix,
    edges: Sequence[int],
    weights: Matrix | None = None,
    mask: EntryMask = EVERYTHING,
    reader_of: ReaderOf = lambda matrix: matrix.reader,
) -> Panels:
    """Return V in panels; a V in memory is sent to the workers of the active cluster, if there is one.

    Parameters
    ----------
    edges : of the panels: 0, where each of the others begins, and the number of rows.
    weights : the weights of the entries of V, if they differ.
    mask : decides which entries count, and with which weight.
    reader_of : returns the reader of a matrix that tasks use.
    """
    parts = [matrix] if weights is None or mask.uses_whole_blocks else [matrix, weights]
    arrays = [_blocks_of(part, edges) for part in parts]
    readers = (reader_of(part) if array is None else None for part, array in zip(parts, arrays, strict=True))
    rows = tuple(slice(first, last) for first, last in pairwise(edges))
    reader = PanelReader(rows, tuple(readers), mask)
    return Panels(reader, tuple(array for array in arrays if array is not None))


def _blocks_of(matrix: Matrix, edges: Sequence[int]) -> da.Array | None:
    """Return a matrix as a Dask array with one block a panel, (rows, columns); None if tasks can read it."""
    reader, client = matrix.reader, active_client()
    if reader.dask_array is not None:
        return reader.dask_array.rechunk((heights(edges), (reader.shape[1],)))
    return _scattered(client, reader, edges) if reader.in_memory and client is not None else None


def _scattered(client: Client, reader: Reader, edges: Sequence[int]) -> da.Array:
    """Return V from the memory of this process as a Dask array of panels that the workers have got."""
    width = slice(0, reader.shape[1])
    blocks = [reader[slice(a, b), width] for a, b in pairwise(edges)]
    wait_for_workers()
    runs = groupby(range(len(blocks)), assign_contiguous(len(blocks), client.nthreads()).__getitem__)
    futures: list[Any] = []
    try:
        for address, run in runs:
            futures += client.scatter([blocks[i] for i in run], workers=[address], hash=False)
    except (OSError, KeyError) as error:  # how `distributed` fails when a worker dies under it
        raise WorkersLost(str(error)) from error
    return da.concatenate(
        [
            da.from_delayed(future, block.shape, dtype=reader.dtype, meta=empty_block(reader))
            for future, block in zip(futures, blocks, strict=True)
        ]
    )
