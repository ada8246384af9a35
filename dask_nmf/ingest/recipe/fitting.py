"""A recipe is fitted: the source is stored once as it is, and each step that learns something reads it."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from shutil import rmtree
from typing import Any

import numpy as np
import zarr

from dask_nmf.errors import DataError
from dask_nmf.ingest.formats.documents.counting import CountedTexts
from dask_nmf.ingest.formats.images import ImageRows
from dask_nmf.ingest.formats.matrices.matrix_rows import MatrixRows
from dask_nmf.ingest.options import ConvertOptions
from dask_nmf.ingest.output.checkpoint import Checkpoint
from dask_nmf.ingest.output.codecs import Storage
from dask_nmf.ingest.output.group import has_names, write_group
from dask_nmf.ingest.recipe.arithmetic import blocks
from dask_nmf.ingest.recipe.arithmetic.rankings import column_scores, top_places
from dask_nmf.ingest.recipe.arithmetic.statistics import Moments, maxima, positive_counts
from dask_nmf.ingest.recipe.fitted import FittedStep, Log1p, NormalizeRows, ScaleColumns, TfIdf, TopColumns
from dask_nmf.ingest.recipe.options import MEDIAN, Steps
from dask_nmf.ingest.recipe.recipe import Prepared, Recipe, Selection, taken
from dask_nmf.ingest.rows import Columns, Named, RowSource
from dask_nmf.sources.registry import open_matrix
from dask_nmf.types import Array, Block, Orientation

logger = logging.getLogger(__name__)
STAGED = "staged"  # the folder of the source as it is
BEGUN = "begun"  # the folder that tells how far that is


def fit_recipe(source: RowSource, options: ConvertOptions, scratch: Path) -> tuple[RowSource, Recipe]:
    """Return the rows of V, and the recipe that makes them from the rows of a source.

    Raises
    ------
    DataError
        If no column is left; whatever the source raises.
    """
    steps = options.steps
    if isinstance(source, CountedTexts) and source.found:
        steps = replace(steps, min_count=None, max_frequency=None)  # the words were chosen by these
    if not steps.fitted:
        stepped = _without_fit(steps)
        return Prepared(source, None, stepped), _recipe(source, options, None, stepped)
    fitting = _Fitting(_stage(source, options, scratch), steps)
    fitting.fit()
    return fitting.prepared("V"), _recipe(source, options, fitting.selection, fitting.fitted)


def _without_fit(steps: Steps) -> list[FittedStep]:
    """Return the steps that have nothing to learn."""
    fitted: list[FittedStep] = []
    if steps.normalize_rows is not None:
        fitted.append(NormalizeRows(float(steps.normalize_rows)))
    return [*fitted, Log1p()] if steps.log1p else fitted


def _recipe(
    source: RowSource, options: ConvertOptions, selection: Selection | None, steps: Sequence[FittedStep]
) -> Recipe:
    """Return a recipe with what was given for it: the steps and, of texts, how their words are counted."""
    given = asdict(options.steps)
    parameters = {name: given[name] for name in options.steps.given}
    if isinstance(source, CountedTexts):
        parameters["texts"] = asdict(options.counting)
    return Recipe(selection, steps, parameters, source.shape if isinstance(source, ImageRows) else None)


class _Staged:
    """A source that was stored as it is, and can be read several times."""

    def __init__(self, place: Path, options: ConvertOptions, scratch: Path) -> None:
        self._root = zarr.open_group(place, mode="r")
        self._matrix = open_matrix(place, None, Orientation.ROWS)
        self._options, self._scratch = options, scratch
        self.columns = Columns(self._matrix.shape[1], self._names("var"))

    def rows(self, purpose: str) -> RowSource:
        """Return the rows; the progress shows for which purpose they are read."""
        rows = MatrixRows(replace(self._matrix, source=purpose), self._options, self._scratch)
        return Named(rows, self._names("obs"), self.columns.names)

    def _names(self, axis: str) -> Any:
        index: Any = self._root[f"{axis}/_index"] if has_names(self._root, axis) else None
        return index if index is None or axis == "obs" else list(index[:])


def _stage(source: RowSource, options: ConvertOptions, scratch: Path) -> _Staged:
    place, checkpoint = scratch / STAGED, Checkpoint(scratch / BEGUN, scratch / STAGED)
    if checkpoint.position is None:
        rmtree(place, ignore_errors=True)  # a conversion that was stopped may have left one
    write_group(str(place), source, Storage(), [STAGED], checkpoint=checkpoint)
    return _Staged(place, ConvertOptions(str(source.dtype), options.missing), scratch)


class _Fitting:
    """The fit of a recipe to a stored source, step by step, each on what the steps before it give."""

    def __init__(self, staged: _Staged, steps: Steps) -> None:
        self._staged, self._steps = staged, steps
        self.selection: Selection | None = None
        self.fitted: list[FittedStep] = []

    def fit(self) -> None:
        """Fit all steps, in the order in which they run."""
        steps = self._steps
        if steps.selects:
            self._select()
        if steps.normalize_rows is not None:
            self.fitted.append(NormalizeRows(self._target()))
        unlogged = len(self.fitted)
        if steps.log1p:
            self.fitted.append(Log1p())
        if steps.top_columns is not None:
            before = self.fitted[:unlogged] if steps.top_by == "seurat" else self.fitted
            scores = column_scores(self._blocks("the ranking of columns", before), steps.top_by)
            self.fitted.append(TopColumns(top_places(scores, steps.top_columns)))
        if steps.tfidf:
            rows, counts = positive_counts(self._blocks("the frequencies of columns"))
            self.fitted.append(TfIdf(np.log((1 + rows) / (1 + counts)) + 1))
        if steps.scale_columns is not None:
            self.fitted.append(ScaleColumns(self._scale(steps.scale_columns)))

    def prepared(self, purpose: str) -> RowSource:
        """Return the rows after the steps that are fitted so far."""
        return Prepared(self._staged.rows(purpose), self.selection, self.fitted)

    def _blocks(self, purpose: str, steps: list[FittedStep] | None = None) -> Iterator[Block]:
        fitted = self.fitted if steps is None else steps
        return (
            batch.block for batch in Prepared(self._staged.rows(purpose), self.selection, fitted).batches()
        )

    def _select(self) -> None:
        """Select the columns that occur often enough and not too often."""
        columns, steps = self._staged.columns, self._steps
        places = np.arange(columns.number)
        if steps.min_count is not None or steps.max_frequency is not None:
            rows, counts = positive_counts(self._blocks("the rows of each column"))
            most = rows if steps.max_frequency is None else steps.max_frequency * rows
            places = np.flatnonzero((counts >= (steps.min_count or 0)) & (counts <= most))
            if len(places) < columns.number:
                logger.info("columns that are kept by their rows: %d of %d", len(places), columns.number)
        if not len(places):
            raise DataError(
                f"no column of V is left of {columns.number}; "
                "give a lower --min-count or a higher --max-frequency"
            )
        self.selection = Selection(columns.number, places, taken(columns, places).names)

    def _target(self) -> float:
        """Return the sum to which rows are scaled."""
        if self._steps.normalize_rows != MEDIAN:
            return float(self._steps.normalize_rows or 1)
        sums = np.concatenate([blocks.row_sums(block) for block in self._blocks("the sums of rows")])
        if not (sums > 0).any():
            raise DataError("V is 0 everywhere, so that no row has a sum; leave --normalize-rows out")
        return float(np.median(sums[sums > 0]))

    def _scale(self, by: str) -> Array:
        """Return what each column is divided by: its maximum or standard deviation, or 1 if that is 0."""
        values = self._blocks("the scales of columns")
        if by == "max":
            highest = maxima(values)
            return np.where(highest > 0, highest, 1)
        moments = Moments(values)
        variance, eps = moments.variance(0), np.finfo(np.float64).eps
        rounding = moments.count * eps * variance + (moments.count * moments.mean * eps) ** 2
        return np.where(variance > rounding, np.sqrt(variance), 1)
