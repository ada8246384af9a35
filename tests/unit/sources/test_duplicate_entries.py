"""Entries of sparse matrices that are stored twice are added, in the dtype of the panels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
import scipy.sparse
from support.matrices import Array, dask_csr, read

from dask_nmf import NMF
from dask_nmf.sources.registry import open_matrix

ASKED: dict[str, Any] = {"max_iter": 3, "tol": 0}

pytestmark = pytest.mark.usefixtures("several_panels")

PAIRS = {"u1": [200, 100], "i1": [100, 100], "i2": [30_000, 30_000], "?": [1, 1]}


def twice(make: Callable[..., Any], dtype: Any) -> Any:
    """A matrix whose only entry is stored twice, and once overflows ``dtype``."""
    return make((np.array(PAIRS[dtype], dtype), ([0, 0], [1, 1])), shape=(30, 4))


def bsr(data: Any, shape: tuple[int, int]) -> Any:
    """Blocks of one entry, one of them twice."""
    values, (_, columns) = data
    indptr = np.array([0] + [2] * shape[0])
    return scipy.sparse.bsr_array((values.reshape(-1, 1, 1), columns, indptr), shape=shape)


def csr(data: Any, shape: tuple[int, int]) -> Any:
    """CSR with an entry twice: SciPy would add those of a COO matrix."""
    return scipy.sparse.csr_array((data[0], data[1][1], [0] + [2] * shape[0]), shape=shape)


def csc(data: Any, shape: tuple[int, int]) -> Any:
    """The same in CSC."""
    return scipy.sparse.csc_array((data[0], data[1][0], [0, 0, 2, 2, 2]), shape=shape)


DUPLICATES: dict[str, Callable[..., Any]] = {
    "csr": csr,
    "csc": csc,
    "coo": scipy.sparse.coo_array,
    "coo_matrix": scipy.sparse.coo_matrix,
    "bsr": bsr,
}


@pytest.mark.parametrize("dtype", PAIRS)
@pytest.mark.parametrize("kind", DUPLICATES)
def test_entries_stored_twice_are_added_as_floats(kind: str, dtype: Any, tmp_path: Path) -> None:
    held = twice(DUPLICATES[kind], dtype)
    expected = sum(PAIRS[dtype])
    block = dask.delayed(held)
    ways = {
        "memory": held,
        "columns": held.T,
        "dask": da.from_delayed(block, held.shape, meta=type(held)((0, 0), dtype=held.dtype)),
    }
    scipy.sparse.save_npz(tmp_path / "v.npz", held)
    ways["npz"] = str(tmp_path / "v.npz")
    for way, source in ways.items():
        found = read(open_matrix(source))
        assert found.max() == found.sum() == expected, way
    estimator = NMF(1, random_state=0, **ASKED).fit(held)
    assert estimator.components_.max() * estimator.transform(held).max() == pytest.approx(expected, rel=1e-4)


def test_narrow_blocks_are_cast_before_they_are_joined() -> None:
    v = np.zeros((6, 8), "u1")
    v[:, 2] = 200
    whole = dask_csr(v, lambda block: csr_of_pairs(block), chunks=(3, 3))
    np.testing.assert_array_equal(read(open_matrix(whole)), 2.0 * v)


def csr_of_pairs(block: Array) -> Any:
    """A CSR block with each entry twice."""
    once = scipy.sparse.csr_array(block)
    pairs = (np.repeat(once.data, 2), np.repeat(once.indices, 2), 2 * once.indptr)
    return scipy.sparse.csr_array(pairs, shape=block.shape)
