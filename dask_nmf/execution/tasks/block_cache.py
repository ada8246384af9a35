"""A per-process cache of decoded blocks of V between passes, bounded in bytes."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from threading import RLock
from typing import Any
from weakref import finalize

import scipy.sparse

from dask_nmf.sources.reader import Box, WrappedReader
from dask_nmf.types import Block

Place = tuple[int, int, int, int]  # first row, one after the last; first column, one after the last


class BlockCache:
    """The blocks that this process caches, by their fits, while these have a `Lease`."""

    def __init__(self) -> None:
        self.blocks: dict[tuple[str, Place], Block] = {}
        self.leases: Counter[str] = Counter()  # the number of leases of each fit
        self.lock = RLock()  # reentrant: garbage collection in a thread that holds it may end a lease

    @property
    def used(self) -> int:
        """Bytes of all cached blocks."""
        return sum(map(block_bytes, list(self.blocks.values())))

    def get(self, fit: str, place: Place) -> Block | None:
        """Return the cached block of a fit at a place, if any."""
        return self.blocks.get((fit, place))

    def put(self, fit: str, place: Place, block: Block, room: int) -> None:
        """Cache a block of a fit that has a lease, if all blocks then take at most ``room`` bytes.

        Blocks of other fits are evicted first if they would take more.
        """
        size = block_bytes(block)
        with self.lock:
            if not self.leases[fit]:
                return
            if self.used + size > room:
                self._drop([key for key in list(self.blocks) if key[0] != fit])
            if self.used + size <= room:
                self.blocks.setdefault((fit, place), block)

    def held(self, fit: str) -> list[Place]:
        """Return the places of the cached blocks of a fit."""
        return [place for of, place in list(self.blocks) if of == fit]

    def grant(self, fit: str) -> None:
        """Begin a lease of a fit."""
        with self.lock:
            self.leases[fit] += 1

    def end(self, fit: str) -> None:
        """End a lease of a fit; the end of the last one evicts its blocks."""
        with self.lock:
            if self.leases[fit] <= 1:
                self.drop(fit)
            else:
                self.leases[fit] -= 1

    def drop(self, fit: str) -> None:
        """End all leases of a fit and evict its blocks."""
        with self.lock:
            self.leases.pop(fit, None)
            self._drop([key for key in list(self.blocks) if key[0] == fit])

    def _drop(self, keys: list[tuple[str, Place]]) -> None:
        for key in keys:
            self.blocks.pop(key, None)


_cache = BlockCache()


def _renew_after_fork() -> None:
    """Replace the cache in a forked process, because a thread of its parent may have held the lock."""
    global _cache
    _cache = BlockCache()


os.register_at_fork(after_in_child=_renew_after_fork)


def cached_blocks(fit: str) -> list[Place]:
    """Return the places of the blocks of a fit that this process caches."""
    return _cache.held(fit)


def evict_fit(fit: str) -> None:
    """Evict the blocks of a fit from the cache of this process, and end its leases."""
    _cache.drop(fit)


def block_bytes(block: Block) -> int:
    """Return the bytes of a block in memory."""
    if scipy.sparse.issparse(block):
        return int(block.data.nbytes + block.indices.nbytes + block.indptr.nbytes)
    return int(block.nbytes)


class Lease:
    """The right of this process to cache blocks of some fits; the end of the last lease of a fit evicts them.

    On a cluster a lease is the result of a task whose future the client of the fit holds. The scheduler, and
    so the worker, releases it when that client is gone, even if it was killed.
    """

    def __init__(self, *fits: str) -> None:
        self.fits = fits
        for fit in fits:
            _cache.grant(fit)
            finalize(self, _end, fit).atexit = False

    def __reduce__(self) -> Any:
        """Pickle a lease as a new one, which belongs to the process that unpickles it."""
        return Lease, self.fits


def _end(fit: str) -> None:
    _cache.end(fit)


@dataclass(frozen=True)
class CachingReader(WrappedReader):
    """A reader that caches its blocks in the process that reads them, up to ``room`` bytes a process.

    A process caches them only while it has a `Lease` of the fit.
    """

    fit: str
    room: int

    def __getitem__(self, index: Box) -> Block:
        rows, columns = (part.indices(size) for part, size in zip(index, self.shape, strict=True))
        place = rows[0], rows[1], columns[0], columns[1]
        block = _cache.get(self.fit, place)
        if block is None:
            block = self.reader[index]
            _cache.put(self.fit, place, block, self.room)
        return block
