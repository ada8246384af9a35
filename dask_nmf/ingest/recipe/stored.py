"""A recipe in the group of V: its steps in the attributes, and its arrays, with checksums, in ``uns``."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import zarr

from dask_nmf.errors import DataError, readable
from dask_nmf.ingest.expansion import is_file
from dask_nmf.ingest.options import ConvertOptions
from dask_nmf.ingest.output.codecs import CODECS, NAMES
from dask_nmf.ingest.output.group import MARK, has_names, is_converted, open_group
from dask_nmf.ingest.output.growing import GrowingArray
from dask_nmf.ingest.recipe.fitted import KINDS, arrays_of, name_of, numbers_of
from dask_nmf.ingest.recipe.recipe import Recipe, Selection
from dask_nmf.sources.formats.stored.conversions import IMAGE_SHAPE, PLAIN, RECIPE, recipe_of
from dask_nmf.sources.matrix import digest
from dask_nmf.sources.registry import open_matrix
from dask_nmf.storage.locations import Location, is_location
from dask_nmf.types import Array

FOLDER = "uns"
GROUP = "dask_nmf_recipe"
CURE = "convert the file of V anew"
PLACES, SELECTED = "places", "names"  # arrays of the columns that the steps begin with
DICT = {"encoding-type": "dict", "encoding-version": "0.1.0"}


def write_recipe(root: zarr.Group, recipe: Recipe) -> None:
    """Write a recipe to the group of a V that is otherwise whole; nothing if it has no steps."""
    if recipe.image_shape is not None:
        _mark(root, image_shape=list(recipe.image_shape))
        root["X"].attrs[IMAGE_SHAPE] = list(recipe.image_shape)
    if recipe.transposed:
        _mark(root, transposed=True)
    record, arrays = _parts(recipe)
    root["X"].attrs[RECIPE] = PLAIN
    if not record["parameters"]:
        return
    record["digest"] = _digest(record, arrays)
    _mark(root, recipe=record)
    root["X"].attrs[RECIPE] = record["digest"]
    group = root.create_group(FOLDER, attributes=dict(DICT)).create_group(GROUP, attributes=dict(DICT))
    for name, values in arrays.items():
        kind = "string" if name == SELECTED else values.dtype
        array = GrowingArray(group, name, (), (NAMES,), kind, CODECS["lz4"])
        array.append(values)
        array.close()


def _mark(root: zarr.Group, **more: Any) -> None:
    """Add to the mark of a group that `convert` makes."""
    mark: Any = root.attrs[MARK]
    root.attrs[MARK] = {**mark, **more}


def digest_of(recipe: Recipe) -> str:
    """Return the digest of a recipe, or what stands for that if it has no steps."""
    return _digest(*_parts(recipe)) if recipe.parameters else PLAIN


def recipe_of_source(source: Any, options: ConvertOptions) -> tuple[Recipe, Selection] | None:
    """Return the recipe of a source that `convert` wrote, as `read_recipe` does; None for any other one.

    Raises
    ------
    ValueError
        If it is an array of Zarr in memory whose values were made by steps, which it does not tell.
    """
    if isinstance(source, zarr.Array | zarr.Group) and recipe_of(source) not in (None, PLAIN):
        raise ValueError("V was converted with steps, and is given as an array; give the path of its V.zarr")
    inside = options.dataset is None or options.dataset.strip("/") == "X"
    if not (inside and is_location(source)) or is_file(source):
        return None
    root = open_group(source)
    return None if root is None or not is_converted(root) else read_recipe(source)


def dtype_of(place: Location) -> str:
    """Return the dtype of the values of a V that `convert` wrote; raise `DataError` if it is damaged."""
    with readable(place.name, CURE):
        return str(open_matrix(place).dtype)


def read_recipe(place: Location) -> tuple[Recipe, Selection]:
    """Return the recipe of a V that `convert` wrote, and the columns that it begins with.

    Raises
    ------
    DataError
        If `convert` did not write the group, or it is damaged.
    FileNotFoundError
        If there is nothing.
    """
    if not place.exists():
        raise FileNotFoundError(f"there is nothing at {place.name}; give a V.zarr that convert wrote")
    with readable(place.name, CURE):
        root = zarr.open_group(place.store(), mode="r", use_consolidated=False)
    if not is_converted(root):
        raise DataError(f"{place.name} was not written by convert; give a V.zarr that it wrote")
    with readable(place.name, CURE):
        mark: Any = root.attrs[MARK]
        record = mark.get("recipe")
        shape = tuple(mark["image_shape"]) if "image_shape" in mark else None
        transposed = mark.get("transposed", False)
        if record is None:
            return Recipe(image_shape=shape, transposed=transposed), _all_columns(root)
        group: Any = root[f"{FOLDER}/{GROUP}"]
        arrays = {name: group[name][:] for name in record["arrays"]}
        if record.pop("digest") != _digest(record, arrays):
            raise DataError(f"{place.name} has a damaged recipe; {CURE}")
        recipe = replace(_recipe(record, arrays), image_shape=shape, transposed=transposed)
        return recipe, recipe.selection or _all_columns(root)


def _recipe(record: dict[str, Any], arrays: dict[str, Array]) -> Recipe:
    steps = []
    for number, step in enumerate(record["steps"]):
        own = [name for name in arrays if name.startswith(f"{number}_")]
        learnt = {name.partition("_")[2]: arrays[name] for name in own}
        steps.append(KINDS[step["step"]](**step["numbers"], **learnt))
    selection = None
    if PLACES in arrays:
        names = list(arrays[SELECTED]) if SELECTED in arrays else None
        selection = Selection(record["width"], arrays[PLACES], names)
    return Recipe(selection, steps, record["parameters"])


def _all_columns(root: zarr.Group) -> Selection:
    """Return all columns of V."""
    index: Any = root["var/_index"]
    number = index.shape[0]
    return Selection(number, np.arange(number), list(index[:]) if has_names(root, "var") else None)


def _parts(recipe: Recipe) -> tuple[dict[str, Any], dict[str, Array]]:
    """Return what JSON holds of a recipe, and its arrays by name."""
    steps = [{"step": name_of(step), "numbers": numbers_of(step)} for step in recipe.steps]
    arrays = {
        f"{number}_{name}": values
        for number, step in enumerate(recipe.steps)
        for name, values in arrays_of(step).items()
    }
    if recipe.selection is not None:
        arrays[PLACES] = recipe.selection.places
        if recipe.selection.names is not None:
            arrays[SELECTED] = np.array(recipe.selection.names, np.dtypes.StringDType())
    record = {
        "parameters": recipe.parameters,
        "steps": steps,
        "width": None if recipe.selection is None else recipe.selection.width,
        "arrays": list(arrays),
    }
    return record, arrays


def _digest(record: dict[str, Any], arrays: dict[str, Array]) -> str:
    values = (list(array) if name == SELECTED else array for name, array in arrays.items())
    return digest(json.dumps(record, sort_keys=True), *values)
