"""W and H as a top-k search takes them: one in blocks like the panels of V, the other in memory."""

from __future__ import annotations

from typing import Any

import dask.array as da
import numpy as np
import zarr

from dask_nmf.inference import factors
from dask_nmf.kernels.summary.means import Means
from dask_nmf.sources.dense import DenseRows
from dask_nmf.types import Array, Orientation


def panel_sides(
    W: Any, H: Any, means: Means | None, rows: tuple[int, ...], orientation: Orientation
) -> tuple[da.Array, Array]:
    """Return the factor with a row per row of the panels, and the other one in memory, (k, columns).

    With means both have one more component, so that W H is the mean of the column where a row is cold. In W
    it is 1 in cold rows and 0 in others. In H it has the means of the columns, NaN where a column is cold.

    Parameters
    ----------
    W, H : (m, k) and (k, n), as `factors.open_factors` returns them.
    rows : the number of rows of each panel.
    orientation : of the panels; if they are columns of V, the factors are Hᵀ and Wᵀ.
    """
    dtype = factors.product_dtype(W, H)
    along, across = orientation.turn((W, H))
    blocks = in_panels(along, rows, dtype, orientation)
    whole = np.asarray(factors.read_whole(across), dtype)
    if means is None:
        return blocks, np.ascontiguousarray(orientation.turn_array(whole))
    sides = orientation.turn((means.rows, means.columns))
    by_columns = orientation.by_columns
    means_along = _means_in_panels(sides[0], rows, dtype)
    shape = (rows, (H.shape[0] + 1,))
    blocks = da.map_blocks(
        _with_mean, blocks, means_along, by_columns, dtype=dtype, chunks=shape, meta=blocks._meta
    )
    means_across = np.asarray(factors.read_whole(sides[1]), dtype)[:, None]
    whole = _with_mean(whole if by_columns else whole.T, means_across, not by_columns)
    return blocks, np.ascontiguousarray(whole.T)


def in_panels(
    factor: Any, rows: tuple[int, ...], dtype: np.dtype[Any], orientation: Orientation = Orientation.ROWS
) -> da.Array:
    """Return W, or Hᵀ of an H if panels are columns, as a Dask array with one block a panel."""
    if isinstance(factor, zarr.Array):
        reader = DenseRows(factor, orientation, dtype)
        return factors.as_dask_array(reader, (rows, -1))
    array = factor
    if not isinstance(factor, da.Array):
        array = da.from_array(factor, chunks=orientation.turn((rows, -1)), name=False)
    upright = orientation.turn_array(array)
    return upright.rechunk((rows, (upright.shape[1],))).astype(dtype)


def _means_in_panels(means: Any, rows: tuple[int, ...], dtype: np.dtype[Any]) -> da.Array:
    """Return means as a Dask array with one block a panel, (rows, 1)."""
    array = means if isinstance(means, da.Array) else da.from_array(means, chunks=(rows,), name=False)
    return array.rechunk((rows,)).astype(dtype)[:, None]


def _with_mean(factor: Array, mean: Array, of_columns: bool) -> Array:
    """Return a block of W, (r, k), or of Hᵀ, with its component of means; ``mean`` is (r, 1)."""
    cold = np.isnan(mean)
    return np.concatenate(
        [np.where(cold, 0, factor), mean if of_columns else cold], axis=1, dtype=factor.dtype
    )
