"""Files that sources are read from, on a disk or in an object store, plain or compressed by gzip."""

from __future__ import annotations

import io
import os
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from gzip import BadGzipFile
from os.path import commonpath
from pathlib import Path, PurePath, PurePosixPath
from typing import Any, BinaryIO, cast
from urllib.parse import quote, unquote, urlsplit

from dask_nmf.storage.locations import Location
from dask_nmf.storage.objects.object_file import ObjectFile
from dask_nmf.storage.objects.requests import Listed, Version, list_objects, stat

BUFFER = 2**18  # bytes that are read at once
GZIP = 31  # zlib's code for a stream with the header and the checksum of gzip


@dataclass(frozen=True)
class ObjectPath:
    """An object of a store, or a folder of objects, with what readers of files take from a `Path`.

    Attributes
    ----------
    size, e_tag : as the store listed them; None where it was not asked, or gives no ETag
    """

    url: str
    size: int | None = None
    e_tag: str | None = None

    def __str__(self) -> str:
        return self.url

    @property
    def name(self) -> str:
        """Return the last part of the URL."""
        return PurePosixPath(self.url).name

    @property
    def parent(self) -> ObjectPath:
        """Return the folder that the object is in."""
        return ObjectPath(self.url.rpartition("/")[0])


FilePath = Path | ObjectPath


class ObjectReader(io.BufferedReader):
    """An object of a store that is open for reading; h5py's name of it, its representation, is its URL."""

    def __init__(self, path: ObjectPath) -> None:
        known = None if path.size is None or path.e_tag is None else Version(path.size, path.e_tag)
        super().__init__(ObjectFile(path.url, known), BUFFER)
        self._url = path.url

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
    return ObjectReader(path)


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


def glob_objects(pattern: str) -> list[ObjectPath]:
    """Return the objects of one folder whose names match a pattern, in order of their names."""
    folder, _, names = pattern.rpartition("/")
    return [_listed(folder, one) for one in list_objects(folder) if fnmatchcase(one.key, unquote(names))]


def files_below(folder: FilePath) -> dict[PurePath, FilePath]:
    """Return what is in a folder and in folders of it, in order, by its path below the folder."""
    if isinstance(folder, Path):
        return {path.relative_to(folder): path for path in sorted(folder.rglob("*"))}
    listed = list_objects(folder.url, deep=True)
    return dict(sorted((PurePosixPath(one.key), _listed(folder.url, one)) for one in listed))


def _listed(folder: str, found: Listed) -> ObjectPath:
    return ObjectPath(f"{folder}/{quote(found.key)}", found.size, found.e_tag)


def first_in(folder: FilePath, names: Sequence[str]) -> FilePath | None:
    """Return the first of some names that a file in a folder has; None if there is no such file."""
    if isinstance(folder, Path):
        return next((folder / name for name in names if (folder / name).is_file()), None)
    there = {one.key: one for one in list_objects(folder.url)}
    return next((_listed(folder.url, there[name]) for name in names if name in there), None)


def name_below(path: FilePath, folder: FilePath) -> str:
    """Return the path of a file below a folder, with slashes."""
    if isinstance(path, Path):
        return path.relative_to(str(folder)).as_posix()
    return unquote(path.url.removeprefix(f"{folder}/"))


def root_of(path: FilePath) -> str:
    """Return the scheme and the bucket of an object; an empty text for a file on a disk."""
    return "" if isinstance(path, Path) else urlsplit(path.url)._replace(path="").geturl()


def common_folder(folders: Sequence[FilePath]) -> FilePath:
    """Return the folder that several folders, of one `root_of`, are in."""
    root = root_of(folders[0])
    common = commonpath([str(folder).removeprefix(root) for folder in folders])
    return ObjectPath(root + common) if root else Path(common)


def size_of(path: FilePath) -> int:
    """Return the size of a file in bytes."""
    if isinstance(path, Path):
        return os.path.getsize(path)
    return stat(path.url)[0] if path.size is None else path.size
