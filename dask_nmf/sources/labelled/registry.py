"""`form_of`: the matrix in a labelled object, and the form that its factors get."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dask_nmf.errors import DataError
from dask_nmf.sources.decoding.conversion import is_a
from dask_nmf.sources.decoding.stacking import stack_dims
from dask_nmf.sources.formats.objects.annotated import is_annotated, matrix_within
from dask_nmf.sources.formats.objects.dask_frames import is_dask_frame, rows_of_frame
from dask_nmf.sources.labelled.arrays import array_form, factor_form
from dask_nmf.sources.labelled.form import Form
from dask_nmf.sources.labelled.tables import DaskTable, PandasTable, PlainTable
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


def formed_within(adata: Any, inside: str, name: str = "V") -> FormedMatrix:
    """Return a matrix of an AnnData by its path in a file of AnnData, with the form that its factors get.

    Parameters
    ----------
    inside : "X", "raw/X", or "layers/" and the name of a layer
    name : how messages call the AnnData

    Raises
    ------
    DataError
        If there is no such matrix.
    """
    kind, _, layer = inside.strip("/").partition("/")
    if (kind, layer) == ("raw", "X"):
        if adata.raw is None:
            raise DataError(f"{name} has no raw; give its X or one of its layers")
        return FormedMatrix(adata.raw.X, PandasTable(adata.obs_names, adata.raw.var_names))
    if kind != "layers" and (kind, layer) != ("X", ""):
        raise DataError(f"{name} is an AnnData, of which X, raw/X or layers/NAME is taken, and not {inside}")
    matrix = matrix_within(adata, layer if kind == "layers" else None, name)
    return FormedMatrix(matrix, PandasTable(adata.obs_names, adata.var_names))


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
        If they have other dimensions than V, other coordinates along one of them, or other names.
    """
    if not all(is_a(array, "xarray", "DataArray") for array in (weights, source)):
        _refuse_other_names("weights", _names_of(weights), _names_of(source))
        return weights
    if set(weights.dims) != set(source.dims):
        theirs, ours = (", ".join(map(str, array.dims)) for array in (weights, source))
        raise ValueError(f"weights has the dimensions {theirs} and V {ours}; give weights.broadcast_like(V)")
    _refuse_other_coordinates("weights", weights, source)
    return stack_dims(weights.transpose(*source.dims), sample_dims, "weights")


def check_factors(source: Any, **factors: Any) -> None:
    """Refuse factors whose rows or columns are named unlike those of V, such as in another order.

    Parameters
    ----------
    source : V. Tables, AnnData and a `DataArray` have names; others have none.
    factors : by name: "W" and "fixed_W", (m, k), and "H" and "fixed_H", (k, n). None is no factor.

    Raises
    ------
    ValueError
        If the names differ.
    """
    of_rows, of_columns = _names_of(source)
    for name, factor in factors.items():
        rows, columns = _names_of(factor)
        if all(is_a(array, "xarray", "DataArray") for array in (factor, source)):
            _refuse_other_coordinates(name, factor, source)
        elif name.endswith("W"):
            _refuse_other_names(name, (rows, None), (of_rows, None))
        else:
            _refuse_other_names(name, (None, columns), (None, of_columns))


def _names_of(source: Any) -> tuple[Any, Any]:
    """Return the labels of the rows and of the columns, as indexes or lists, without any computation."""
    if isinstance(source, FormedMatrix):
        index = source.form.index
        return index if is_a(index, "pandas", "Index") else None, source.form.column_names
    if is_annotated(source):
        return source.obs_names, source.var_names
    if is_a(source, "pandas", "DataFrame"):
        return source.index, source.columns
    if is_a(source, "pandas", "Series"):  # weights of rows
        return source.index, None
    if is_dask_frame(source) or is_a(source, "polars", "DataFrame"):
        return None, source.columns
    if is_a(source, "pyarrow", "Table", "RecordBatch"):
        return None, source.schema.names
    return None, None


def _refuse_other_coordinates(name: str, array: Any, source: Any) -> None:
    """Refuse a `DataArray` with other coordinates than V, a `DataArray` too, along a dimension of both."""
    for dim in array.dims:
        ours, theirs = (one.indexes.get(dim) for one in (source, array))
        if ours is not None and theirs is not None and not ours.equals(theirs):
            raise ValueError(
                f"{name} has other coordinates of {dim} than V: {_first_difference(theirs, ours)}; "
                f"give {name}.reindex_like(V)"
            )


def _refuse_other_names(name: str, theirs: tuple[Any, Any], ours: tuple[Any, Any]) -> None:
    """Refuse labels of rows or columns that are not those of V.

    None has no labels, and another number of them is an error of the shape. An index that only counts is no
    name, unless the other one has the same numbers in another order.
    """
    for side, own, expected in zip(("rows", "columns"), theirs, ours, strict=True):
        if own is None or expected is None or len(own) != len(expected):
            continue
        if hasattr(own, "equals") and own.equals(expected):
            continue
        counts = any(type(labels).__name__ == "RangeIndex" for labels in (own, expected))
        if _first_other(own, expected) is None or (counts and set(own) != set(expected)):
            continue
        raise ValueError(
            f"{name} has other names of {side} than V: {_first_difference(own, expected)}; give {name} with "
            f"the {side} of V, in their order"
        )


def _first_difference(theirs: Any, ours: Any) -> str:
    """Return where the labels of one side differ from those of V, as a message says it."""
    if len(theirs) != len(ours):
        return f"{len(theirs)} in place of {len(ours)}"
    first, own, expected = _first_other(theirs, ours) or (0, theirs[0], ours[0])
    return f"number {first} is {own} in place of {expected}"


def _first_other(theirs: Any, ours: Any) -> tuple[int, Any, Any] | None:
    """Return the first label that differs from that of V: its place, and both; None if all are the same.

    Labels are compared as members of sets, in which one that is unknown, such as ``pd.NA``, is like itself.
    """
    pairs = enumerate(zip(theirs, ours, strict=True))
    return next(((place, *pair) for place, pair in pairs if len(set(pair)) > 1), None)
