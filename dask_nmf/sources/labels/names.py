"""`Labels`, the names of the rows and columns of V, which are read in pieces and never all at once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from dask_nmf.errors import DataError
from dask_nmf.types import Array
from dask_nmf.wording import counted

PIECE = 2**16  # names that are read at once
MISSING = ("NAType", "NaTType")  # of pandas, for a label that is missing
TEXT = np.dtypes.StringDType()  # the dtype of names in memory


class Names(Protocol):
    """The names of the rows or of the columns of V; they may repeat."""

    @property
    def place(self) -> str:
        """Where they come from, as messages call it."""

    def __len__(self) -> int: ...

    def read(self, first: int, last: int) -> Array:
        """Return a range of the names as text, (last − first,), of dtype `TEXT`."""


@dataclass(frozen=True, eq=False)
class NamesInMemory:
    """Names in the memory of this process."""

    values: Array  # of dtype `TEXT`
    place: str

    def __len__(self) -> int:
        return len(self.values)

    def read(self, first: int, last: int) -> Array:
        """Return a range of the names."""
        return self.values[first:last]


@dataclass(frozen=True)
class Labels:
    """The names of the rows and of the columns of V; None where there are none."""

    rows: Names | None = None
    columns: Names | None = None

    def __bool__(self) -> bool:
        return self.rows is not None or self.columns is not None


NO_LABELS = Labels()


def in_memory(values: Any, place: str) -> NamesInMemory:
    """Return names that any array or list holds; what is not text becomes text, as `as_text` says."""
    return NamesInMemory(as_text(np.asarray(values)), place)


def as_text(values: Array) -> Array:
    """Return names as text: numbers by their shortest decimals, times by ISO 8601, bytes as UTF-8.

    A name that is missing (None, NaN, and NA and NaT of pandas) is empty.
    """
    kind = values.dtype.kind
    if kind in "fM":
        texts = (values if kind == "f" else np.datetime_as_string(values, unit="auto")).astype(TEXT)
        texts[np.isnan(values)] = ""
        return texts
    if kind == "S":
        values = np.char.decode(values, "utf-8", "replace")
    elif kind == "O":
        values = np.array([label_as_text(value) for value in values.tolist()], TEXT)
    return values.astype(TEXT)


def label_as_text(value: Any) -> str:
    """Return one label of any type as text; one that is missing is empty."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    missing = (
        value is None or type(value).__name__ in MISSING or (isinstance(value, float) and value != value)
    )
    return "" if missing else str(value)


def pieces(names: Names) -> Iterator[Array]:
    """Yield all names in order, `PIECE` of them at a time."""
    for first in range(0, len(names), PIECE):
        yield names.read(first, min(first + PIECE, len(names)))


def gather(names: Names, numbers: Array) -> Array:
    """Return the names of some rows or columns; each piece that has some of them is read once."""
    found = np.empty(len(numbers), TEXT)
    for piece in np.unique(numbers // PIECE).tolist():
        first = piece * PIECE
        inside = numbers // PIECE == piece
        found[inside] = names.read(first, min(first + PIECE, len(names)))[numbers[inside] - first]
    return found


def copy_names(names: Names, array: Any) -> None:
    """Write names to a Zarr array, piece by piece."""
    first = 0
    for piece in pieces(names):
        array[first : first + len(piece)] = piece
        first += len(piece)


def check_same_columns(mine: Names | None, theirs: Names | None) -> None:
    """Refuse columns whose names are not those of the columns that a run was fitted to, in their order.

    Without names, on either side, nothing is compared.

    Raises
    ------
    ValueError
        If the names differ; the text has the first difference, and says whether only the order differs.
    """
    difference = describe_difference("column", mine, theirs)
    if mine is not None and theirs is not None and difference is not None:
        raise ValueError(f"{difference}; {_cure(mine, theirs)}")


def describe_difference(dimension: str, mine: Names | None, theirs: Names | None) -> str | None:
    """Return where names first differ from those of a run, as a message says it; None if they are the same.

    Without names, on either side, nothing is compared.

    Parameters
    ----------
    dimension : "row" or "column".
    """
    if mine is None or theirs is None or len(mine) != len(theirs):
        return None
    first = 0
    for ours, others in zip(pieces(mine), pieces(theirs), strict=True):
        if not np.array_equal(ours, others):
            place = int(np.argmax(ours != others))
            return (
                f"{dimension} {first + place} is {ours[place]!r} in {mine.place}, "
                f"and {others[place]!r} in the run"
            )
        first += len(ours)
    return None


def _cure(mine: Names, theirs: Names) -> str:
    """Return the cure for columns that differ from those of a run."""
    ours, others = (set(names.read(0, len(names)).tolist()) for names in (mine, theirs))
    if ours == others:
        return "the names are the same in another order; give V with its columns in the order of the run"
    absent = len(others - ours)
    return (
        f"{counted(absent, 'column')} of the run {'is' if absent == 1 else 'are'} not in V; "
        "give V with the columns of the run"
    )


def fitting(labels: Labels, shape: tuple[int, int]) -> Labels:
    """Return the labels of a matrix; names that only count, "0", "1", "2" and so on, are left out.

    Such names are what AnnData and pandas give to rows that have none. They say as much as the numbers do.

    Raises
    ------
    DataError
        If there are more or fewer names than rows or columns.
    """
    sides = zip((labels.rows, labels.columns), shape, ("row", "column"), strict=True)
    return Labels(*(_fitting(names, size, side) for names, size, side in sides))


def _fitting(names: Names | None, size: int, side: str) -> Names | None:
    if names is None:
        return None
    if len(names) != size:
        raise DataError(
            f"{names.place} has {counted(len(names), 'name')} and V has {counted(size, side)}; "
            "write a name for each, or remove the names"
        )
    return None if _only_count(names) else names


def _only_count(names: Names) -> bool:
    """Return whether names are those of rows without names; they are read up to the first that is not."""
    if str(names.read(0, 1)[0]) != "0":
        return False
    starts = range(0, len(names), PIECE)
    counts = (np.arange(first, min(first + PIECE, len(names))).astype(TEXT) for first in starts)
    return all(map(np.array_equal, pieces(names), counts))
