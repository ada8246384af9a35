"""Test matrices, and makers of every kind of source that may hold one."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import dask.dataframe as dd
import h5py
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import scipy.sparse
import sparse as pydata
import xarray
import zarr
from zarr.storage import ZipStore

from dask_nmf.execution.graphs.reduction import PanelTasks, PassInputs
from dask_nmf.execution.panel_source import open_panels
from dask_nmf.planning import row_panels
from dask_nmf.sources.matrix import Matrix

Array = np.ndarray[Any, Any]


def low_rank(m: int, n: int, rank: int, noise: float = 0.1, seed: int = 0, dtype: Any = np.float64) -> Array:
    """Return a product of sparse non-negative factors plus noise relative to its mean, (m, n)."""
    random = np.random.default_rng(seed)
    w, h = random.exponential(size=(m, rank)), random.exponential(size=(rank, n))
    w *= random.random(w.shape) < 0.5
    h *= random.random(h.shape) < 0.5
    v = w @ h
    return (v + noise * v.mean() * random.random((m, n))).astype(dtype)


def sparse(m: int, n: int, density: float = 0.2, seed: int = 0, dtype: Any = np.float64) -> Array:
    """Return a matrix of mostly zeros, (m, n)."""
    random = np.random.default_rng(seed)
    return ((random.random((m, n)) < density) * random.exponential(size=(m, n))).astype(dtype)


def _zarr(v: Array, path: Path, **options: Any) -> str:
    array = zarr.create_array(str(path), shape=v.shape, dtype=v.dtype, **options)
    array[...] = v
    return str(path)


def anndata_group(v: Array, path: Path, kind: str) -> str:
    """Write a CSR or CSC matrix to Zarr as AnnData does; return its path."""
    held = scipy.sparse.csr_array(v) if kind == "csr_matrix" else scipy.sparse.csc_array(v)
    attributes = {"encoding-type": kind, "encoding-version": "0.1.0", "shape": list(v.shape)}
    group = zarr.create_group(str(path), attributes=attributes)
    for name in ("data", "indices", "indptr"):
        values = getattr(held, name)
        array = group.create_array(name, shape=values.shape, dtype=values.dtype, chunks=(128,))
        array[...] = values
    return str(path)


def _npy(v: Array, path: Path) -> str:
    np.save(f"{path}.npy", v)
    return f"{path}.npy"


def _npz(path: Path, **arrays: Array) -> str:
    np.savez(f"{path}.npz", **arrays)
    return f"{path}.npz"


def _scipy_npz(held: Any, path: Path) -> str:
    scipy.sparse.save_npz(f"{path}.npz", held)
    return f"{path}.npz"


def dask_csr(v: Array, kind: Callable[[Array], Any], chunks: Any = (7, 9)) -> da.Array:
    """Return a Dask array of sparse blocks."""
    return da.from_array(v, chunks=chunks).map_blocks(
        kind, dtype=v.dtype, meta=kind(np.empty((0, 0), v.dtype))
    )


def _zip(v: Array, path: Path) -> str:
    with ZipStore(f"{path}.zarr.zip", mode="w") as store:
        zarr.create_array(store, data=v, chunks=(7, 9))
    return f"{path}.zarr.zip"


def hdf5(v: Array, path: Path, **options: Any) -> h5py.Dataset:
    """Return an HDF5 dataset of a file that stays open."""
    return h5py.File(f"{path}.h5", "w").create_dataset("group/V", data=v, **options)


def hdf5_group(v: Array, path: Path) -> h5py.Group:
    """Return a CSR matrix in HDF5, written as AnnData does."""
    held = scipy.sparse.csr_array(v)
    group = h5py.File(f"{path}.h5", "w").create_group("X")
    group.attrs.update({"encoding-type": "csr_matrix", "shape": v.shape})
    for name in ("data", "indices", "indptr"):
        group.create_dataset(name, data=getattr(held, name), chunks=(16,))
    return group


class Backed:
    """A stand-in for AnnData's matrices in files, which have a ``group``."""

    def __init__(self, group: Any) -> None:
        self.group = group


def frame(v: Array) -> pd.DataFrame:
    """Return a table with named columns."""
    return pd.DataFrame(v, columns=[f"column {number}" for number in range(v.shape[1])])


def lazy(v: Array, path: Path) -> xarray.DataArray:
    """Return an xarray array that is read lazily, part by part."""
    xarray.Dataset({"V": (("row", "column"), v)}).to_zarr(path, consolidated=False)
    return xarray.open_zarr(path, chunks=None, consolidated=False)["V"]


def labelled(v: Any) -> xarray.DataArray:
    """Return an xarray array with named dimensions."""
    return xarray.DataArray(v, dims=("row", "column"))


SOURCES: dict[str, Callable[[Array, Path], Any]] = {
    "numpy": lambda v, path: np.ascontiguousarray(v),
    "numpy F": lambda v, path: np.asfortranarray(v),
    "numpy strided": lambda v, path: np.repeat(v, 2, axis=1)[:, ::2],
    "csr_array": lambda v, path: scipy.sparse.csr_array(v),
    "csr_matrix": lambda v, path: scipy.sparse.csr_matrix(v),
    "csc_array": lambda v, path: scipy.sparse.csc_array(v),
    "coo_array": lambda v, path: scipy.sparse.coo_array(v),
    "dask": lambda v, path: da.from_array(v, chunks=(7, 9)),
    "dask csr_array": lambda v, path: dask_csr(v, scipy.sparse.csr_array),
    "dask csr_matrix": lambda v, path: dask_csr(v, scipy.sparse.csr_matrix),
    "zarr v2": lambda v, path: _zarr(v, path, chunks=(7, 9), zarr_format=2),
    "zarr v3": lambda v, path: _zarr(v, path, chunks=(7, 9), zarr_format=3),
    "zarr shards": lambda v, path: _zarr(v, path, chunks=(7, 9), shards=(14, 18)),
    "zarr array": lambda v, path: zarr.open_array(_zarr(v, path, chunks=(7, 9)), mode="r"),
    "csr in zarr": lambda v, path: anndata_group(v, path, "csr_matrix"),
    "csc in zarr": lambda v, path: anndata_group(v, path, "csc_matrix"),
    "npy": lambda v, path: _npy(np.ascontiguousarray(v), path),
    "npy F": lambda v, path: _npy(np.asfortranarray(v), path),
    "npz X": lambda v, path: _npz(path, X=v, other=v[:2]),
    "npz one": lambda v, path: _npz(path, anything=v),
    "npz csr": lambda v, path: _scipy_npz(scipy.sparse.csr_array(v), path),
    "npz csc": lambda v, path: _scipy_npz(scipy.sparse.csc_matrix(v), path),
}

SPARSE_NPZ: dict[str, Callable[[Array, Path], Any]] = {  # further kinds that `scipy.sparse.save_npz` writes
    "npz bsr": lambda v, path: _scipy_npz(scipy.sparse.bsr_array(v, blocksize=(3, 2)), path),
    "npz coo": lambda v, path: _scipy_npz(scipy.sparse.coo_array(v), path),
    "npz dia": lambda v, path: _scipy_npz(scipy.sparse.dia_array(v), path),
}

LIBRARIES: dict[str, Callable[[Array, Path], Any]] = {  # sources that are read as one of `SOURCES` is
    "zarr zip": lambda v, path: _zip(v, path),
    "zarr group": lambda v, path: zarr.open_group(anndata_group(v, path, "csr_matrix"), mode="r"),
    "anndata": lambda v, path: Backed(zarr.open_group(anndata_group(v, path, "csc_matrix"), mode="r")),
    "hdf5": lambda v, path: hdf5(v, path, chunks=(7, 9)),
    "hdf5 contiguous": lambda v, path: hdf5(v, path),
    "hdf5 csr": lambda v, path: hdf5_group(v, path),
    "memory map": lambda v, path: np.load(_npy(v, path), mmap_mode="r"),
    "masked": lambda v, path: np.ma.array(v),
    "dask masked": lambda v, path: da.from_array(np.ma.array(v), chunks=(7, 9)),
    "pandas": lambda v, path: frame(v),
    "pandas nullable": lambda v, path: frame(v).astype(v.dtype.name.capitalize()),
    "pandas sparse": lambda v, path: pd.DataFrame.sparse.from_spmatrix(scipy.sparse.csr_array(v)),
    "polars": lambda v, path: pl.DataFrame(v),
    "pyarrow": lambda v, path: pa.Table.from_pandas(frame(v)),
    "dask frame": lambda v, path: dd.from_pandas(frame(v), npartitions=4),
    "xarray": lambda v, path: labelled(v),
    "xarray of dask": lambda v, path: labelled(da.from_array(v, chunks=(7, 9))),
    "xarray lazy": lambda v, path: lazy(v, path),
    "pydata": lambda v, path: pydata.COO.from_numpy(v),
    "dask pydata": lambda v, path: da.from_array(v, chunks=(7, 9)).map_blocks(pydata.COO.from_numpy),
}


def panels_of(opened: Matrix) -> list[Any]:
    """Return the panels of V in memory, as planned for rank 3 and two threads."""
    edges = row_panels.plan_panels(opened.layout, 3, None, 2).edges
    panels = open_panels(opened, edges)  # on a cluster, V lives as long as this
    inputs = dask.delayed(PassInputs(np.empty((0, opened.layout.columns)), edges), traverse=False)
    return list(dask.compute(*PanelTasks(panels).map(_as_loaded, inputs)))


def _as_loaded(v: Any, *, panel: int, inputs: PassInputs) -> Any:
    return v


def dense(block: Any) -> Array:
    """Return a block as a dense array."""
    return block.toarray() if scipy.sparse.issparse(block) else block


def read(opened: Matrix) -> Array:
    """Return V from its panels, in the user's orientation."""
    whole = np.concatenate([dense(block) for block in panels_of(opened)])
    return opened.orientation.turn_array(whole)
