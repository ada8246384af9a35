"""The lines of text files in any encoding, plain or gzip; bytes that are no text are named by their line."""

from __future__ import annotations

import codecs
import gzip
from collections.abc import Iterator
from typing import BinaryIO, cast

from dask_nmf.errors import DataError, readable
from dask_nmf.ingest.files import FilePath, has_suffix, open_binary
from dask_nmf.ingest.reading import ReadProgress

UTF8 = "utf-8"
LINES = 500  # between two reports of progress
LONGEST = 2**24  # bytes that are decoded at once, at most


def text_lines(path: FilePath, encoding: str, progress: ReadProgress | None = None) -> Iterator[str]:
    """Yield the lines of a file, with their ends; a byte order mark of UTF-8 is left out.

    Parameters
    ----------
    progress : is told now and then how far the file has been read

    Raises
    ------
    DataError
        If bytes cannot be decoded; it names the line.
    """
    decoder = codecs.getincrementaldecoder("utf-8-sig" if encoding == UTF8 else encoding)()
    number, rest = 1, ""
    with readable(path, "write it anew"), open_binary(path) as stored, _unpacked(stored, path) as file:
        while raw := file.readline(LONGEST):
            if progress is not None and number % LINES == 0:
                progress.at(stored.tell())
            try:
                rest += decoder.decode(raw)
            except UnicodeDecodeError as error:
                raise _undecodable(path, number, encoding, error) from None
            while "\n" in rest:
                line, _, rest = rest.partition("\n")
                yield line + "\n"
                number += 1
        try:
            rest += decoder.decode(b"", final=True)
        except UnicodeDecodeError as error:
            raise _undecodable(path, number, encoding, error) from None
        if rest:
            yield rest


def read_text(path: FilePath, encoding: str) -> str:
    """Return the text of a file; raise `DataError` as `text_lines` does."""
    return "".join(text_lines(path, encoding))


def check_encoding(encoding: str) -> None:
    """Raise `ValueError` for the name of an encoding that Python does not know."""
    try:
        codecs.lookup(encoding)
        codecs.getincrementaldecoder(encoding)
    except LookupError:
        raise ValueError(
            f"encoding is {encoding!r}; give one that Python knows, such as utf-8, latin-1 or cp1252"
        ) from None


def _unpacked(stored: BinaryIO, path: FilePath) -> BinaryIO:
    return cast(BinaryIO, gzip.GzipFile(fileobj=stored)) if has_suffix(path, ".gz") else stored


def _undecodable(path: FilePath, line: int, encoding: str, error: UnicodeDecodeError) -> DataError:
    byte = error.object[error.start]
    return DataError(
        f"{path}, line {line}: byte 0x{byte:02x} is not {encoding}; give the encoding of the file, such as "
        "--encoding latin-1"
    )
