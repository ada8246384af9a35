"""W and H of a fit and its means, as `predict` and `recommend` take them: checked, and read."""

from __future__ import annotations

from typing import Any

import numpy as np
import zarr

from dask_nmf.errors import readable
from dask_nmf.kernels import Array
from dask_nmf.means import Means
from dask_nmf.store import CURE

Clip = tuple[float, float]  # the least and the largest value


def shape_of(W: Any, H: Any) -> tuple[int, int]:
    """Return the shape of W H, of factors that fit each other and are not masked."""
    for name, factor in (("W", W), ("H", H)):
        if isinstance(getattr(factor, "_meta", factor), np.ma.MaskedArray):
            raise ValueError(f"{name} is a masked array; give its values, such as {name}.filled(0)")
    if len(W.shape) != 2 or len(H.shape) != 2 or W.shape[1] != H.shape[0]:
        raise ValueError(f"W is {W.shape} and H {H.shape}; they must be (m, k) and (k, n)")
    return int(W.shape[0]), int(H.shape[1])


def dtype_of(W: Any, H: Any) -> np.dtype[Any]:
    """Return the dtype of W H."""
    return np.result_type(W.dtype, H.dtype, np.float32)


def in_memory(factor: Any) -> Any:
    """Return a factor in memory."""
    with readable(getattr(factor, "store_path", "a factor"), CURE):
        return factor[:]


def means_at(means: Any, places: Array) -> Array:
    """Return means at some places, of which those that are needed are read, once."""
    if isinstance(means, np.ndarray):
        return means[places]
    needed, back = np.unique(places, return_inverse=True)
    with readable(getattr(means, "store_path", "the means"), CURE):
        read = means.oindex[needed] if isinstance(means, zarr.Array) else means[needed]
        return np.asarray(read)[back]


def clipped(values: Array, clip: Clip | None) -> Array:
    """Return values within the bounds, if there are any."""
    return values if clip is None else np.clip(values, *clip)


def check(W: Any, H: Any, means: Means | None, clip: Clip | None) -> None:
    """Refuse means that do not fit W H, and bounds that are none."""
    shape = shape_of(W, H)
    if means is not None and (*means.rows.shape, *means.columns.shape) != shape:
        raise ValueError(
            f"means are of {means.rows.shape} rows and {means.columns.shape} columns and W H is {shape}; "
            "give the means of the fit that W and H come from"
        )
    if clip is not None and not clip[0] <= clip[1]:
        raise ValueError(
            f"clip is {clip[0]:g} to {clip[1]:g}; give the lower bound first, then the upper one"
        )
