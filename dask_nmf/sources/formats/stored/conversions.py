"""Notes that a conversion stores beside X: the digest of the recipe of V, and the shape of images in rows."""

from __future__ import annotations

import logging
import math
from typing import Any

logger = logging.getLogger(__name__)
RECIPE = "dask_nmf_recipe"  # the attribute of X that has the digest
IMAGE_SHAPE = "dask_nmf_image_shape"  # the attribute of X that has the shape of the images in its rows
PLAIN = "none"  # stands for a digest where values are as they were in the files


def recipe_of(node: Any) -> str | None:
    """Return the digest of the recipe of an array or a group; None if no conversion has written it."""
    digest = node.attrs.get(RECIPE)
    return digest if isinstance(digest, str) else None


def image_shape_of(node: Any) -> tuple[int, ...] | None:
    """Return the height and width, and channels if there are several, of the images in the rows of an array.

    It is None if no conversion of images has written the array.
    """
    shape = node.attrs.get(IMAGE_SHAPE)
    known = isinstance(shape, list) and all(isinstance(size, int) and size > 0 for size in shape)
    return tuple(shape) if known and math.prod(shape) == node.shape[1] else None


def check_same_recipe(recipe: str | None, source: str, fitted: dict[str, Any]) -> None:
    """Refuse rows that a conversion has made by another recipe; warn where that cannot be known.

    Parameters
    ----------
    recipe, source : of the rows
    fitted : the record of the V of a run, which has its own

    Raises
    ------
    ValueError
        If both were made by conversions, and the recipes differ.
    """
    known, theirs = fitted["source"], fitted.get("recipe")
    if recipe is not None and theirs is not None and recipe != theirs:
        raise ValueError(
            f"{source} was converted with other steps than {known}, to which the run was fitted; "
            f"convert its files anew with --like {known}"
        )
    if recipe != theirs and PLAIN not in (recipe, theirs):
        made, other = (known, source) if recipe is None else (source, known)
        logger.warning(
            "convert has changed the values of %s and did not make %s; make sure that their values are alike",
            made,
            other,
        )
