"""Matrices with names of rows and columns, as AnnData and xarray write them, without these packages."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse
import zarr

TEXT = np.dtypes.StringDType()
FRAME = {"encoding-type": "dataframe", "encoding-version": "0.2.0", "_index": "_index", "column-order": []}


def names(letter: str, number: int) -> list[str]:
    """Return names such as r0, r1, r2."""
    return [f"{letter}{i}" for i in range(number)]


def write_text(group: zarr.Group, name: str, values: Sequence[str], **options: Any) -> zarr.Array:
    """Write an array of text."""
    array = group.create_array(name, shape=(len(values),), dtype="string", chunks=(4,), **options)
    array[:] = np.array(values, TEXT)
    return array


def write_anndata(place: Any, v: Any, rows: Sequence[str], columns: Sequence[str]) -> zarr.Group:
    """Write V as X of a Zarr group in AnnData's layout, CSR if V is, and as the layer counts."""
    root = zarr.create_group(place, attributes={"encoding-type": "anndata", "encoding-version": "0.1.0"})
    for group, name in ((root, "X"), (root.create_group("layers"), "counts")):
        write_matrix(group, name, v)
    for side, index in (("obs", rows), ("var", columns)):
        write_text(root.create_group(side, attributes=FRAME), "_index", index)
    return root


def write_matrix(group: zarr.Group, name: str, v: Any) -> None:
    """Write a dense array, or a CSR matrix in AnnData's layout."""
    if not scipy.sparse.issparse(v):
        group.create_array(name, data=v)
        return
    attributes = {"encoding-type": "csr_matrix", "encoding-version": "0.1.0", "shape": list(v.shape)}
    inside = group.create_group(name, attributes=attributes)
    for part in ("data", "indices", "indptr"):
        inside.create_array(part, data=getattr(v, part))


def write_named(place: Path, v: np.ndarray, rows: Sequence[str], columns: Sequence[str]) -> Path:
    """Write V with coordinates, as xarray does; return the path of the array."""
    root = zarr.create_group(place)
    root.create_array("v", data=v, dimension_names=("cell", "gene"))
    for dimension, index in (("cell", rows), ("gene", columns)):
        write_text(root, dimension, index, dimension_names=(dimension,))
    return place / "v"
