"""Conversion of data in the memory of this process, made by any library, into NumPy or SciPy arrays.

Entries that are masked or null become NaN. Libraries are recognised by the module of a type, never imported.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse

from dask_nmf.errors import DataError
from dask_nmf.sources.decoding.packing import check_decoded
from dask_nmf.sources.decoding.stacking import stack_dims
from dask_nmf.types import Array

InMemory = Any  # NDArray, or a scipy.sparse matrix or array
ARROW_NUMBERS = ("int", "uint", "half", "float", "double", "bool", "decimal")  # names of types begin so
ACCEPTED = (
    "an array (NumPy, scipy.sparse, sparse, Dask, Zarr, h5py, xarray), a table (pandas, polars, pyarrow, "
    "Dask), a list of rows, AnnData, or the path"
)


class Conversion(NamedTuple):
    """A library whose objects are recognised by one function, and become arrays by the other."""

    recognise: Callable[[Any], bool]
    convert: Callable[[Any, str], InMemory]


def to_arrays(source: Any, name: str = "V") -> InMemory | None:
    """Return an object as a NumPy array or a SciPy sparse matrix; None if it is not in memory.

    Parameters
    ----------
    name : how messages call it.

    Raises
    ------
    DataError, TypeError
        For a table with columns that hold no numbers; for rows of unequal length; for objects that no
        conversion is known for, saying what to give instead.
    """
    conversion = _find_conversion(source)
    return None if conversion is None else conversion.convert(source, name)


def is_convertible(source: Any) -> bool:
    """Return whether `to_arrays` takes an object, to convert it or to refuse it."""
    return _find_conversion(source) is not None


def _find_conversion(source: Any) -> Conversion | None:
    return next((conversion for conversion in CONVERSIONS if conversion.recognise(source)), None)


def is_a(source: Any, library: str, *types: str) -> bool:
    """Return whether an object's class, or one that it inherits from, has one of these names in a library."""
    return any(
        parent.__name__ in types and parent.__module__.partition(".")[0] == library
        for parent in type(source).__mro__
    )


def is_sliced(source: Any) -> bool:
    """Return whether an object of an unknown library is an array of which parts can be read."""
    if isinstance(source, np.ndarray) or not all(hasattr(source, name) for name in ("shape", "__getitem__")):
        return False
    return isinstance(getattr(source, "dtype", None), np.dtype)


def default_dtype(stored: np.dtype[Any]) -> np.dtype[Any]:
    """Return float32 for numbers of at most 16 bits and for float32, float64 for wider ones."""
    narrow = stored.itemsize <= (4 if stored.kind == "f" else 2)
    return np.dtype(np.float32 if narrow else np.float64)


def masked_to_nan(array: Any, dtype: np.dtype[Any] | None = None) -> Array:
    """Return a masked array as a plain one with NaN where it is masked; a view if nothing is.

    Parameters
    ----------
    dtype : a floating dtype of the result, if something is masked; by default that of `floating`.
    """
    plain = np.asarray(array)
    if not np.ma.is_masked(array) or plain.dtype.kind not in "biuf":
        return plain
    filled = np.array(plain, dtype or default_dtype(plain.dtype))
    filled[np.ma.getmaskarray(array)] = np.nan
    return filled


def _masked(array: Any, name: str) -> InMemory:
    return masked_to_nan(array)


def _unchanged(source: Any, name: str) -> InMemory:
    return source


def _rows(rows: Sequence[Any], name: str) -> InMemory:
    """Return a list of rows as an array, with NaN for None and for masked entries."""
    try:
        if any(isinstance(row, np.ma.MaskedArray) for row in rows):
            return masked_to_nan(np.ma.array(rows))
        array = np.asarray([_without_mask(row) for row in rows])
    except ValueError as error:
        reason = " ".join(str(error).split())
        raise DataError(
            f"{name} is a list that makes no matrix ({reason}); give rows of equal length"
        ) from error
    return _numbers(array)


def _without_mask(row: Any) -> Any:
    if isinstance(row, list | tuple) and any(value is np.ma.masked for value in row):
        return [None if value is np.ma.masked else value for value in row]
    return row


def _numbers(array: Array) -> Array:
    """Return an array of Python objects as floats, with NaN for None, if they are numbers; else unchanged."""
    if array.dtype != object or any(isinstance(value, str | bytes) for value in array.flat):
        return array
    try:
        return array.astype(np.float64)
    except (TypeError, ValueError):
        return array


def _pydata(array: Any, name: str) -> InMemory:
    if array.ndim != 2:
        return np.broadcast_to(np.empty((), array.dtype), array.shape)
    if array.fill_value != 0:
        cure = (
            "what is not stored is not 0; give V.todense(), or a scipy.sparse array with missing='unstored'"
        )
        raise DataError(f"{name} is a sparse array with fill_value {array.fill_value}: {cure}")
    return array.asformat("coo").to_scipy_sparse()


def _pandas(frame: Any, name: str) -> InMemory:
    if any(getattr(dtype, "kind", "") == "O" for dtype in frame.dtypes):
        frame = frame.apply(lambda column: column.where(column.notna(), np.nan)).infer_objects()
    kinds = [_numpy_dtype(dtype) for dtype in frame.dtypes]
    _check_columns(frame.columns, frame.dtypes, [kind is not None for kind in kinds], name)
    if all(type(dtype).__name__ == "SparseDtype" and dtype.fill_value == 0 for dtype in frame.dtypes):
        return frame.sparse.to_coo()
    dtype = np.result_type(*kinds) if kinds else np.dtype(np.float64)
    if all(isinstance(kind, np.dtype) for kind in frame.dtypes):
        return frame.to_numpy(dtype=dtype)
    return frame.to_numpy(dtype=default_dtype(dtype), na_value=np.nan)


def _numpy_dtype(dtype: Any) -> np.dtype[Any] | None:
    """Return the NumPy dtype of a pandas column; None if it does not hold numbers."""
    inner = dtype.subtype if type(dtype).__name__ == "SparseDtype" else getattr(dtype, "numpy_dtype", dtype)
    return inner if isinstance(inner, np.dtype) and inner.kind in "biuf" else None


def _polars(frame: Any, name: str) -> InMemory:
    numeric = [dtype.is_numeric() or str(dtype) == "Boolean" for dtype in frame.dtypes]
    _check_columns(frame.columns, frame.dtypes, numeric, name)
    return _side_by_side(frame.shape, (column.to_numpy() for column in frame))


def _arrow(table: Any, name: str) -> InMemory:
    types = [str(kind) for kind in table.schema.types]
    _check_columns(table.schema.names, types, [kind.startswith(ARROW_NUMBERS) for kind in types], name)
    return _side_by_side(table.shape, (column.to_numpy(zero_copy_only=False) for column in table.columns))


def _xarray(array: Any, name: str) -> InMemory:
    check_decoded(array.attrs, name)
    return to_arrays(stack_dims(array, name=name).data, name)


def _side_by_side(shape: tuple[int, int], columns: Iterable[Any]) -> Array:
    """Return a table of columns, (rows, columns), in column order."""
    parts = [_numbers(np.asarray(column)) for column in columns]
    dtype = np.result_type(*parts) if parts else np.dtype(np.float64)
    table = np.empty(shape, dtype, order="F")
    for number, part in enumerate(parts):
        table[:, number] = part
    return table


def _check_columns(names: Iterable[Any], types: Iterable[Any], numeric: Iterable[bool], name: str) -> None:
    other = [f"{label} ({kind})" for label, kind, fine in zip(names, types, numeric, strict=True) if not fine]
    if other:
        shown = ", ".join(other[:5]) + (", ..." if len(other) > 5 else "")
        raise DataError(f"{name} has columns that hold no numbers: {shown}; leave them out, or convert them")


def _refusing(cure: str) -> Callable[[Any, str], InMemory]:
    """Return a conversion that raises TypeError and says what to give instead."""

    def refuse(source: Any, name: str) -> InMemory:
        kind = f"{type(source).__module__.partition('.')[0]}.{type(source).__name__}"
        raise TypeError(f"{name} is {kind}; {cure.replace('V', name)}")

    return refuse


def _through_array(source: Any, name: str) -> InMemory:
    try:
        array = np.asarray(source)
    except Exception as error:
        reason = " ".join(str(error).split())
        raise TypeError(
            f"{name} is {type(source).__name__}, and numpy.asarray({name}) fails ({reason}); "
            "give a NumPy array made of it"
        ) from error
    return array


CONVERSIONS = (  # the first that recognises an object is taken
    Conversion(scipy.sparse.issparse, _unchanged),
    Conversion(lambda source: isinstance(source, np.ma.MaskedArray), _masked),
    Conversion(lambda source: isinstance(source, np.ndarray), lambda source, name: _numbers(source)),
    Conversion(lambda source: isinstance(source, list | tuple), _rows),
    Conversion(lambda source: is_a(source, "pandas", "DataFrame"), _pandas),
    Conversion(lambda source: is_a(source, "polars", "DataFrame"), _polars),
    Conversion(lambda source: is_a(source, "pyarrow", "Table", "RecordBatch"), _arrow),
    Conversion(lambda source: is_a(source, "sparse", "SparseArray"), _pydata),
    Conversion(lambda source: is_a(source, "xarray", "DataArray", "Variable"), _xarray),
    Conversion(
        lambda source: is_a(source, "xarray", "Dataset", "DataTree"),
        _refusing("give one of its variables, as V['name']"),
    ),
    Conversion(lambda source: is_a(source, "polars", "LazyFrame"), _refusing("give V.collect()")),
    Conversion(lambda source: hasattr(source, "__array__") and not is_sliced(source), _through_array),
)
