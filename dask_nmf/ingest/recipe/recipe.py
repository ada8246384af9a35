"""`Recipe`: fitted steps, and the columns that they begin with, which turn a source into rows of V."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np

from dask_nmf.errors import DataError
from dask_nmf.ingest.recipe.arithmetic import blocks
from dask_nmf.ingest.recipe.fitted import FittedStep, TopColumns
from dask_nmf.ingest.rows import Batch, Columns, RowSource
from dask_nmf.types import Array, Block
from dask_nmf.wording import counted

logger = logging.getLogger(__name__)
SHOWN = 5  # names in a message
PIECE = 2**20  # entries that go through the steps at once, about


@dataclass(frozen=True)
class Selection:
    """The columns of a source that the steps begin with.

    Attributes
    ----------
    width : the number of columns of the source
    places : of the selected columns in the source
    names : of the selected columns, if they have any
    """

    width: int
    places: Array
    names: Sequence[str] | None


@dataclass(frozen=True)
class Recipe:
    """The columns that are selected, and the steps, in order.

    Attributes
    ----------
    selection : None if all columns are taken
    parameters : what was given for the steps, as JSON holds it
    image_shape : height, width and channels of the images that the source holds, if it does
    transposed : whether the columns of the files are the rows of V
    """

    selection: Selection | None = None
    steps: Sequence[FittedStep] = ()
    parameters: dict[str, Any] = field(default_factory=dict)
    image_shape: tuple[int, ...] | None = None
    transposed: bool = False

    def continued(self, begun: Recipe, columns: Selection) -> Recipe:
        """Return the recipe that does what another one does, and then what this one does.

        Parameters
        ----------
        columns : those that the other recipe begins with
        """
        transposed = self.transposed != begun.transposed
        shape = None if self.transposed else begun.image_shape
        if not begun.parameters:
            return replace(self, image_shape=shape, transposed=transposed)
        kept = [] if self.selection is None else [TopColumns(self.selection.places)]
        selection = begun.selection if self.selection is None else columns
        before = {name: given for name, given in begun.parameters.items() if name != "texts"}
        parameters = {**begun.parameters, **self.parameters}
        if self.parameters and before:
            parameters["before"] = before
        return Recipe(selection, [*begun.steps, *kept, *self.steps], parameters, shape, transposed)


class Prepared:
    """The rows of a source, selected and after the steps of a recipe."""

    def __init__(self, source: RowSource, selection: Selection | None, steps: Sequence[FittedStep]) -> None:
        self._source, self._selection, self._steps = source, selection, steps
        self.sparse, self.dtype = source.sparse, source.dtype

    def columns(self) -> Columns:
        """Return the columns that are left."""
        columns = self._source.columns()
        if self._selection is not None:
            columns = Columns(len(self._selection.places), self._selection.names)
        for step in self._steps:
            if isinstance(step, TopColumns):
                columns = taken(columns, step.places)
        return columns

    def batches(self, begin: Any = None) -> Iterator[Batch]:
        """Yield rows of V in order, few at a time, because steps need memory beside them."""
        for block, names, position in self._source.batches(begin):
            for first, last in pairwise(blocks.row_cuts(block, PIECE)):
                rows = self._stepped(block[first:last])
                whole = last == block.shape[0]
                yield Batch(rows, None if names is None else names[first:last], position if whole else None)

    def _stepped(self, block: Block) -> Block:
        """Return rows after the selection and all steps."""
        if self._selection is not None:
            block = blocks.take_columns(block, self._selection.places, self._selection.width)
        for step in self._steps:
            block = step.apply(block)
        return block


class Aligned:
    """The rows of a source with the columns that a recipe begins with, found by their names or places.

    Columns that the recipe does not know are left out. Columns that a sparse source lacks are 0.
    """

    def __init__(self, source: RowSource, wanted: Selection, place: str) -> None:
        self._source, self._wanted, self._place = source, wanted, place
        self._number = Columns(len(wanted.places), wanted.names)
        self.sparse, self.dtype = source.sparse, source.dtype

    def columns(self) -> Columns:
        """Return the columns that the recipe begins with."""
        return self._number

    def batches(self, begin: Any = None) -> Iterator[Batch]:
        """Yield rows in order.

        Raises
        ------
        DataError
            If a dense source lacks a column, or columns without names are not as many as they were.
        """
        places: Array | None = None
        for block, names, position in self._source.batches(begin):
            if places is None:
                places = self._places(self._source.columns())
            yield Batch(blocks.take_columns(block, places, block.shape[1]), names, position)

    def _places(self, columns: Columns) -> Array:
        wanted = self._wanted.names
        if columns.names is None or wanted is None:
            if columns.number != self._wanted.width:
                raise DataError(
                    f"the source has {counted(columns.number, 'column')}, and that of {self._place} had "
                    f"{self._wanted.width}; without names of columns the numbers must be equal"
                )
            return self._wanted.places
        by_name = {name: place for place, name in enumerate(columns.names)}
        if len(by_name) < columns.number and list(columns.names) != list(wanted):
            raise DataError("the source has several columns of one name; give each another name")
        if len(by_name) < columns.number:
            return np.arange(columns.number)
        places = np.array([by_name.get(name, -1) for name in wanted])
        self._report([name for name, place in zip(wanted, places, strict=True) if place < 0], columns.number)
        return places

    def _report(self, missing: Sequence[str], number: int) -> None:
        """Log how many columns are not in both; refuse a source that lacks all, or dense, any."""
        known = len(self._number.names or ())
        shown = ", ".join(map(repr, missing[:SHOWN])) + (" …" if missing[SHOWN:] else "")
        if missing and not (self.sparse and len(missing) < known):
            raise DataError(
                f"the source lacks {len(missing)} of the {counted(known, 'column')} of "
                f"{self._place}: {shown}; "
                "add them, or take a source with the same names"
            )
        if missing:
            logger.info(
                "columns that the source lacks, which are 0: %d of %d (%s)", len(missing), known, shown
            )
        extra = number - (known - len(missing))
        if extra:
            logger.info("columns of the source that %s lacks, which are left out: %d", self._place, extra)


def taken(columns: Columns, places: Array) -> Columns:
    """Return some columns."""
    names = columns.names
    return Columns(len(places), None if names is None else [names[place] for place in places])
