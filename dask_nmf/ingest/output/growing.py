"""A Zarr array to which rows are appended, and whose chunks are each written once."""

from __future__ import annotations

from typing import Any

import numpy as np
import zarr

from dask_nmf.types import Array

TEXT_BYTES = 256  # of a text that is encoded, about
AT_ONCE = 2**24  # bytes that are written at once, at least, unless these are the last


class GrowingArray:
    """An array of a group to which rows are appended.

    It is created when its first rows are written: with one chunk if these are all, and fewer than of a chunk.
    Rows wait in memory until there are whole chunks of them.

    Parameters
    ----------
    width : the sizes of the other dimensions: (n,), or () for an array of one dimension
    """

    def __init__(
        self,
        group: zarr.Group,
        name: str,
        width: tuple[int, ...],
        chunks: tuple[int, ...],
        dtype: Any,
        compressors: list[Any],
    ) -> None:
        self.rows = 0
        self.chunks = chunks
        self.text = dtype == "string"
        self._create = {"name": name, "dtype": dtype, "compressors": compressors}
        self._group, self._width = group, width
        self._array: zarr.Array[Any] | None = None
        self._dtype: Any = np.dtypes.StringDType() if self.text else np.dtype(dtype)
        self._pending: list[Array] = [np.empty((0, *width), self._dtype)]
        self._waiting = 0
        itemsize = TEXT_BYTES if self.text else self._dtype.itemsize
        row_bytes = max(1, int(np.prod(width, dtype=np.int64)) * itemsize)
        self._step = chunks[0] * max(1, -(-AT_ONCE // (row_bytes * chunks[0])))

    @property
    def name(self) -> str:
        """Return the path of the array below the root of its store."""
        return f"{self._group.path}/{self._create['name']}".lstrip("/")

    @property
    def length(self) -> int:
        """Return the number of rows that were appended."""
        return self.rows + self._waiting

    def waiting(self) -> Array:
        """Return the rows that wait to be written."""
        return np.concatenate(self._pending)

    def restore(self, rows: int, waiting: Any) -> None:
        """Go on after the rows that another process had written, and those that waited then."""
        name = self._create["name"]
        if rows == 0 and name in self._group:
            del self._group[name]  # it was written later
        elif rows > 0:
            array: Any = self._group[name]
            array.resize((rows, *self._width))
            self.rows, self.chunks, self._array = rows, array.chunks, array
        self._pending, self._waiting = [np.asarray(waiting, self._dtype)], len(waiting)

    def append(self, rows: Any) -> None:
        """Append rows; whole chunks of them are written once there are enough."""
        array = np.asarray(rows, dtype=self._dtype)
        self._pending.append(array)
        self._waiting += len(array)
        if self._waiting >= self._step:
            self._write(self._waiting - self._waiting % self._step)

    def close(self) -> None:
        """Write the last rows."""
        if self._array is None:
            self.chunks = (min(self.chunks[0], max(1, self._waiting)), *self.chunks[1:])
        if self._waiting or self._array is None:
            self._write(self._waiting)

    def _write(self, count: int) -> None:
        array = self._array = self._array or self._created()
        rows = self._pending[0] if len(self._pending) == 1 else np.concatenate(self._pending)
        array.resize((self.rows + count, *self._width))
        array[self.rows : self.rows + count] = rows[:count]
        self.rows += count
        self._waiting -= count
        self._pending = [rows[count:].copy()]

    def _created(self) -> zarr.Array[Any]:
        attributes: dict[str, Any] = {
            "encoding-type": "string-array" if self.text else "array",
            "encoding-version": "0.2.0",
        }
        return self._group.create_array(
            shape=(0, *self._width),
            chunks=self.chunks,
            config={"write_empty_chunks": True},  # so that a lost chunk is noticed
            attributes=attributes,
            **self._create,
        )
