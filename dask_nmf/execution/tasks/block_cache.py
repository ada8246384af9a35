"""Blocks of V that stay in the memory of a process between passes, as far as there is room."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from threading import RLock
from typing import Any
from weakref import finalize

import numpy as np
import scipy.sparse

from dask_nmf.sources.reader import Box, Reader, ReaderDefaults
from dask_nmf.types import Block

Place = tuple[int, int, int, int]  # rows and columns: first, and one after the last


class BlockCache:
    """The blocks that this process keeps, by the fit that they are of: see `Lease`."""

    def __init__(self) -> None:
        self.blocks: dict[tuple[str, Place], Block] = {}
        self.leases: Counter[str] = Counter()  # of each fit
        self.lock = RLock()  # a lease may end, by Python's collector, while its thread is in here

    @property
    def used(self) -> int:
        """Bytes of all blocks."""
        return sum(map(block_bytes, list(self.blocks.values())))

    def get(self, fit: str, place: Place) -> Block | None:
        return self.blocks.get((fit, place))

    def put(self, fit: str, place: Place, block: Block, room: int) -> None:
        """Keep a block, if there is room beside those of this fit; those of others make way."""
        size = block_bytes(block)
        with self.lock:
            if not self.leases[fit]:
                return
            if self.used + size > room:
                self._drop([key for key in list(self.blocks) if key[0] != fit])
            if self.used + size <= room:
                self.blocks.setdefault((fit, place), block)

    def held(self, fit: str) -> list[Place]:
        """Which blocks of a fit are here."""
        return [place for of, place in list(self.blocks) if of == fit]

    def grant(self, fit: str) -> None:
        """Begin a lease of a fit."""
        with self.lock:
            self.leases[fit] += 1

    def end(self, fit: str) -> None:
        """End one of its leases; with the last one its blocks go."""
        with self.lock:
            if self.leases[fit] <= 1:
                self.drop(fit)
            else:
                self.leases[fit] -= 1

    def drop(self, fit: str) -> None:
        """End all leases of a fit that is over."""
        with self.lock:
            self.leases.pop(fit, None)
            self._drop([key for key in list(self.blocks) if key[0] == fit])

    def _drop(self, keys: list[tuple[str, Place]]) -> None:
        for key in keys:
            self.blocks.pop(key, None)


_cache = BlockCache()


def _renew_after_fork() -> None:
    """Begin anew in a forked process, as another thread of its parent may have held the lock."""
    global _cache
    _cache = BlockCache()


os.register_at_fork(after_in_child=_renew_after_fork)


def cached_blocks(fit: str) -> list[Place]:
    """Which blocks of a fit this process keeps."""
    return _cache.held(fit)


def evict_fit(fit: str) -> None:
    """Let the blocks of a fit go."""
    _cache.drop(fit)


def block_bytes(block: Block) -> int:
    """Of a block in memory."""
    if scipy.sparse.issparse(block):
        return int(block.data.nbytes + block.indices.nbytes + block.indptr.nbytes)
    return int(block.nbytes)


class Lease:
    """The right of this process to keep blocks of a fit, which go with the last lease.

    On a cluster a lease is the value of a task that the client of the fit wants. The scheduler, and so the
    worker, lets go of it when that client is gone, also when it was killed.
    """

    def __init__(self, *fits: str) -> None:
        self.fits = fits
        for fit in fits:
            _cache.grant(fit)
            finalize(self, _end, fit).atexit = False

    def __reduce__(self) -> Any:
        """A lease that Dask moves is one of the process that it comes to."""
        return Lease, self.fits


def _end(fit: str) -> None:
    _cache.end(fit)


@dataclass(frozen=True)
class CachingReader(ReaderDefaults):
    """A reader whose blocks stay where they were read, while they take less than ``room`` bytes a process.

    They stay where there is a `Lease` of the fit.
    """

    reader: Reader
    fit: str
    room: int

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

    def __getitem__(self, index: Box) -> Block:
        rows, columns = (part.indices(size) for part, size in zip(index, self.shape, strict=True))
        place = rows[0], rows[1], columns[0], columns[1]
        block = _cache.get(self.fit, place)
        if block is None:
            block = self.reader[index]
            _cache.put(self.fit, place, block, self.room)
        return block
