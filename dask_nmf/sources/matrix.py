"""`Matrix`: V, opened but not read, which gives row panels."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Any

import dask.array as da
import numpy as np
import scipy.sparse
from dask.sizeof import sizeof
from distributed import Client

from dask_nmf.cluster.client import active_client, assign_contiguous
from dask_nmf.cluster.watch import wait_for_workers
from dask_nmf.errors import InvalidEntryError, WorkersLost
from dask_nmf.planning.worker_memory import Layout
from dask_nmf.sources.checks import canonical_csr
from dask_nmf.sources.decoding.conversion import masked_to_nan, to_arrays
from dask_nmf.sources.reader import Reader, empty_block
from dask_nmf.storage.locations import Location
from dask_nmf.types import Block, Orientation

Wrapper = Callable[[Reader], Reader]


@sizeof.register(scipy.sparse.csr_array)
@sizeof.register(scipy.sparse.csc_array)
def _compressed_bytes(array: Any) -> int:
    """Return the bytes of a CSR or CSC array; Dask counts 56, and would neither spill nor move it well."""
    return int(array.data.nbytes + array.indices.nbytes + array.indptr.nbytes)


@dataclass(frozen=True)
class Matrix:
    """V, opened but not read.

    The ``layout``, the ``reader``, the `panels` and their edges are in panel orientation: the rows of the
    panels are the rows of V or, if its ``orientation`` is by columns, the columns of V.
    """

    shape: tuple[int, int]  # (m, n), of V as the user has it
    dtype: np.dtype[Any]  # of the panels
    source: str  # how messages call the place of V
    orientation: Orientation
    layout: Layout
    reader: Reader
    listing: str | None = None  # a digest of files and when they were written; None where that is not known
    location: Location | None = None  # where V lies, if it is on a disk or in an object store

    @property
    def sparse(self) -> bool:
        """Return whether the panels are CSR."""
        return self.reader.sparse

    @property
    def in_memory(self) -> bool:
        """Return whether V lies in the memory of this process."""
        return self.reader.in_memory

    @property
    def bytes(self) -> int:
        """Return the bytes that all panels take in memory."""
        return self.layout.panel_bytes(0, self.layout.rows)

    @property
    def workers_can_read(self) -> bool:
        """Return whether a task can read V itself, in whatever process it runs."""
        return self.reader.dask_chunks is None and not (self.in_memory and active_client() is not None)

    @property
    def worth_caching(self) -> bool:
        """Return whether a panel costs reading and decoding each time, and more memory if it stays."""
        return self.reader.worth_caching

    def panels(self, edges: Sequence[int], wrap: Wrapper | None = None) -> da.Array:
        """Return V as a Dask array with one block a panel, (rows, columns) in panel orientation.

        Parameters
        ----------
        edges : of the panels: 0, where each of the others begins, and the number of rows.
        wrap : returns the reader that tasks use in place of the one of this matrix.
        """
        client = active_client()
        if self.reader.in_memory and client is not None:
            return _scattered(client, self.reader, edges)
        reader = self.reader if wrap is None else wrap(self.reader)
        return reader.lazy([b - a for a, b in pairwise(edges)], [self.layout.columns])

    def check_entries(self, invalid: InvalidEntryError | None) -> None:
        """Raise the error about an entry that was found in panel orientation, with its place in V."""
        if invalid is not None:
            raise invalid.turned(self.orientation)

    def fingerprint(self) -> str:
        """Return a hash of the shape, the dtype and three rows, which differs if a worker sees another V.

        The rows are the first, the middle and the last in panel orientation.
        """
        rows = sorted({0, self.layout.rows // 2, self.layout.rows - 1})
        everything = slice(0, self.layout.columns)
        blocks = self.reader.read_all([(slice(r, r + 1), everything) for r in rows])
        return digest(self.shape, self.dtype, *(as_block(block, self.dtype) for block in blocks))


def digest(*parts: Any) -> str:
    """Return a hash of arrays, and of other objects by their ``repr``, in 32 hexadecimal digits."""
    state = hashlib.sha256()
    for part in parts:
        if scipy.sparse.issparse(part):
            state.update(digest(part.shape, part.indices, part.data).encode())
        elif isinstance(part, np.ndarray):
            state.update(f"{part.shape} {part.dtype.str}".encode() + np.ascontiguousarray(part).tobytes())
        else:
            state.update(repr(part).encode())
    return state.hexdigest()[:32]


def as_block(block: Any, dtype: np.dtype[Any]) -> Block:
    """Return a block of a user's Dask array, cast, as a NumPy or CSR array; NaN where it is masked."""
    array = to_arrays(block)
    if scipy.sparse.issparse(array):
        return canonical_csr(array, dtype).astype(dtype, copy=False)
    return masked_to_nan(array, dtype).astype(dtype, copy=False)


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
