"""Tables of pandas, polars, pyarrow and Dask: each gets tables of its kind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import dask.array as da
import numpy as np

from dask_nmf.sources.labelled.form import component_names
from dask_nmf.sources.labelled.names import names_of_index, names_of_partitions
from dask_nmf.sources.labels.names import Labels
from dask_nmf.types import Array

COLUMNS = "the columns"  # as messages call their names


@dataclass(frozen=True)
class PandasTable:
    """The index and the columns of a pandas DataFrame, or of an AnnData."""

    index: Any
    columns: Any

    @property
    def column_names(self) -> Any:
        return self.columns

    @property
    def labels(self) -> Labels:
        return Labels(names_of_index(self.index, "the index"), names_of_index(self.columns, COLUMNS))

    def rows(self, array: Any, names: Sequence[Any] | None) -> Any:
        pandas: Any = import_module("pandas")
        return pandas.DataFrame(np.asarray(array), self.index, names)

    def left(self, W: Any) -> Any:
        return self.rows(W, component_names(W.shape[1]))

    def right(self, H: Array) -> Any:
        pandas: Any = import_module("pandas")
        return pandas.DataFrame(np.asarray(H), component_names(len(H)), self.columns)


@dataclass(frozen=True)
class DaskTable:
    """The index and the columns of a Dask DataFrame: W has its partitions, and H is a pandas DataFrame."""

    index: Any  # of the partitions that have rows
    columns: Any
    heights: tuple[int, ...]  # of these partitions

    @property
    def column_names(self) -> Any:
        return self.columns

    @property
    def labels(self) -> Labels:
        rows = names_of_partitions(self.index, self.heights)
        return Labels(rows, names_of_index(self.columns, COLUMNS))

    def rows(self, array: Any, names: Sequence[Any] | None) -> Any:
        return dask_table(array, self.heights, self.index, names)

    def left(self, W: Any) -> Any:
        return self.rows(W, component_names(W.shape[1]))

    right = PandasTable.right


@dataclass(frozen=True)
class PlainTable:
    """The columns of a table of polars or pyarrow, whose rows have no names."""

    library: str
    columns: list[str]
    index = None

    @property
    def column_names(self) -> Any:
        return self.columns

    @property
    def labels(self) -> Labels:
        return Labels(None, names_of_index(self.columns, COLUMNS))

    def rows(self, array: Any, names: Sequence[Any] | None) -> Any:
        values = np.asarray(array)
        labels = [str(number) for number in range(values.shape[1])] if names is None else list(names)
        library: Any = import_module(self.library)
        if self.library == "polars":
            return library.DataFrame(values, schema=labels, orient="row")
        return library.table([library.array(column) for column in values.T], names=labels)

    def left(self, W: Any) -> Any:
        return self.rows(W, component_names(W.shape[1]))

    def right(self, H: Array) -> Any:
        return self.rows(H, self.columns)


def dask_table(array: Any, heights: tuple[int, ...] | None, index: Any, names: Sequence[Any] | None) -> Any:
    """Return an array as a Dask DataFrame with partitions of these heights, or as the array is chunked."""
    dataframe: Any = import_module("dask.dataframe")
    whole = array if isinstance(array, da.Array) else da.from_array(array, name=False)
    chunks = (whole.chunks[0] if heights is None else heights, whole.shape[1])
    columns = list(range(whole.shape[1])) if names is None else list(names)
    return dataframe.from_dask_array(whole.rechunk(chunks), columns, index=index)
