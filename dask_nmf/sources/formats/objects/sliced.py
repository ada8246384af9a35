"""Arrays of unknown libraries, in the memory of this process, of which parts are read by slices."""

from __future__ import annotations

from typing import Any

from dask_nmf.sources.decoding.conversion import is_sliced
from dask_nmf.sources.dense import DenseSource, dense_matrix
from dask_nmf.sources.matrix import Matrix
from dask_nmf.sources.opener import Opener, OpenOptions


def _open(array: Any, options: OpenOptions) -> Matrix:
    source = DenseSource(array, type(array).__name__, in_memory=True, plain=True)
    return dense_matrix(source, options)


OPENER = Opener(is_sliced, _open)
