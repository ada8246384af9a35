"""Blocks of V that stay in the memory of a process between passes, as far as there is room."""

from __future__ import annotations

import os
from dataclasses import dataclass
from threading import Lock
from typing import Any

import numpy as np
import scipy.sparse

from dask_nmf.kernels import Block
from dask_nmf.readers import Reader

Place = tuple[int, int, int, int]  # rows and columns: first, and one after the last


class Shelf:
    """The blocks that this process keeps, by the fit that they are of."""

    def __init__(self) -> None:
        self.blocks: dict[tuple[str, Place], Block] = {}
        self.used = 0  # bytes
        self.lock = Lock()

    def get(self, fit: str, place: Place) -> Block | None:
        return self.blocks.get((fit, place))

    def put(self, fit: str, place: Place, block: Block, room: int) -> None:
        """Keep a block, if there is room beside those of this fit; those of others make way."""
        size = block_bytes(block)
        with self.lock:
            if self.used + size > room:
                self._drop([key for key in self.blocks if key[0] != fit])
            if self.used + size <= room and (fit, place) not in self.blocks:
                self.blocks[fit, place] = block
                self.used += size

    def held(self, fit: str) -> list[Place]:
        """Which blocks of a fit are here."""
        return [place for of, place in list(self.blocks) if of == fit]

    def drop(self, fit: str) -> None:
        """A fit is over."""
        with self.lock:
            self._drop([key for key in self.blocks if key[0] == fit])

    def _drop(self, keys: list[tuple[str, Place]]) -> None:
        for key in keys:
            self.used -= block_bytes(self.blocks.pop(key))


_shelf = Shelf()


def _renew_after_fork() -> None:
    """Begin anew in a forked process, as another thread of its parent may have held the lock."""
    global _shelf
    _shelf = Shelf()


os.register_at_fork(after_in_child=_renew_after_fork)


def held(fit: str) -> list[Place]:
    """Which blocks of a fit this process keeps."""
    return _shelf.held(fit)


def drop(fit: str) -> None:
    """Let the blocks of a fit go."""
    _shelf.drop(fit)


def block_bytes(block: Block) -> int:
    """Of a block in memory."""
    if scipy.sparse.issparse(block):
        return int(block.data.nbytes + block.indices.nbytes + block.indptr.nbytes)
    return int(block.nbytes)


@dataclass(frozen=True)
class Keeping:
    """A reader whose blocks stay where they were read, while they take less than ``room`` bytes a process."""

    reader: Reader
    fit: str
    room: int
    ndim: int = 2

    @property
    def shape(self) -> tuple[int, int]:
        return self.reader.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.reader.dtype

    def __getitem__(self, index: tuple[slice, slice]) -> Block:
        rows, columns = (part.indices(size) for part, size in zip(index, self.shape, strict=True))
        place = rows[0], rows[1], columns[0], columns[1]
        block = _shelf.get(self.fit, place)
        if block is None:
            block = self.reader[index]
            _shelf.put(self.fit, place, block, self.room)
        return block
