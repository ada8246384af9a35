"""Zip archives into which Zarr wrote an array or a group."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from zipfile import ZipFile

from zarr.storage import ZipStore

from dask_nmf.errors import readable
from dask_nmf.sources.formats.stored.zarr_arrays import open_zarr
from dask_nmf.sources.matrix import Matrix
from dask_nmf.sources.opener import FILES, Opener, OpenOptions, ends_with
from dask_nmf.storage.arrays.chunks import METADATA, stamp_of
from dask_nmf.storage.local.local_location import LocalLocation


def _open(location: LocalLocation, options: OpenOptions) -> Matrix:
    """Open what is at the root of an archive, or in its one folder."""
    path = location.path
    with readable(path, f"give {FILES}"), ZipFile(path) as archive:
        members = [Path(name) for name in archive.namelist() if Path(name).name in METADATA]
    roots = {str(name.parent) for name in members if len(name.parts) <= 2}
    inside = "." if "." in roots or len(roots) != 1 else roots.pop()
    opened = open_zarr(location.name, options, ZipStore(path, mode="r"), inside.strip("."))
    return replace(opened, listing=stamp_of(os.stat(path)))


OPENER = Opener(lambda source: ends_with(source, ".zip") and source.path is not None, _open)
