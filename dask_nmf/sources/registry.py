"""The registry of input kinds, and `open_matrix`, which opens a matrix of any of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from dask_nmf.sources.decoding.conversion import ACCEPTED, to_arrays
from dask_nmf.sources.formats.objects import dask_arrays, dask_frames, memory, sliced, xarrays
from dask_nmf.sources.formats.objects.annotated import matrix_within
from dask_nmf.sources.formats.stored import hdf5, npy, npz, sparse_groups, zarr_arrays, zarr_zip
from dask_nmf.sources.matrix import Matrix
from dask_nmf.sources.opener import FILES, Opener, OpenOptions, nothing_at
from dask_nmf.storage.locations import is_location, located
from dask_nmf.types import Orientation

OPENERS: tuple[Opener, ...] = (  # the first that can open a source does
    npy.OPENER,
    npz.OPENER,
    zarr_zip.OPENER,
    dask_arrays.OPENER,
    dask_frames.OPENER,
    zarr_arrays.OPENER,  # all other paths too
    hdf5.OPENER,
    sparse_groups.OPENER,
    xarrays.OPENER,
    memory.OPENER,
    sliced.OPENER,
)


def open_matrix(
    source: Any,
    dtype: str | np.dtype[Any] | None = None,
    orientation: Orientation | None = None,
    name: str = "V",
) -> Matrix:
    """Open V as row panels; read only its metadata, and the row pointers of a stored CSR matrix.

    Parameters
    ----------
    source : one of

        * a path, to a Zarr v2 or v3 array (also in a ``.zip``), to a CSR or CSC matrix in a Zarr group
          (AnnData's layout), to an ``.npy`` (memory-mapped) or an ``.npz`` file (dense or SciPy's; loaded);
        * what is read by panels: a Dask array of any chunking with dense, masked or sparse blocks, a Dask
          DataFrame (whose rows are counted first), a ``zarr.Array``, an ``h5py.Dataset``, an xarray
          ``DataArray`` (the first dimension makes the rows, all others the columns), a ``zarr.Group`` or
          ``h5py.Group`` in AnnData's layout, AnnData (its ``X``) and its backed matrices, and other arrays of
          which parts can be read by slices;
        * what is in memory: NumPy, masked and ``scipy.sparse`` arrays and matrices, lists of rows, tables of
          pandas, polars and pyarrow, ``sparse`` arrays of pydata, and what ``numpy.asarray`` takes.

        What is masked, null, or missing by the CF conventions is NaN in the panels.
    dtype : of the panels, ``float32`` or ``float64``. By default entries of these two stay what they are,
        integers and floats of at most 16 bits become ``float32``, wider integers ``float64``.
    orientation : whether V is cut into panels of rows or of columns; by default of whichever are more.
    name : how messages call the matrix.

    Raises
    ------
    DataError (a ValueError), TypeError
        For what is not a non-empty two-dimensional matrix of real numbers of known size.
    FileNotFoundError
        If there is nothing at the path.
    """
    if isinstance(source, Matrix):
        return source
    source = matrix_within(located(source), name=name)
    if is_location(source) and source.path is not None and not source.path.exists():
        raise nothing_at(source)
    opener = _find_opener(source)
    if opener is None:
        raise TypeError(f"{name} is {type(source).__name__}; give {ACCEPTED} of {FILES}")
    opened = opener.open(source, OpenOptions(dtype, orientation, name))
    if is_location(source):
        return replace(opened, source=source.name, location=source)
    return replace(opened, location=opener.location_of(source))


def in_memory_form(source: Any, name: str = "V") -> Any | None:
    """Return what is in this process's memory as a NumPy or SciPy array; None for what is read by panels."""
    source = matrix_within(source, name=name)
    return to_arrays(source, name) if _find_opener(source) is memory.OPENER else None


def _find_opener(source: Any) -> Opener | None:
    return next((opener for opener in OPENERS if opener.can_open(source)), None)
