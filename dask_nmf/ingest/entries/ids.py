"""`Ids`: the texts that name rows or columns, numbered in the order in which they first appear."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from dask_nmf.errors import DataError
from dask_nmf.ingest.entries.texts import Texts, texts_of
from dask_nmf.ingest.reading import optional_library
from dask_nmf.kernels.entries.numbering import (
    LOWER,
    add_texts,
    copy_texts,
    empty_table,
    find_texts,
    move_slots,
)
from dask_nmf.types import Array

AT_ONCE = 2**18  # texts that are numbered at once
SLOTS = 2**16  # of the first table
LONGER = 1.25  # the factor by which arrays grow, which the system mostly does without a copy
MOST = 2**32 - 2**20  # words of records, whose places have 32 bits


class Ids:
    """Texts, numbered from 0 in the order in which they first appear.

    In memory each takes its bytes, rounded up to words of 8, and about 35 bytes more.
    """

    def __init__(self) -> None:
        self._table = empty_table(SLOTS)
        self._records, self._end = np.zeros(SLOTS, np.uint64), 0
        self._places, self._size = np.zeros(SLOTS, np.uint64), 0

    def __len__(self) -> int:
        return self._size

    def encode(self, texts: Texts) -> Array:
        """Return the numbers of texts."""
        codes = np.empty(len(texts.hashes), np.int32)
        if find_texts(*texts, self._table, self._records, codes):
            unknown = codes < 0
            self._make_room(int(unknown.sum()), int((texts.ends - texts.starts)[unknown].sum()))
            known = self._table, self._records, self._places
            self._end, self._size = add_texts(*texts, *known, self._end, self._size, codes)
        return codes

    def texts(self, first: int = 0, last: int | None = None) -> list[str]:
        """Return the texts with these numbers."""
        listed: list[str] = self._array(first, last).to_pylist()
        return listed

    def close(self) -> None:
        """Free what only `encode` needs, once all texts are known."""
        self._table = empty_table(0)
        self._records.resize(self._end, refcheck=False)
        self._places.resize(self._size, refcheck=False)

    def save(self, file: Path, first: int) -> None:
        """Write the texts from a number on to a file."""
        _, edges, data = self._array(first, None).buffers()
        np.savez(file, edges=np.frombuffer(edges, np.int64), data=np.frombuffer(data, np.uint8))

    def load(self, file: Path) -> None:
        """Number the texts in a file that `save` wrote."""
        arrow = optional_library("pyarrow")
        with np.load(file) as saved:
            buffers = [arrow.py_buffer(saved["edges"]), arrow.py_buffer(saved["data"])]
        texts = arrow.LargeStringArray.from_buffers(buffers[0].size // 8 - 1, *buffers)
        for begin in range(0, len(texts), AT_ONCE):
            self.encode(texts_of(texts[begin : begin + AT_ONCE].cast(arrow.string()))[0])

    def _array(self, first: int, last: int | None) -> Any:
        """Return the texts with these numbers as a pyarrow array."""
        arrow = optional_library("pyarrow")
        places = self._places[first : self._size if last is None else min(last, self._size)]
        edges = np.zeros(len(places) + 1, np.int64)
        data = np.empty(int((self._records[places] & LOWER).sum()), np.uint8)
        copy_texts(self._records, places, edges, data)
        buffers = [arrow.py_buffer(edges), arrow.py_buffer(data)]
        return arrow.LargeStringArray.from_buffers(len(places), *buffers)

    def _make_room(self, texts: int, size: int) -> None:
        """Make room for a number of texts of at most ``size`` bytes in all."""
        words = self._end + 2 * texts + size // 8
        if words > MOST:
            raise DataError(
                f"these are more ids than can be numbered, which are {8 * MOST // 10**9} GB of text; "
                "convert a part of the records"
            )
        slots = len(self._table)
        while 4 * (self._size + texts) > 3 * slots:
            slots *= 2
        if slots > len(self._table):
            larger = empty_table(slots)
            move_slots(self._table, larger)
            self._table = larger
        self._places = _long_enough(self._places, self._size + texts)
        self._records = _long_enough(self._records, words)


def _long_enough(array: Array, length: int) -> Array:
    """Return an array with room for a number of items."""
    if length > len(array):
        array.resize(int(LONGER * length), refcheck=False)
    return array
