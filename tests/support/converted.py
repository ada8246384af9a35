"""Conversions of files: what they have written, read back, and how they are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import zarr

from dask_nmf.errors import DataError
from dask_nmf.ingest import convert
from dask_nmf.sources.registry import open_matrix

TRIPLETS = {"row": "user", "column": "item", "value": "rating"}
MARKET = "%%MatrixMarket matrix coordinate real general\n% a comment\n"


def matrix_of(place: Path) -> np.ndarray:
    """Return V of a converted group as the other commands read it."""
    matrix = open_matrix(place)
    block = matrix.reader[slice(0, matrix.layout.rows), slice(0, matrix.layout.columns)]
    block = block.toarray() if matrix.sparse else block
    return matrix.orientation.turn_array(block)


def bytes_of(place: Path) -> dict[str, bytes]:
    """Return the content of each file below a folder, by its path there."""
    return {str(file.relative_to(place)): file.read_bytes() for file in place.rglob("*") if file.is_file()}


def names_of(place: Path, axis: str) -> list[str]:
    """Return the names of the rows ("obs") or of the columns ("var")."""
    return list(zarr.open_group(place, mode="r")[f"{axis}/_index"][:])


def assert_refused(folder: Path, name: str, words: str, **options: str) -> None:
    """Check that a file is refused with these words, in one line, and that nothing is left behind."""
    before = set(folder.iterdir())
    with pytest.raises(DataError) as refused:
        convert(folder / name, folder / "v.zarr", **options)
    assert words in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1
    assert set(folder.iterdir()) == before
