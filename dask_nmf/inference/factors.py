"""W, H and the means of a fit for `predict` and `recommend`: opened, validated and read."""

from __future__ import annotations

from typing import Any

import dask.array as da
import numpy as np
import scipy.sparse
import zarr

from dask_nmf.cluster.client import active_client
from dask_nmf.errors import readable
from dask_nmf.kernels.summary.means import Means
from dask_nmf.planning import worker_memory
from dask_nmf.sources.factors_and_weights import open_for_fixed_factor, read_factor
from dask_nmf.sources.labels.index import NameIndex, as_names
from dask_nmf.sources.labels.names import as_text
from dask_nmf.sources.matrix import Matrix
from dask_nmf.sources.reader import Reader, empty_block
from dask_nmf.storage.arrays.factors import CURE
from dask_nmf.types import Array, Block, Orientation

Clip = tuple[float, float]  # the lower and the upper bound of values


def open_factors(W: Any, H: Any) -> tuple[Any, Any]:
    """Open W and H as `open_factor` does, W by rows and H by columns."""
    return open_factor(W, "W"), open_factor(H, "H", Orientation.COLUMNS)


def open_factor(factor: Any, name: str, orientation: Orientation = Orientation.ROWS) -> Any:
    """Open a factor in any form that `open_matrix` takes, as an array that can be sliced.

    That is a NumPy, Dask or Zarr array, or any other with a shape, a dtype and slices. A factor in memory
    becomes a NumPy array. A stored factor is not read yet, and it is decoded when it is read.

    Parameters
    ----------
    orientation : how a factor that has to be cut is cut, unless it is stored the other way.

    Raises
    ------
    DataError, TypeError, FileNotFoundError
        As `open_matrix` does, and if an entry of a factor in memory is negative, not finite or missing.
    """
    if _is_plain(factor):
        return factor
    matrix = open_for_fixed_factor(factor, None, orientation, name)
    if matrix.reader.plain_array is not None:
        return matrix.reader.plain_array
    return read_factor(matrix, name) if matrix.in_memory else _in_blocks(matrix)


def _is_plain(factor: Any) -> bool:
    """Return whether a factor is a NumPy array of numbers, or a Dask array of such blocks and of known size.

    `product_shape` refuses a mask that hides something; a mask that hides nothing is removed.
    """
    block = factor._meta if isinstance(factor, da.Array) else factor
    if not isinstance(block, np.ndarray) or block.dtype.kind not in "biuf":
        return False
    hides_nothing = isinstance(factor, np.ma.MaskedArray) and not np.ma.is_masked(factor)
    return not hides_nothing and all(size == size for size in factor.shape)


def _in_blocks(matrix: Matrix) -> da.Array:
    """Return a matrix that is read by panels as a Dask array of dense blocks of some MiB."""
    layout, array = matrix.layout, matrix.reader.dask_array
    if array is None:
        unit = layout.chunk_rows
        step = unit * max(1, worker_memory.IN_FLIGHT // (unit * layout.columns * layout.itemsize))
        array = as_dask_array(matrix.reader, (step, layout.columns))
    if scipy.sparse.issparse(array._meta):
        array = array.map_blocks(_dense, dtype=matrix.dtype, meta=np.empty((0, 0), matrix.dtype))
    return matrix.orientation.turn_array(array)


def as_dask_array(reader: Reader, chunks: Any) -> da.Array:
    """Return a matrix that tasks read as a Dask array; ``chunks`` as for `dask.array.from_array`."""
    return da.from_array(
        reader,
        chunks=chunks,
        name=False,
        asarray=False,
        fancy=False,
        inline_array=not reader.in_memory,
        meta=empty_block(reader),
    )


def _dense(block: Block) -> Array:
    return np.asarray(block.toarray() if scipy.sparse.issparse(block) else block)


def product_shape(W: Any, H: Any) -> tuple[int, int]:
    """Return the shape of W H; refuse factors that do not fit each other or are masked."""
    for name, factor in (("W", W), ("H", H)):
        if isinstance(getattr(factor, "_meta", factor), np.ma.MaskedArray):
            raise ValueError(f"{name} is a masked array; give its values, such as {name}.filled(0)")
    if len(W.shape) != 2 or len(H.shape) != 2 or W.shape[1] != H.shape[0]:
        raise ValueError(f"W is {W.shape} and H {H.shape}; they must be (m, k) and (k, n)")
    return int(W.shape[0]), int(H.shape[1])


def product_dtype(W: Any, H: Any) -> np.dtype[Any]:
    """Return the dtype of W H."""
    return np.result_type(W.dtype, H.dtype, np.float32)


def read_whole(factor: Any) -> Any:
    """Return all of a factor as a NumPy array."""
    with readable(getattr(factor, "store_path", "a factor"), CURE):
        return np.asarray(factor[:])


def means_at(means: Any, places: Array) -> Array:
    """Return the means at some places; each mean that is needed is read once."""
    if not isinstance(means, da.Array | zarr.Array):
        return np.asarray(means)[places]
    needed, back = np.unique(places, return_inverse=True)
    with readable(getattr(means, "store_path", "the means"), CURE):
        read = means.oindex[needed] if isinstance(means, zarr.Array) else means[needed]
        return np.asarray(read)[back]


def find_names(places: Any, names: Any, dimension: str, size: int) -> Any:
    """Return the numbers of rows or columns that are given by name; what is not text is returned unchanged.

    Parameters
    ----------
    names : of all rows or columns, in any form that `as_names` takes; None if there are none.
    size : how many there are.

    Raises
    ------
    ValueError
        If a name is that of no or several rows, or if there are no names, or too many or too few.
    """
    if not _is_text(places):
        return places
    if names is None:
        raise ValueError(f"{dimension}s are names; give all names too, as {dimension}_names, or give numbers")
    found = as_names(names, f"{dimension}_names")
    if len(found) != size:
        raise ValueError(
            f"{dimension}_names are {len(found)} and W H has {size} {dimension}s; give one for each"
        )
    index, wanted = NameIndex(found, dimension), as_text(np.asarray(places)).tolist()
    numbers = index.find(wanted)
    if (numbers < 0).any():
        raise ValueError(f"{index.describe(wanted[int((numbers < 0).argmax())])}; give a number")
    return numbers


def _is_text(places: Any) -> bool:
    """Return whether rows or columns are given by a list, or an array of one dimension, of text."""
    array = np.asarray(places)
    kind = array.dtype.kind
    return (
        array.ndim == 1 and len(array) > 0 and (kind in "UT" or (kind == "O" and isinstance(array[0], str)))
    )


def as_indices(numbers: Any, name: str) -> Array:
    """Return numbers of rows or columns as an array; refuse them if some are masked."""
    if np.ma.is_masked(numbers):
        raise ValueError(
            f"{name} has {np.ma.getmaskarray(numbers).sum()} masked of {np.size(numbers)} entries; give "
            f"those that are not masked, such as {name}.compressed()"
        )
    return np.asarray(numbers)


def clip_values(values: Array, clip: Clip | None) -> Array:
    """Return values clipped to the bounds, if there are any."""
    return values if clip is None else np.clip(values, *clip)


def validate(W: Any, H: Any, means: Means | None, clip: Clip | None) -> None:
    """Refuse means that do not fit W H, invalid bounds, and an asynchronous Dask client."""
    shape = product_shape(W, H)
    if means is not None and not isinstance(means, Means):
        raise TypeError(f"means is {type(means).__name__}; give the means of a fit, such as result.means")
    if means is not None and (*np.shape(means.rows), *np.shape(means.columns)) != shape:
        raise ValueError(
            f"means are of {np.shape(means.rows)} rows and {np.shape(means.columns)} columns and W H is "
            f"{shape}; give the means of the fit that W and H come from"
        )
    if any(isinstance(part, da.Array) for part in (W, H, *(means or ()))):
        active_client()
    if clip is None:
        return
    if np.shape(clip) != (2,):
        raise ValueError(f"clip is {clip!r}; give two numbers, the least and the largest value")
    if not clip[0] <= clip[1]:
        raise ValueError(
            f"clip is {clip[0]:g} to {clip[1]:g}; give the lower bound first, then the upper one"
        )
