"""The options of a conversion, checked, and what a value of V may be."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf, isnan
from typing import Any

import numpy as np

from dask_nmf.errors import DataError
from dask_nmf.ingest.formats.documents.decoding import UTF8, check_encoding
from dask_nmf.ingest.recipe.options import Counting, Steps
from dask_nmf.storage.locations import Location
from dask_nmf.types import Array

DUPLICATES = ("error", "sum", "mean", "last")
DTYPES = ("float32", "float64")
NO_STEPS = Steps()
NO_COUNTING = Counting()
EXACT = 2**24  # whole numbers up to this one are exact as float32
EXACT_DOUBLE = 2**53  # as float64
ROUNDING = (
    "correct it, or store it as a floating-point number to have it rounded: in text with a decimal point, "
    "in MatrixMarket with the field real in the banner, in other files as float64"
)


@dataclass(frozen=True)
class ConvertOptions:
    """How sources are read.

    Attributes
    ----------
    row, column, value : names of the columns of a table of entries; ``row`` alone: that of the names of rows
    duplicates : the value of an entry that is given more than once, one of `DUPLICATES`
    dataset : path inside of an HDF5 file, such as ``X``, ``layers/counts`` or ``raw/X``
    text : name of the field of JSON lines, or the column of a table, that holds texts
    encoding, counting : of texts, and how their words are counted
    vocabulary : the words that are counted; None to find them
    image_shape : height, width and channels that images must have; None to take those of the first one
    steps : from the values of the sources to V
    like : a V that `convert` wrote, whose columns and steps are taken
    transpose : whether the columns of the sources are the rows of V
    usual_dtype : that of V if ``dtype`` is None; None to take that of the source
    """

    dtype: str | None = None
    missing: str | None = None
    row: str | None = None
    column: str | None = None
    value: str | None = None
    duplicates: str = "error"
    dataset: str | None = None
    text: str | None = None
    encoding: str = UTF8
    counting: Counting = NO_COUNTING
    vocabulary: Sequence[str] | None = None
    image_shape: tuple[int, ...] | None = None
    steps: Steps = NO_STEPS
    like: Location | None = None
    transpose: bool = False
    usual_dtype: str | None = None

    def __post_init__(self) -> None:
        """Refuse options that are not among those there are, or that do not go together."""
        for name, choices in (("dtype", DTYPES), ("missing", ("nan",)), ("duplicates", DUPLICATES)):
            given = getattr(self, name)
            if given is not None and given not in choices:
                raise ValueError(f"{name} is {given!r}; give one of {', '.join(choices)}")
        named = [name for name in ("row", "column", "value") if getattr(self, name) is not None]
        if named not in ([], ["row"], ["row", "column", "value"]):
            raise ValueError(
                f"only {' and '.join(named)} of row, column and value are given; give all three "
                "for a table of entries, or row alone for the column with the names of rows"
            )
        if len({self.row, self.column, self.value}) < len(named):
            raise ValueError(
                f"row {self.row!r}, column {self.column!r} and value {self.value!r} are not three columns; "
                "give another name for each"
            )
        given = [*self.steps.given, *self.counting.given, *(["transpose"] if self.transpose else [])]
        if self.like is not None and given:
            raise ValueError(
                f"like is given, whose steps are taken, and {', '.join(given)} too; leave that out"
            )
        check_encoding(self.encoding)
        if self.text is not None and self.entries:
            raise ValueError("text is given, and column and value too; leave column and value out")
        if self.steps.tfidf and self.missing is not None:
            raise ValueError("tfidf needs every value, and missing is given; leave one of them out")

    @property
    def entries(self) -> bool:
        """Return whether a record of a table is one entry of V, and not a row."""
        return self.value is not None

    def rules(self, stored: np.dtype[np.generic] | None = None) -> ValueRules:
        """Return the rules for values that are stored as a dtype; None: as text."""
        own = np.dtype(self.usual_dtype or ("float64" if stored == np.float64 else "float32"))
        dtype = own if self.dtype is None else np.dtype(self.dtype)
        return ValueRules(dtype, self.missing == "nan", self.dtype is None)


def layer_path(layer: str | None, dataset: str | None) -> str | None:
    """Return the path of a layer of AnnData, or else of a dataset; refuse both at once."""
    if layer is None:
        return dataset
    if dataset is not None:
        raise ValueError(f"layer {layer!r} and dataset {dataset!r} are both given; give one of them")
    return f"layers/{layer}"


@dataclass(frozen=True)
class ValueRules:
    """The dtype of the values of V, and which values it may have."""

    dtype: np.dtype[np.generic]
    missing: bool  # whether NaN stands for a missing entry
    implied: bool  # whether nobody has asked for this dtype, so that whole numbers must stay what they are

    def cast(self, values: Array, place: Callable[[int], str]) -> Array:
        """Return values in the dtype of V.

        Parameters
        ----------
        place : returns how a message names the place of a value, from its index in the flattened array

        Raises
        ------
        DataError
            If one of them is negative, infinite, missing where nothing may be, or changed by the dtype.
        """
        with np.errstate(over="ignore"):
            cast = values.astype(self.dtype, copy=False)
        if cast.size == 0:
            return cast
        if self.missing:
            low, high = np.fmin.reduce(cast, axis=None), np.fmax.reduce(cast, axis=None)
            low, high = (0, 0) if isnan(low) else (low, high)
        else:
            low, high = cast.min(), cast.max()
        if not (low >= 0 and high < self._exact_below(values.dtype)):
            self._refuse(values.ravel(), cast.ravel(), place)
        return cast

    def _exact_below(self, stored: np.dtype[np.generic]) -> float:
        """Return the value from which on the dtype may change a whole number, which must be looked at."""
        if self.implied and stored != self.dtype:
            return EXACT
        return EXACT_DOUBLE if stored.kind in "iu" and self.dtype == np.float64 else inf

    def cast_rows(self, block: Any, place: Callable[[int, int], str]) -> Any:
        """Return rows of V, a CSR array, with values in the dtype of V.

        Parameters
        ----------
        place : returns how a message names a cell, from its row in the block and its column

        Raises
        ------
        DataError
            As `cast` does.
        """

        def place_of(index: int) -> str:
            row = int(np.searchsorted(block.indptr, index, side="right")) - 1
            return place(row, int(block.indices[index]))

        block.data = self.cast(block.data, place_of)
        return block

    def _refuse(self, values: Array, cast: Array, place: Callable[[int], str]) -> None:
        """Raise the error about the first value that V may not have, if there is one."""
        infinite = np.isinf(cast)
        bad = ~(cast >= 0) | infinite
        if self.missing:
            bad &= ~np.isnan(cast)
        least = self._exact_below(values.dtype)
        if least < inf:
            large = np.flatnonzero((cast >= least) & ~infinite)
            bad[large] = (values[large] % 1 == 0) & (_back(cast[large], values.dtype) != values[large])
        if bad.any():
            index = int(np.argmax(bad))
            raise DataError(f"{place(index)}: {_problem(values[index], cast[index])}")


INTEGERS = ValueRules(np.dtype(np.float64), missing=False, implied=False)  # those that float64 holds


def _back(cast: Array, stored: np.dtype[Any]) -> Array:
    """Return numbers in the dtype that they were stored in; 0 for those that it cannot hold."""
    top = np.inf if stored.kind == "f" else float(np.iinfo(stored).max)
    return np.where(cast < top, cast, 0).astype(stored)


def _problem(value: np.generic, cast: np.generic) -> str:
    """Return the message about a value that V may not have."""
    if isnan(float(value)):
        return "a value is missing (NaN or empty); fill it in, or let it be: missing='nan', --missing nan"
    if float(value) < 0:
        return f"{value} is negative, and NMF takes entries >= 0; correct it, or shift or clip the values"
    if np.isinf(value):
        return f"{value} is not finite; correct it or leave it out"
    if cast.dtype == np.float64:
        return f"{value} is not exact as float64; {ROUNDING}"
    return f"{value} is not exact as {cast.dtype}; give dtype='float64', --dtype float64"
