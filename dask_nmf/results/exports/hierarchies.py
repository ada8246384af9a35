"""Files of HDF5: AnnData's (.h5ad), with obsm["X_nmf"], varm["nmf"] and uns["nmf"], and netCDF's (.nc)."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from dask_nmf._version import __version__
from dask_nmf.results.exports.content import MARK, Content, Format
from dask_nmf.results.sides import Side

KEYS = {"row": ("obs", "obsm", "X_nmf"), "column": ("var", "varm", "nmf")}  # of AnnData, for each side
CHUNK = 2**20  # bytes of a factor in a chunk
NAMES = 2**13  # names in a chunk


def write_h5ad(path: Path, content: Content) -> None:
    """Write AnnData's layout without an X; ``anndata.read_h5ad`` reads it.

    The layout is that of https://anndata.readthedocs.io/en/stable/fileformat-prose.html.
    """
    h5py: Any = import_module("h5py")
    text = h5py.string_dtype()
    with h5py.File(path, "x") as file:
        _encode(file, "anndata", "0.1.0").attrs[MARK] = __version__
        for name in ("layers", "obsp", "varp"):
            _encode(file.create_group(name), "dict", "0.1.0")
        for side in (content.rows, content.columns):
            frame, folder, key = KEYS[side.dimension]
            index = _encode(file.create_group(frame), "dataframe", "0.2.0")
            index.attrs["_index"], index.attrs["column-order"] = "_index", np.empty(0, text)
            names = index.create_dataset("_index", (side.size,), text, chunks=(min(NAMES, side.size),))
            _encode(names, "string-array", "0.2.0")
            inside = _encode(file.create_group(folder), "dict", "0.1.0")
            shape = (side.size, side.rank)
            factor = inside.create_dataset(key, shape, side.dtype, chunks=_chunks(side))
            _write_side(side, _encode(factor, "array", "0.2.0"), names)
        _write_uns(_encode(file.create_group("uns"), "dict", "0.1.0"), content, text)


def _write_uns(uns: Any, content: Content, text: Any) -> None:
    """Write uns["nmf"]: the parameters, and the history of the error."""
    inside = _encode(uns.create_group("nmf"), "dict", "0.1.0")
    parameters = _encode(inside.create_group("params"), "dict", "0.1.0")
    for name, value in content.parameters.items():
        if isinstance(value, str):
            _encode(parameters.create_dataset(name, data=value, dtype=text), "string", "0.2.0")
        else:
            _encode(parameters.create_dataset(name, data=value), "numeric-scalar", "0.2.0")
    history = inside.create_dataset("error_history", data=content.error_history)
    _encode(history, "array", "0.2.0")


def write_netcdf(path: Path, content: Content) -> None:
    """Write netCDF-4: W, H and error_history, with the coordinates row and column where there are names."""
    text = import_module("h5py").string_dtype()
    rows, columns, history = content.rows, content.columns, content.error_history
    with import_module("h5netcdf").File(path, "w") as file:
        file.attrs[MARK] = __version__
        sizes = {"row": rows.size, "column": columns.size, "component": rows.rank, "pass": len(history)}
        file.dimensions = sizes
        for side in (rows, columns):
            names = None
            if side.names is not None:
                few = (min(NAMES, side.size),)
                names = file.create_variable(side.dimension, (side.dimension,), text, chunks=few)
            upright, chunks = (side.dimension, "component"), _chunks(side)
            if side.dimension == "row":
                factor = file.create_variable("W", upright, side.dtype, chunks=chunks)
                _write_side(side, factor, names)
            else:
                factor = file.create_variable("H", upright[::-1], side.dtype, chunks=chunks[::-1])
                _write_side(side, factor, names, turned=True)
        file.create_variable("error_history", ("pass",), history.dtype)[...] = history
        for name, value in content.parameters.items():
            file.attrs[name] = int(value) if isinstance(value, bool) else value


def _write_side(side: Side, factor: Any, names: Any, turned: bool = False) -> None:
    """Write the lines of a side, or its columns if the factor is ``turned``, and the names, in pieces."""
    for first, lines in side.pieces():
        last = first + len(lines)
        if turned:
            factor[:, first:last] = lines.T
        else:
            factor[first:last] = lines
        if names is not None:
            names[first:last] = _storable(side, first, last)


def _storable(side: Side, first: int, last: int) -> Any:
    """Return a range of names as HDF5 holds them; refuse one with a NUL, at which HDF5 ends a text."""
    names = side.names_of(first, last).astype(object)
    for number, name in enumerate(names.tolist(), first):
        if "\0" in name:
            raise ValueError(
                f"{side.dimension} {number} is called {name!r}, and HDF5 holds no name with a NUL; "
                "export to .parquet or .csv, or rename it"
            )
    return names


def _chunks(side: Side) -> tuple[int, int]:
    return min(side.size, max(1, CHUNK // (side.rank * side.dtype.itemsize))), side.rank


def _encode(node: Any, kind: str, version: str) -> Any:
    """Set the encoding of AnnData of a node, and return it."""
    node.attrs["encoding-type"], node.attrs["encoding-version"] = kind, version
    return node


def _is_ours(path: Path) -> bool:
    with import_module("h5py").File(path, "r") as file:
        return MARK in file.attrs


H5AD = Format(write_h5ad, _is_ours, both=True)
NETCDF = Format(write_netcdf, _is_ours, both=True)
