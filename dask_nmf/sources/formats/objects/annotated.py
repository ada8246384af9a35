"""AnnData, of which X or a layer is the matrix: in memory, of Dask, or in a file."""

from __future__ import annotations

from typing import Any

from dask_nmf.errors import DataError
from dask_nmf.sources.decoding.conversion import is_a


def is_annotated(source: Any) -> bool:
    """Return whether an object is an AnnData."""
    return is_a(source, "anndata", "AnnData")


def matrix_within(source: Any, layer: str | None = None, name: str = "V") -> Any:
    """Return the matrix of an AnnData, which is not read; any other source is returned unchanged.

    Parameters
    ----------
    layer : a layer to take in place of X.
    name : how messages call the source.

    Raises
    ------
    DataError
        If there is no such matrix.
    TypeError
        For a view of an AnnData in a file, whose X is read as a whole whenever it is asked for.
    """
    if not is_annotated(source):
        return source
    layers = ", ".join(source.layers) or "none"
    if layer is not None:
        if layer not in source.layers:
            raise DataError(f"{name} has no layer {layer!r}; its layers: {layers}")
        return source.layers[layer]
    if source.isbacked and source.is_view:
        raise TypeError(
            f"{name} is a view of {source.filename}, an AnnData in a file; give {name}.to_memory(), or the "
            "whole AnnData"
        )
    if source.X is None:
        raise DataError(
            f"{name} is an AnnData without X; give one of its layers, as {name}.layers['name']: {layers}"
        )
    return source.X
