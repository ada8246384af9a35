"""Files that sources are read from, on a disk or in an object store, plain or compressed by gzip."""

from __future__ import annotations

import io
import os
import zlib
from dataclasses import dataclass
from fnmatch import fnmatchcase
from gzip import BadGzipFile
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, cast
from urllib.parse import quote

from dask_nmf.storage.locations import Location
from dask_nmf.storage.objects.object_file import ObjectFile
from dask_nmf.storage.objects.requests import names_within, stat

BUFFER = 2**18  # bytes that are read at once
GZIP = 31  # zlib's code for a stream with the header and the checksum of gzip


@dataclass(frozen=True)
class ObjectPath:
    """An object of a store, with what readers of files take from a `Path`."""

    url: str

    def __str__(self) -> str:
        return self.url

    @property
    def name(self) -> str:
        """Return the last part of the URL."""
        return PurePosixPath(self.url).name


FilePath = Path | ObjectPath


class ObjectReader(io.BufferedReader):
    """An object of a store that is open for reading; h5py's name of it, its representation, is its URL."""

    def __init__(self, url: str) -> None:
        super().__init__(ObjectFile(url), BUFFER)
        self._url = url

    def __repr__(self) -> str:
        return self._url


class Gunzip(io.RawIOBase):
    """The content of a file that is compressed by gzip, in one part or in several, one after the other."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__()
        self._file, self._decoder = file, zlib.decompressobj(GZIP)
        self._compressed, self._begun = b"", False

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer, or a part of it; return the number of bytes, 0 at the end.

        Raises
        ------
        BadGzipFile, EOFError
            If the file is damaged; if its end is missing.
        """
        while True:
            compressed = self._compressed or self._file.read(BUFFER)
            if self._decoder.eof:
                compressed = compressed.lstrip(b"\0")  # padding between parts
                if compressed:
                    self._decoder, self._begun = zlib.decompressobj(GZIP), False
            if not compressed:
                if self._begun and not self._decoder.eof:
                    raise EOFError("compressed file ended before the end-of-stream marker was reached")
                return 0
            try:
                content = self._decoder.decompress(compressed, len(buffer))
            except zlib.error as error:
                raise BadGzipFile(str(error)) from None
            self._begun = True
            self._compressed = self._decoder.unconsumed_tail or self._decoder.unused_data
            if content:
                memoryview(buffer).cast("B")[: len(content)] = content
                return len(content)

    def compressed(self) -> int:
        """Return how much of the compressed file has been read."""
        return self._file.tell()

    def close(self) -> None:
        """Close the file, too."""
        self._file.close()
        super().close()


def has_suffix(path: FilePath | Location, suffixes: str | tuple[str, ...]) -> bool:
    """Return whether the name of a file ends with a suffix, in letters of either case."""
    return path.name.lower().endswith(suffixes)


def open_binary(path: FilePath) -> BinaryIO:
    """Open a file, which can seek, for reading."""
    if isinstance(path, Path):
        return path.open("rb")
    return ObjectReader(path.url)


def open_content(path: FilePath) -> BinaryIO:
    """Open the content of a file for reading: decompressed if its name ends with ``.gz``."""
    file = open_binary(path)
    return cast(BinaryIO, io.BufferedReader(Gunzip(file), BUFFER)) if has_suffix(path, ".gz") else file


def position_in(file: BinaryIO) -> int:
    """Return how much of a file has been read from the disk or the store, about."""
    raw = getattr(file, "raw", None)
    return raw.compressed() if isinstance(raw, Gunzip) else file.tell()


def skip_content(file: Any, count: int) -> None:
    """Read a number of bytes that are not needed, because content that is compressed cannot seek."""
    while count > 0 and (skipped := len(file.read(min(count, BUFFER)))):
        count -= skipped


def glob_objects(pattern: str) -> list[str]:
    """Return the URLs of objects of one folder whose names match a pattern, in order of their names."""
    folder, _, names = pattern.rpartition("/")
    return [f"{folder}/{quote(name)}" for name in names_within(folder) if fnmatchcase(name, names)]


def size_of(path: FilePath) -> int:
    """Return the size of a file in bytes."""
    return os.path.getsize(path) if isinstance(path, Path) else stat(path.url)[0]
