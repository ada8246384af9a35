"""Zarr arrays, given by a path, a URL or as ``zarr.Array``; the path may be of a group with a sparse one."""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import Any

import zarr

from dask_nmf.errors import DataError, readable
from dask_nmf.planning.worker_memory import IN_FLIGHT
from dask_nmf.sources.checks import check_shape, check_stored, working_dtype
from dask_nmf.sources.decoding.packing import packing_of
from dask_nmf.sources.dense import DenseSource, dense_matrix
from dask_nmf.sources.formats.stored.conversions import image_shape_of, recipe_of
from dask_nmf.sources.formats.stored.sparse_groups import open_sparse_group
from dask_nmf.sources.labels.stored import labels_of
from dask_nmf.sources.matrix import Matrix
from dask_nmf.sources.opener import FILES, Opener, OpenOptions, nothing_at
from dask_nmf.storage.arrays.chunks import require_chunks
from dask_nmf.storage.locations import Location, is_location, location_of_store


def open_zarr(place: str, options: OpenOptions, store: Any, inside: str = "") -> Matrix:
    """Open the array, or the sparse matrix, of a Zarr store.

    Parameters
    ----------
    place : path or URL of the store, for messages.
    store : what `zarr.open` takes.
    inside : path of the array or group in the store.
    """
    try:
        with readable(place, f"give {FILES}"):
            opened = zarr.open(store, path=inside, mode="r", use_consolidated=False)
    except (FileNotFoundError, zarr.errors.NodeNotFoundError) as error:
        raise DataError(f"{place} is no Zarr array or group; give {FILES}") from error
    if isinstance(opened, zarr.Group):
        if opened.attrs.get("encoding-type") == "anndata":
            return open_zarr(f"{place}/X", options, store, f"{inside}/X".strip("/"))
        return open_sparse_group(opened, options, place)
    return _open_array(opened, options, place)


def _open_array(array: zarr.Array[Any], options: OpenOptions, place: str) -> Matrix:
    check_stored(array, place)
    check_shape(array.shape, options.name)
    packing = packing_of(array, place)
    working_dtype(array.dtype, options.dtype, options.name)  # refuses an array before its chunks are listed
    cuts = array.shards or array.chunks
    chunk_bytes = prod(cuts) * array.dtype.itemsize
    if packing is not None:  # what is read beside the panel, before it is decoded into that
        chunk_bytes = 2 * max(chunk_bytes, IN_FLIGHT)
    complete, listing = require_chunks(array, [array])
    chunks = (cuts[0], cuts[1])
    plain = packing is None
    source = DenseSource(complete, place, chunks, chunk_bytes, packing, plain=plain, listing=listing)
    labels = labels_of(array, (array.shape[0], array.shape[1]))
    matrix = replace(dense_matrix(source, options), labels=labels, recipe=recipe_of(array))
    return replace(matrix, image_shape=image_shape_of(array))


def _open(source: Any, options: OpenOptions) -> Matrix:
    if isinstance(source, zarr.Array):
        return _open_array(source, options, str(source.store_path))
    location: Location = source
    if location.path is None:
        if not location.exists():
            raise nothing_at(location)
    elif location.path.is_file():
        raise DataError(
            f"{location.name} is a file of another kind; give {FILES}, "
            "or convert the file to Zarr first (dask-nmf convert)"
        )
    with readable(location.name, f"give {FILES}"):
        store = location.store()
    return open_zarr(location.name, options, store)


OPENER = Opener(
    lambda source: is_location(source) or isinstance(source, zarr.Array),
    _open,
    lambda array: location_of_store(array.store, array.path),
)
