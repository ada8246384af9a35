"""W and H as a top-k search takes them: one in blocks like the panels of V, the other in memory."""

from __future__ import annotations

from typing import Any

import dask.array as da
import numpy as np
import zarr

from dask_nmf.inference import factors
from dask_nmf.kernels.summary.means import Means
from dask_nmf.sources.dense import DenseRows
from dask_nmf.types import Array


def panel_sides(
    W: Any, H: Any, means: Means | None, rows: tuple[int, ...], transposed: bool
) -> tuple[da.Array, Array]:
    """Return the factor with a row per row of the panels, and the other one in memory, (k, columns).

    With means both have one more component, so that W H is the mean of the column where a row is cold. In W
    it is 1 in cold rows and 0 in others. In H it has the means of the columns, NaN where a column is cold.

    Parameters
    ----------
    W, H : (m, k) and (k, n), as `factors.open_factors` returns them.
    rows : the number of rows of each panel.
    transposed : whether the panels are columns of V; then the factors are Hᵀ and Wᵀ.
    """
    dtype = factors.product_dtype(W, H)
    along, across = (H, W) if transposed else (W, H)
    blocks = in_panels(along, rows, dtype, transposed)
    whole = np.asarray(factors.read_whole(across), dtype)
    if means is None:
        return blocks, np.ascontiguousarray(whole.T if transposed else whole)
    sides = (means.columns, means.rows) if transposed else (means.rows, means.columns)
    means_along = _means_in_panels(sides[0], rows, dtype)
    shape = (rows, (H.shape[0] + 1,))
    blocks = da.map_blocks(
        _with_mean, blocks, means_along, transposed, dtype=dtype, chunks=shape, meta=blocks._meta
    )
    means_across = np.asarray(factors.read_whole(sides[1]), dtype)[:, None]
    whole = _with_mean(whole if transposed else whole.T, means_across, not transposed)
    return blocks, np.ascontiguousarray(whole.T)


def in_panels(factor: Any, rows: tuple[int, ...], dtype: np.dtype[Any], transposed: bool = False) -> da.Array:
    """Return W, or Hᵀ of an H if ``transposed``, as a Dask array with one block a panel."""
    if isinstance(factor, zarr.Array):
        reader = DenseRows(factor, transposed, dtype)
        return reader.lazy(rows, [reader.shape[1]])
    array = factor
    if not isinstance(factor, da.Array):
        array = da.from_array(factor, chunks=(-1, rows) if transposed else (rows, -1), name=False)
    upright = array.T if transposed else array
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
