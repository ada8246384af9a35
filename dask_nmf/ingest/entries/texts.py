"""`Texts`: ids in a buffer of bytes, with their hashes."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from dask_nmf.kernels.entries.numbering import hash_texts
from dask_nmf.types import Array


class Texts(NamedTuple):
    """Texts in UTF-8, each between two bytes of a buffer; the first three arrays can only be read."""

    data: Array
    starts: Array
    ends: Array
    hashes: Array

    @classmethod
    def between(cls, data: Array, starts: Array, ends: Array, hashes: Array) -> Texts:
        """Return texts; compiled code knows one kind of arrays, and not also those that can be written."""
        for array in (data, starts, ends):
            array.flags.writeable = False
        return cls(data, starts, ends, hashes)

    def indices(self, text: str) -> Array:
        """Return which of the texts are a given one."""
        content = text.encode()
        found = np.flatnonzero(self.ends - self.starts == len(content))
        for place, byte in enumerate(content):
            found = found[self.data[self.starts[found] + place] == byte]
        return found


def texts_of(column: Any) -> tuple[Texts, bool]:
    """Return the texts in a pyarrow array of strings, and whether one is empty."""
    _, edges, data = column.buffers()
    bounds = np.frombuffer(edges, np.int32, len(column) + 1, 4 * column.offset)
    content, hashes = np.frombuffer(data or b"", np.uint8), np.empty(len(column), np.uint64)
    texts = Texts.between(content, bounds[:-1], bounds[1:], hashes)
    return texts, hash_texts(*texts) == 0
