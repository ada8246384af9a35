"""Matrices in the memory of this process: NumPy, SciPy, lists of rows, and the tables of other libraries."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import scipy.sparse

from dask_nmf.errors import readable
from dask_nmf.planning.worker_memory import Layout
from dask_nmf.sources.checks import WRITE_ANEW_WITH, canonical_csr, check_shape, working_dtype
from dask_nmf.sources.decoding.conversion import is_convertible, to_arrays
from dask_nmf.sources.dense import DenseSource, dense_matrix
from dask_nmf.sources.matrix import Matrix
from dask_nmf.sources.opener import Opener, OpenOptions
from dask_nmf.sources.reader import Box, ReaderDefaults
from dask_nmf.types import Block


@dataclass(frozen=True)
class SparseRows(ReaderDefaults):
    """Rows of a CSR array in memory, which is in panel orientation."""

    array: scipy.sparse.csr_array
    dtype: np.dtype[Any]
    sparse: bool = field(default=True, init=False)
    any_box: bool = field(default=False, init=False)
    in_memory: bool = field(default=True, init=False)

    @property
    def shape(self) -> tuple[int, int]:
        m, n = self.array.shape
        return m, n

    @property
    def stored_dtype(self) -> np.dtype[Any]:
        stored: np.dtype[Any] = np.dtype(self.array.dtype)
        return stored

    def __getitem__(self, index: Box) -> Block:
        return self.array[index[0]].astype(self.dtype, copy=False)


def open_dense(array: Any, options: OpenOptions, place: str) -> Matrix:
    """Open a dense array in memory."""
    return dense_matrix(DenseSource(array, place, in_memory=True), options)


def open_sparse(array: Any, options: OpenOptions, place: str) -> Matrix:
    """Open a sparse matrix in memory; entries that are stored twice are added in the dtype of the panels."""
    check_shape(array.shape, options.name)
    dtype = working_dtype(array.dtype, options.dtype, options.name)
    m, n = array.shape
    orientation = options.orientation_of((m, n))
    with readable(place, WRITE_ANEW_WITH):
        rows = canonical_csr(orientation.turn_array(array), dtype)
    height, width = rows.shape
    layout = Layout(height, width, dtype.itemsize, needs_cast=rows.dtype != dtype, indptr=rows.indptr)
    return Matrix((m, n), dtype, place, orientation, layout, SparseRows(rows, dtype))


def _open(source: Any, options: OpenOptions) -> Matrix:
    array = to_arrays(source, options.name)
    if scipy.sparse.issparse(array):
        return open_sparse(array, options, "scipy.sparse")
    return open_dense(array, options, "numpy")


OPENER = Opener(is_convertible, _open)
