"""`form_of`: the matrix in a labelled object, and the form that its factors get."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from dask_nmf.labelled.arrays import array_form, factor_form
from dask_nmf.labelled.form import Form
from dask_nmf.labelled.tables import DaskTable, PandasTable, PlainTable
from dask_nmf.sources.decoding.conversion import is_a
from dask_nmf.sources.decoding.stacking import stack_dims
from dask_nmf.sources.formats.objects.annotated import is_annotated, matrix_within
from dask_nmf.sources.formats.objects.dask_frames import is_dask_frame, rows_of_frame
from dask_nmf.sources.labels.names import NO_LABELS, Labels
from dask_nmf.types import SampleDims


@dataclass(frozen=True)
class FormedMatrix:
    """A matrix that was taken out of a labelled object, with the form that its factors get."""

    matrix: Any
    form: Form


def form_of(source: Any, sample_dims: SampleDims = None, name: str = "V") -> tuple[Any, Form | None]:
    """Return the matrix in an object, as `open_matrix` takes it, and the form of its factors.

    Tables of pandas, polars, pyarrow and Dask, `DataArray` and AnnData have a form; all others are returned
    unchanged, with None. Only the rows of a Dask DataFrame are counted.

    Parameters
    ----------
    sample_dims : the dimensions of a `DataArray` that make the rows.
    name : how messages call the source.

    Raises
    ------
    ValueError, TypeError
        If ``sample_dims`` does not fit, or an AnnData has no matrix that can be read.
    """
    if is_a(source, "xarray", "DataArray") and len(source.dims) > 1:
        return stack_dims(source, sample_dims, name), array_form(source, sample_dims)
    if sample_dims is not None:
        raise ValueError(
            f"sample_dims is {sample_dims!r} and {name} is {type(source).__name__}; it is for a DataArray of "
            "xarray with two dimensions or more"
        )
    if isinstance(source, FormedMatrix):
        return source.matrix, source.form
    if is_annotated(source):
        return matrix_within(source, name=name), PandasTable(source.obs_names, source.var_names)
    if is_a(source, "pandas", "DataFrame"):
        return source, PandasTable(source.index, source.columns)
    if is_dask_frame(source):
        rows, filled = rows_of_frame(source, name)
        index = source.index if len(filled) == source.npartitions else source.partitions[filled].index
        return rows, DaskTable(index, source.columns, rows.chunks[0])
    if is_a(source, "polars", "DataFrame"):
        return source, PlainTable("polars", list(source.columns))
    if is_a(source, "pyarrow", "Table", "RecordBatch"):
        return source, PlainTable("pyarrow", list(source.schema.names))
    return source, None


def labels_of(form: Form | None) -> Labels:
    """Return the names that a run keeps of a V with a form; none without one."""
    return NO_LABELS if form is None else form.labels


def factor_form_of(W: Any) -> tuple[Any, Form | None]:
    """Return the matrix in a factor W, and the form that what has its rows gets; see `form_of`."""
    if is_a(W, "xarray", "DataArray") and len(W.dims) > 1:
        return stack_dims(W, name="X"), factor_form(W)
    return form_of(W, name="X")


def aligned_weights(weights: Any, source: Any, sample_dims: SampleDims) -> Any:
    """Return the weights of the entries of V stacked as V is, if both are a `DataArray`; else unchanged.

    Raises
    ------
    ValueError
        If they have other dimensions than V, or other coordinates along one of them.
    """
    if not all(is_a(array, "xarray", "DataArray") for array in (weights, source)):
        return weights
    if set(weights.dims) != set(source.dims):
        theirs, ours = (", ".join(map(str, array.dims)) for array in (weights, source))
        raise ValueError(f"weights has the dimensions {theirs} and V {ours}; give weights.broadcast_like(V)")
    for dim in source.dims:
        ours, theirs = (array.indexes.get(dim) for array in (source, weights))
        if ours is not None and theirs is not None and not ours.equals(theirs):
            raise ValueError(
                f"weights has other coordinates of {dim} than V: {_first_difference(theirs, ours)}; "
                "give weights.reindex_like(V)"
            )
    return stack_dims(weights.transpose(*source.dims), sample_dims, "weights")


def _first_difference(theirs: Any, ours: Any) -> str:
    """Return where coordinates of weights differ from those of V, as a message says it."""
    if len(theirs) != len(ours):
        return f"{len(theirs)} in place of {len(ours)}"
    first = int(np.argmax(np.asarray(theirs != ours)))
    return f"number {first} is {theirs[first]} in place of {ours[first]}"
