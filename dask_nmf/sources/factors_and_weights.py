"""The matrices that a caller gives beside V: factors, and weights of the entries."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import numpy as np
import scipy.sparse

from dask_nmf.errors import DataError
from dask_nmf.kernels.summary.block_summary import summarize_block
from dask_nmf.sources.matrix import Matrix
from dask_nmf.sources.registry import open_matrix
from dask_nmf.types import Array, Orientation


def open_for_fixed_factor(
    source: Any, dtype: str | np.dtype[Any] | None, orientation: Orientation | None, name: str = "V"
) -> Matrix:
    """Open V in panels that each solve for their own part of one factor, while the other factor stays fixed.

    A V that is stored the other way, so that one such panel would be all of it, is opened as `open_matrix`
    does by itself.

    Parameters
    ----------
    orientation : panels of rows solve for W, panels of columns for H; None as for `open_matrix`.
    """
    with suppress(DataError):  # of a sparse matrix that is stored the other way; all others come again
        opened = open_matrix(source, dtype, orientation, name)
        if not (1 < opened.layout.rows <= opened.layout.chunk_rows and opened.layout.tiled):
            return opened
    return open_matrix(source, dtype, name=name)


def open_entry_weights(matrix: Matrix, weights: Any) -> Matrix:
    """Open the weights of the entries of V, to be cut as V is.

    Raises
    ------
    DataError
        If their shape is another one, or they are stored the other way.
    """
    opened = open_matrix(weights, matrix.dtype, matrix.orientation, "weights")
    if opened.shape != matrix.shape:
        raise DataError(f"weights has shape {opened.shape} and V {matrix.shape}; they must be equal")
    return opened


def read_factor(factor: Any, name: str, shape: tuple[int, int] | None = None) -> Array:
    """Return a factor, which may be given in all ways that V may, as one array in memory.

    Parameters
    ----------
    name : how messages call it.
    shape : what it must have; None where any shape will do.

    Raises
    ------
    ValueError
        If it has another shape than ``shape``; it is not read then.
    DataError
        If an entry is negative, not finite or masked; and as `open_matrix` does.
    """
    opened = open_matrix(factor, orientation=Orientation.ROWS, name=name)
    if shape is not None and opened.shape != shape:
        raise ValueError(f"{name} has shape {opened.shape}; for this V and rank it must be {shape}")
    block = opened.reader[slice(0, opened.layout.rows), slice(0, opened.layout.columns)]
    array = block.toarray() if scipy.sparse.issparse(block) else np.asarray(block)
    array = opened.orientation.turn_array(array)
    bad = summarize_block(array).invalid
    if bad is not None:
        raise DataError(
            f"{name} has {bad.value} at row {bad.row}, column {bad.column}; a factor must be finite and ≥ 0, "
            "with nothing masked"
        )
    return array
