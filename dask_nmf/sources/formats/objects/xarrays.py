"""Arrays of xarray that are backed by Dask, or by a file that xarray reads part by part.

Those of more than two dimensions are stacked: see `split_dims`.
"""

from __future__ import annotations

from typing import Any

import dask.array as da

from dask_nmf.sources.decoding.conversion import is_a
from dask_nmf.sources.decoding.packing import check_decoded
from dask_nmf.sources.decoding.stacking import is_lazy, stack_dims
from dask_nmf.sources.dense import DenseSource, dense_matrix
from dask_nmf.sources.formats.objects.dask_arrays import open_dask_array
from dask_nmf.sources.matrix import Matrix
from dask_nmf.sources.opener import Opener, OpenOptions


def _is_lazy(source: Any) -> bool:
    """Return whether an array of xarray reads, or computes, its values only when they are asked for."""
    return is_a(source, "xarray", "DataArray", "Variable") and is_lazy(source)


def _open(array: Any, options: OpenOptions) -> Matrix:
    check_decoded(array.attrs, options.name)
    array = stack_dims(array, name=options.name)
    if array.chunks is not None and isinstance(array.data, da.Array):
        return open_dask_array(array.data, options)
    return dense_matrix(DenseSource(array, "xarray"), options)


OPENER = Opener(_is_lazy, _open)
