"""Arrays of NumPy: an .npy file of W or H, and an .npz file of both with the names."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple
from zipfile import ZipFile

import numpy as np

from dask_nmf.results.exports.content import Content, Format
from dask_nmf.results.sides import Side
from dask_nmf.sources.labels.names import Names, pieces
from dask_nmf.types import Array

MEMBERS = {"W.npy", "H.npy", "error_history.npy"}  # of every .npz file


class Streamed(NamedTuple):
    """An array to be written in pieces."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    fortran_order: bool  # whether the pieces are columns
    pieces: Iterator[Array]


def write_npy(path: Path, side: Side) -> None:
    """Write W (m, k), or H (k, n), without names."""
    with open(path, "xb") as file:
        _write(file, _factor(side))


def write_npz(path: Path, content: Content) -> None:
    """Write W, H, the history of the error, and row_names and column_names where there are any."""
    history = content.error_history
    members = {"W": _factor(content.rows), "H": _factor(content.columns)}
    members["error_history"] = Streamed(history.dtype, history.shape, False, iter([history]))
    for side in (content.rows, content.columns):
        if side.names is not None:
            members[f"{side.dimension}_names"] = _text(side.names)
    with ZipFile(path, "x") as archive:
        for name, array in members.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                _write(file, array)


def _factor(side: Side) -> Streamed:
    """Return W, or H, whose columns are the lines of its side."""
    lines = (lines for _, lines in side.pieces())
    if side.dimension == "row":
        return Streamed(side.dtype, (side.size, side.rank), False, lines)
    return Streamed(side.dtype, (side.rank, side.size), True, lines)


def _text(names: Names) -> Streamed:
    """Return names as an array of text of one length, which NumPy reads without pickles."""
    longest = max(int(np.strings.str_len(piece).max()) for piece in pieces(names))
    kind = np.dtype(f"U{max(longest, 1)}")
    return Streamed(kind, (len(names),), False, (piece.astype(kind) for piece in pieces(names)))


def _write(file: IO[bytes], array: Streamed) -> None:
    described = {
        "descr": np.lib.format.dtype_to_descr(array.dtype),
        "fortran_order": array.fortran_order,
        "shape": array.shape,
    }
    np.lib.format.write_array_header_1_0(file, described)
    for piece in array.pieces:
        file.write(np.ascontiguousarray(piece).tobytes())


def _is_our_npy(path: Path) -> bool:
    """Return whether a file holds a matrix of floats; it cannot have a mark."""
    array = np.load(path, mmap_mode="r")
    return array.ndim == 2 and array.dtype in (np.float32, np.float64)


def _is_our_npz(path: Path) -> bool:
    with ZipFile(path) as archive:
        return set(archive.namelist()) >= MEMBERS


NPY = Format(write_npy, _is_our_npy, both=False)
NPZ = Format(write_npz, _is_our_npz, both=True)
