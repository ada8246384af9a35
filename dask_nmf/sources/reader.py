"""The protocol of a reader: V in panel orientation, read by slices, with the traits that decide how."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import scipy.sparse

from dask_nmf.types import Block

if TYPE_CHECKING:  # workers need it only for a V that is a Dask array
    import dask.array as da

Box = tuple[slice, slice]  # rows and columns, in panel orientation


class Reader(Protocol):
    """V, of which blocks can be read, in panel orientation and in the dtype of the computation.

    A reader travels to workers as a path or a handle, unless it is `in_memory`. A new reader inherits from
    `ReaderDefaults`, has a ``shape``, a ``dtype`` and ``__getitem__``, and says what is different about it.
    The class ``ReaderContract`` in ``tests/support/reader_contract.py`` tests that it fulfils this protocol.
    """

    @property
    def shape(self) -> tuple[int, int]:
        """Return the numbers of rows and of columns, in panel orientation."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Return the dtype of the blocks."""

    @property
    def stored_dtype(self) -> np.dtype[Any] | None:
        """Return the dtype of the values as they are stored; None where they are packed, or it is not known.

        A reader that knows it is a dataclass whose field ``dtype`` may be replaced by it.
        """

    @property
    def ndim(self) -> int:
        """Return the number of dimensions, 2, for which `dask.array.from_array` asks."""

    @property
    def sparse(self) -> bool:
        """Return whether blocks are CSR arrays, and not NumPy arrays."""

    @property
    def in_memory(self) -> bool:
        """Return whether V lies in the memory of this process; other processes are sent its blocks."""

    @property
    def any_box(self) -> bool:
        """Return whether a box of some columns is read without the other columns of its rows.

        A reader that says no is only asked for all columns.
        """

    @property
    def worth_caching(self) -> bool:
        """Return whether a block costs fetching or decoding each time, so that keeping it saves time."""

    @property
    def dask_array(self) -> da.Array | None:
        """Return V as a Dask array, which has tasks of its own; None where any task can read."""

    @property
    def plain_array(self) -> Any | None:
        """Return the array that holds V as the caller has it, if its slices are plain NumPy; else None."""

    def __getitem__(self, index: Box) -> Block:
        """Return a block."""

    def read_all(self, boxes: Sequence[Box]) -> list[Block]:
        """Return several blocks."""


class ReaderDefaults:
    """The traits and methods that most readers have, to inherit from."""

    @property
    def stored_dtype(self) -> np.dtype[Any] | None:
        return None

    @property
    def ndim(self) -> int:
        return 2

    @property
    def sparse(self) -> bool:
        return False

    @property
    def in_memory(self) -> bool:
        return False

    @property
    def any_box(self) -> bool:
        return True

    @property
    def worth_caching(self) -> bool:
        return not self.in_memory

    @property
    def dask_array(self) -> da.Array | None:
        return None

    @property
    def plain_array(self) -> Any | None:
        return None

    def read_all(self: Reader, boxes: Sequence[Box]) -> list[Block]:
        return [self[box] for box in boxes]


@dataclass(frozen=True)
class WrappedReader(ReaderDefaults):
    """A reader of blocks that another one reads, to inherit from; their shape and kind are the same."""

    reader: Reader

    @property
    def shape(self) -> tuple[int, int]:
        return self.reader.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.reader.dtype

    @property
    def sparse(self) -> bool:
        return self.reader.sparse

    @property
    def any_box(self) -> bool:
        return self.reader.any_box


def empty_block(reader: Reader) -> Block:
    """Return a block of the kind that a reader gives, of no rows and no columns."""
    if reader.sparse:
        return scipy.sparse.csr_array((0, 0), dtype=reader.dtype)
    return np.empty((0, 0), reader.dtype)
