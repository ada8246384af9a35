"""`prepare`: the rows of V from its sources, with the recipe that makes them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from dask_nmf.ingest.expansion import name_of
from dask_nmf.ingest.formats.documents.counting import CountedTexts
from dask_nmf.ingest.formats.images import ImageRows
from dask_nmf.ingest.formats.matrices.transposed import Transposed
from dask_nmf.ingest.opening import open_sources
from dask_nmf.ingest.options import ConvertOptions
from dask_nmf.ingest.recipe.fitting import fit_recipe
from dask_nmf.ingest.recipe.options import Counting
from dask_nmf.ingest.recipe.recipe import Aligned, Prepared, Recipe, Selection
from dask_nmf.ingest.recipe.stored import digest_of, dtype_of, read_recipe, recipe_of_source
from dask_nmf.ingest.rows import RowSource
from dask_nmf.sources.formats.stored.conversions import PLAIN


def prepare(
    sources: Sequence[Any], names: Sequence[str], options: ConvertOptions, scratch: Path, files: ExitStack
) -> tuple[RowSource, Recipe]:
    """Return the rows of V, and the recipe that made them: a new one, or that of another V.

    A source that was made by a recipe passes it on.

    Parameters
    ----------
    files : closes the files that rows are read from

    Raises
    ------
    ValueError
        If sources were made by different recipes, or one that was made by steps is to go through them again.
    """
    begun = _begun(sources, options)
    if options.like is None:
        if begun is not None and begun[0].parameters and options.transpose:
            raise ValueError(
                f"{names[0]} was converted with steps, which belong to its columns, and transpose is given; "
                "convert the files that it was made from, or leave transpose out"
            )
        rows, recipe = fit_recipe(_opened(sources, names, options, scratch, files), options, scratch)
        recipe = replace(recipe, transposed=options.transpose)
        return rows, recipe if begun is None else recipe.continued(*begun)
    if begun is not None and begun[0].steps:
        raise ValueError(
            f"{names[0]} was converted with steps already, and like is given; give the files that it was "
            "made from, or leave like out"
        )
    recipe, selection = read_recipe(options.like)
    counting = Counting(**recipe.parameters.get("texts", {}))
    reading = replace(options, like=None, counting=counting, vocabulary=selection.names)
    reading = replace(reading, image_shape=recipe.image_shape, usual_dtype=dtype_of(options.like))
    turned = recipe.transposed != (begun is not None and begun[0].transposed)
    source = _opened(sources, names, replace(reading, transpose=turned), scratch, files)
    return Prepared(Aligned(source, selection, options.like.name), None, recipe.steps), recipe


def _opened(
    sources: Sequence[Any], names: Sequence[str], options: ConvertOptions, scratch: Path, files: ExitStack
) -> RowSource:
    """Open the sources as one, whose columns are the rows of V if the options say so."""
    source = open_sources(sources, names, options, scratch, files)
    if options.transpose and isinstance(source, CountedTexts | ImageRows):
        raise ValueError("texts and images are rows of V as they are; leave transpose out")
    return Transposed(source, scratch) if options.transpose else source


def _begun(sources: Sequence[Any], options: ConvertOptions) -> tuple[Recipe, Selection] | None:
    """Return the recipe by which all sources were made; None if there is none."""
    recipes = [recipe_of_source(source, options) for source in sources]
    digests = [PLAIN if recipe is None else digest_of(recipe[0]) for recipe in recipes]
    if len(set(digests)) > 1:
        other = next(index for index, digest in enumerate(digests) if digest != digests[0])
        raise ValueError(
            f"{name_of(sources[other])} and {name_of(sources[0])} were converted with different steps; "
            "convert the files of one with --like the other"
        )
    return recipes[0] if recipes else None
