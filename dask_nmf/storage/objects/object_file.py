"""`ObjectFile`: an object of a store as a file that is read, by ranges that are fetched ahead."""

from __future__ import annotations

import io
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from dask_nmf.errors import DataError
from dask_nmf.storage.objects.requests import Version, fetch_version, version

RANGE = 2**23  # bytes that are fetched at once
AHEAD = 3  # ranges that are fetched while one is read in order
KEPT = 6  # ranges in memory


class ObjectFile(io.RawIOBase):
    """An object that is open for reading. All of it is of one version.

    Parameters
    ----------
    known : its version; None to ask the store

    Ranges that follow each other are fetched ahead, by threads; others are fetched when they are read.

    Raises
    ------
    FileNotFoundError, StoreAccessError, StoreUnavailableError
        If the object cannot be read.
    DataError
        If it is replaced while it is read.
    """

    def __init__(self, url: str, known: Version | None = None) -> None:
        super().__init__()
        self.url = url
        self._version = known or version(url)
        self.size = self._version.size
        self._position = 0
        self._last = -1  # the range that was read last
        self._ranges: OrderedDict[int, Future[memoryview]] = OrderedDict()
        self._pool = ThreadPoolExecutor(AHEAD, "dask-nmf-range")

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the position."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a position and return it."""
        origin = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.size}[whence]
        self._position = max(0, origin + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer, or as much of it as one range has; return the number of bytes."""
        if self._position >= self.size:
            return 0
        number, offset = divmod(self._position, RANGE)
        part = self._range(number)[offset : offset + len(buffer)]
        memoryview(buffer).cast("B")[: len(part)] = part
        self._position += len(part)
        return len(part)

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown(cancel_futures=True)
        self._ranges.clear()
        super().close()

    def _range(self, number: int) -> memoryview:
        """Return a range of the object; fetch those after it if the one before it was read last."""
        in_order = number in (self._last, self._last + 1)
        self._last = number
        for wanted in range(number, number + 1 + AHEAD * in_order):
            if wanted * RANGE < self.size:
                if wanted not in self._ranges:
                    self._ranges[wanted] = self._pool.submit(self._fetch, wanted)
                self._ranges.move_to_end(wanted)
        self._ranges.move_to_end(number)
        while len(self._ranges) > KEPT:
            self._ranges.popitem(last=False)[1].cancel()
        return self._ranges[number].result()

    def _fetch(self, number: int) -> memoryview:
        first = number * RANGE
        whole = self.size <= RANGE  # some servers answer a range of all as if none was asked for
        part = None if whole else (first, min(first + RANGE, self.size))
        content = fetch_version(self.url, part, self._version)
        if content is None:
            raise DataError(f"{self.url} was replaced while it was read; read it again")
        return content
