"""What a conversion has written, read back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import zarr

from dask_nmf.sources.registry import open_matrix


def matrix_of(place: Path) -> np.ndarray:
    """Return V of a converted group as the other commands read it."""
    matrix = open_matrix(place)
    block = matrix.reader[slice(0, matrix.layout.rows), slice(0, matrix.layout.columns)]
    block = block.toarray() if matrix.sparse else block
    return matrix.orientation.turn_array(block)


def names_of(place: Path, axis: str) -> list[str]:
    """Return the names of the rows ("obs") or of the columns ("var")."""
    return list(zarr.open_group(place, mode="r")[f"{axis}/_index"][:])
