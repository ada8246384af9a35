"""The chunks and codecs of arrays, chosen for passes: quick to decode, with a checksum."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from zarr.codecs import BloscCodec, BloscShuffle, Crc32cCodec

from dask_nmf.ingest.rows import BATCH

CODECS: dict[str, list[Any]] = {
    "lz4": [BloscCodec(cname="lz4", clevel=5, shuffle=BloscShuffle.bitshuffle), Crc32cCodec()],
    "zstd": [BloscCodec(cname="zstd", clevel=3, shuffle=BloscShuffle.bitshuffle), Crc32cCodec()],
    "none": [Crc32cCodec()],
}
CHUNK = 8 * 2**20  # bytes of a chunk of a dense X, about
FEWEST_ROWS = 256  # of a chunk, if a batch has so many
ENTRIES = 2**20  # of a chunk of a sparse X
NAMES = 2**16  # of a chunk


@dataclass(frozen=True)
class Storage:
    """How arrays are stored.

    Attributes
    ----------
    chunks : rows, or rows and columns, of a chunk of a dense X; entries of one of a sparse X; None to choose
    codec : one of `CODECS`, each of which ends with a CRC-32C of the chunk
    """

    chunks: tuple[int, ...] | None = None
    codec: str = "lz4"

    def __post_init__(self) -> None:
        """Refuse an unknown codec, and chunks that are not one or two positive numbers."""
        if self.codec not in CODECS:
            raise ValueError(f"codec is {self.codec!r}; give one of {', '.join(CODECS)}")
        if self.chunks is not None and (len(self.chunks) not in (1, 2) or min(self.chunks) < 1):
            raise ValueError(f"chunks is {self.chunks}; give ROWS, ROWS,COLUMNS, or ENTRIES for a sparse X")

    def dense_chunks(self, columns: int, itemsize: int) -> tuple[int, int]:
        """Return the chunks of a dense X: whole rows, unless a chunk of enough rows would be large."""
        if self.chunks is not None:
            return self.chunks[0], min(self.chunks[1], columns) if len(self.chunks) == 2 else columns
        row = columns * itemsize
        rows = max(1, CHUNK // row, min(FEWEST_ROWS, BATCH // row))
        return rows, min(columns, max(1, CHUNK // (rows * itemsize)))

    def entry_chunk(self) -> int:
        """Return the number of entries of a chunk of a sparse X."""
        if self.chunks is None:
            return ENTRIES
        if len(self.chunks) == 2:
            raise ValueError(f"chunks is {self.chunks}, and this V is sparse; give one number of entries")
        return self.chunks[0]


def parse_chunks(chunks: str | int | Sequence[int] | None) -> tuple[int, ...] | None:
    """Return the sizes of a chunk that numbers, or a text such as "1000,200", give; None for None."""
    if chunks is None:
        return None
    parts = chunks.split(",") if isinstance(chunks, str) else [chunks] if isinstance(chunks, int) else chunks
    try:
        return tuple(int(number) for number in parts)
    except (ValueError, TypeError):
        raise ValueError(
            f"chunks is {chunks!r}; give ROWS, ROWS,COLUMNS, or ENTRIES for a sparse X"
        ) from None
