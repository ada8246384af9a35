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
from dask_nmf.storage.objects.urls import is_url


def _open(path: str, options: OpenOptions) -> Matrix:
    """Open what is at the root of an archive, or in its one folder."""
    with readable(path, f"give {FILES}"), ZipFile(path) as archive:
        members = [Path(name) for name in archive.namelist() if Path(name).name in METADATA]
    roots = {str(name.parent) for name in members if len(name.parts) <= 2}
    inside = "." if "." in roots or len(roots) != 1 else roots.pop()
    opened = open_zarr(path, options, ZipStore(path, mode="r"), inside.strip("."))
    return replace(opened, listing=stamp_of(os.stat(path)))


OPENER = Opener(lambda source: ends_with(source, ".zip") and not is_url(source), _open)
