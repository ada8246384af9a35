"""Names that lie beside a stored V, by the conventions of AnnData, of xarray and of netCDF.

::

    V.zarr/X, V.zarr/layers/counts    AnnData: the index of V.zarr/obs and of V.zarr/var
    V.zarr/raw/X                      AnnData: the columns have the index of V.zarr/raw/var
    V.zarr/counts                     xarray: V.zarr/cell and V.zarr/gene, if these are its dimensions
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import zarr
from zarr.errors import UnstableSpecificationWarning

from dask_nmf.errors import readable
from dask_nmf.sources.checks import check_fits_memory
from dask_nmf.sources.labels.names import TEXT, Labels, Names, as_text, fitting
from dask_nmf.sources.labels.times import time_decoder
from dask_nmf.storage.locations import location_above, location_of_store
from dask_nmf.types import Array

logger = logging.getLogger(__name__)

CURE = "write the names anew, or remove them"
NULLABLE = ("nullable-string-array", "nullable-integer", "nullable-boolean")
SIDES = ("obs", "var")  # AnnData's names of what belongs to rows and to columns
XARRAY = "_ARRAY_DIMENSIONS"  # the attribute of Zarr v2 that holds names of dimensions


@dataclass(frozen=True, eq=False)
class StoredNames:
    """Names in an array of Zarr or HDF5, which is read by ranges.

    Attributes
    ----------
    mask : an array that is true where there is no name
    decode : what makes times of numbers, if these are times
    """

    array: Any
    place: str
    mask: Any = None
    decode: Callable[[Array], Array] = field(default=np.asarray)

    def __len__(self) -> int:
        return int(self.array.shape[0])

    def read(self, first: int, last: int) -> Array:
        """Return a range of the names; a name that is missing is empty."""
        with readable(self.place, CURE), warnings.catch_warnings():
            warnings.simplefilter("ignore", UnstableSpecificationWarning)
            values = as_text(self.decode(np.asarray(self.array[first:last])))
            if self.mask is not None:
                values[np.asarray(self.mask[first:last], bool)] = ""
        return values


@dataclass(frozen=True, eq=False)
class CategoricalNames:
    """Names that are stored as codes of categories."""

    codes: Any  # −1 where there is no name
    categories: Array  # of dtype `TEXT`, with an empty one at the end
    place: str

    def __len__(self) -> int:
        return int(self.codes.shape[0])

    def read(self, first: int, last: int) -> Array:
        """Return a range of the names; a name that is missing is empty."""
        with readable(self.place, CURE):
            return self.categories[np.asarray(self.codes[first:last], np.int64)]


def labels_of(node: Any, shape: tuple[int, int]) -> Labels:
    """Return the names that lie beside an array, or a sparse matrix, of a Zarr store or an HDF5 file.

    Raises
    ------
    DataError
        If there are more or fewer names than rows or columns, or if they cannot be read.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnstableSpecificationWarning)
        return fitting(_of_anndata(node) or _of_xarray(node), shape)


def _of_anndata(node: Any) -> Labels:
    """Return the names by AnnData's layout; none if the node is not at one of its places."""
    *_, folder, name = ["", *_parts(node)]
    if name != "X" and folder != "layers":
        return Labels()
    above = _above(node)
    root = _above(above) if folder in ("layers", "raw") else above
    owners = (root, above if folder == "raw" else root)
    return Labels(*(_index_of(_inside(owner, side)) for owner, side in zip(owners, SIDES, strict=True)))


def _index_of(frame: Any) -> Names | None:
    """Return the index of a data frame in AnnData's layout; None for what is no such frame."""
    name = getattr(frame, "attrs", {}).get("_index")
    if not isinstance(name, str):
        return None
    return _encoded(_inside(frame, name), f"{_place(frame)}/{name}")


def _encoded(node: Any, place: str) -> Names | None:
    """Return the names in an array or in an encoded column of AnnData; None for what holds no names."""
    if getattr(node, "ndim", None) == 1:
        return StoredNames(node, place)
    encoding = getattr(node, "attrs", {}).get("encoding-type")
    with readable(place, CURE):
        if encoding == "categorical":
            check_fits_memory(place, "categories", node["categories"].nbytes)
            categories = as_text(np.asarray(node["categories"][:]))
            return CategoricalNames(node["codes"], np.append(categories, np.array([""], TEXT)), place)
        if encoding in NULLABLE:
            return StoredNames(node["values"], place, node["mask"])
    logger.warning("%s has encoding-type %r, which holds no names, and they are left out", place, encoding)
    return None


def _of_xarray(node: Any) -> Labels:
    """Return the names by xarray's conventions: arrays beside an array that are called as its dimensions."""
    if not isinstance(node, zarr.Array):
        return Labels()
    dimensions = getattr(node.metadata, "dimension_names", None) or node.attrs.get(XARRAY)
    if not isinstance(dimensions, list | tuple) or len({*map(str, dimensions)}) != 2:
        return Labels()
    group = _above(node)
    return Labels(*(_coordinate(group, name) for name in dimensions))


def _coordinate(group: Any, name: Any) -> Names | None:
    """Return the coordinate of a dimension; None if it has none."""
    found = _inside(group, name) if isinstance(name, str) else None
    if found is None or getattr(found, "ndim", None) != 1:
        return None
    place, decode = f"{_place(group)}/{name}", time_decoder(dict(found.attrs), found.dtype)
    return StoredNames(found, place) if decode is None else StoredNames(found, place, decode=decode)


def _inside(group: Any, name: str) -> Any:
    """Return what has this name in a group; None if there is nothing."""
    return None if group is None or not name else group.get(name)


def _place(group: Any) -> str:
    """Return how messages call a group."""
    if not isinstance(group, zarr.Group):
        return f"{group.file.filename}{group.name}"
    location = location_of_store(group.store, group.path)
    return str(group.store_path) if location is None else location.address


def _parts(node: Any) -> list[str]:
    """Return the names on the way to a node, also those above the root of a Zarr store."""
    if not isinstance(node, zarr.Array | zarr.Group):
        return str(node.name).split("/")
    location = location_of_store(node.store, node.path)
    return (node.path if location is None else location.address).split("/")


def _above(node: Any) -> Any:
    """Return the group that holds a node, which may be above the root of a store; None if there is none."""
    if not isinstance(node, zarr.Array | zarr.Group):
        return None if node is None else node.parent
    store: Any = node.store
    if not node.path:
        location = location_of_store(store, "")
        place = None if location is None else location_above(location)
        if place is None:
            return None
        store = place.store()
    try:
        path = node.path.rpartition("/")[0]
        return zarr.open_group(store, path=path, mode="r", use_consolidated=False)
    except Exception:  # what lies there is no group, or may not be read, and V can be read without it
        return None
