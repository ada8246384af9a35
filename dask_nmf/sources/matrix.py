"""`Matrix`: V, opened but not read."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse
from dask.sizeof import sizeof

from dask_nmf.cluster.client import active_client
from dask_nmf.errors import InvalidEntryError
from dask_nmf.planning.worker_memory import Layout
from dask_nmf.sources.checks import canonical_csr
from dask_nmf.sources.decoding.conversion import masked_to_nan, to_arrays
from dask_nmf.sources.labels.names import NO_LABELS, Labels
from dask_nmf.sources.reader import Reader
from dask_nmf.storage.locations import Location
from dask_nmf.types import Block, Orientation


@sizeof.register(scipy.sparse.csr_array)
@sizeof.register(scipy.sparse.csc_array)
def _compressed_bytes(array: Any) -> int:
    """Return the bytes of a CSR or CSC array; Dask counts 56, and would neither spill nor move it well."""
    return int(array.data.nbytes + array.indices.nbytes + array.indptr.nbytes)


@dataclass(frozen=True)
class Matrix:
    """V, opened but not read.

    The ``layout`` and the ``reader`` are in panel orientation: the rows of panels
    are the rows of V or, if its ``orientation`` is by columns, the columns of V.
    """

    shape: tuple[int, int]  # (m, n), of V as the user has it
    dtype: np.dtype[Any]  # of the panels
    source: str  # the place of V, or the library that it is an object of
    orientation: Orientation
    layout: Layout
    reader: Reader
    listing: str | None = None  # a digest of files and when they were written; None where that is not known
    location: Location | None = None  # where V lies, if it is on a disk or in an object store
    labels: Labels = NO_LABELS  # the names of the rows and columns of V, as the user has it
    recipe: str | None = None  # the digest of the recipe by which a conversion made V; None for any other V
    image_shape: tuple[int, ...] | None = None  # of the images in the rows of V, if a conversion noted it

    @property
    def name(self) -> str:
        """Return what messages about rows call the matrix: its place, or V if it lies in no file or store."""
        return "V" if self.location is None else self.source

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
    def bytes_here(self) -> int:
        """Return the bytes of a V in the memory of this process; 0 if its panels are read or cast."""
        return self.bytes if self.in_memory and not self.layout.needs_cast else 0

    @property
    def workers_can_read(self) -> bool:
        """Return whether a task can read V itself, in whatever process it runs."""
        return self.reader.dask_array is None and not (self.in_memory and active_client() is not None)

    @property
    def worth_caching(self) -> bool:
        """Return whether a panel costs reading and decoding each time, and more memory if it stays."""
        return self.reader.worth_caching

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
