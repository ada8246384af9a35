"""The layouts of the arrays that a run's record names: shapes, chunks, dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from dask_nmf.kernels.summary.residual_loops import WORST
from dask_nmf.kernels.summary.residual_sums import block_edges
from dask_nmf.planning import row_panels
from dask_nmf.runs.record.contents import (
    HISTORIES,
    SOURCES,
    carried_columns,
    digest_spans,
    is_masked,
    orientation_of,
    panel_shape,
)
from dask_nmf.sources.labels.names import PIECE
from dask_nmf.storage.arrays.write_once import INTEGER_FILL, TEXT, Layout

DIMENSIONS = ("row", "column")  # that may have names, and the arrays of these names
ADDED_DIGEST = "added_digest"  # of rows that were added to a result; it is not shown
NO_MEAN = -1.0  # the fill value of means, because all of them may be NaN


def layout_part(folder: str, edges: Sequence[int], cuts: Sequence[int] | None) -> dict[str, Any]:
    """Return the part ``layout`` of a record: how V is cut into panels and pieces of columns."""
    return {
        "folder": folder,
        "panels": len(edges) - 1,
        "pieces": 0 if cuts is None else len(cuts) - 1,
        "units": [row_panels.aligned_rows(edges), 0 if cuts is None else row_panels.aligned_rows(cuts)],
    }


def commit_layout(record: dict[str, Any], name: str) -> Layout:
    """Return how an array of a commit is stored."""
    rows, columns = panel_shape(record)
    if name in HISTORIES:
        return history_layout(record)
    if name in SOURCES:
        return _integers(digest_spans(record), "span")
    layout = record["layout"]
    if name in ("edges", "cuts"):
        return _integers(layout["panels" if name == "edges" else "pieces"] + 1, "edge")
    rank, dtype = record["settings"]["n_components"], record["matrix"]["dtype"]
    along, across = orientation_of(record).turn(("row", "column"))
    width = carried_columns(record)
    layouts = {
        "H": Layout((rank, columns), (rank, columns), dtype, ("component", "column")),
        "W": Layout((columns, rank), (columns, rank), dtype, ("row", "component")),
        "left": Layout((rows, width), (layout["units"][0], width), dtype, (along, "component")),
        "pieces": Layout((columns, rank), (layout["units"][1], rank), dtype, (across, "component")),
    }
    factor = Layout((width, columns), (width, columns), dtype, ("component", across))
    return layouts.get(name, factor)  # all others are arrays of a state


def result_layouts(record: dict[str, Any]) -> dict[str, Layout]:
    """Return how the arrays of a result are stored, by their names."""
    (m, n), dtype = record["matrix"]["shape"], record["matrix"]["dtype"]
    rank, (rows, columns) = record["settings"]["n_components"], record["units"]
    layouts = {
        "W": Layout((m, rank), (rows, rank), dtype, ("row", "component")),
        "H": Layout((rank, n), (rank, columns), dtype, ("component", "column")),
    } | dict.fromkeys(HISTORIES, history_layout(record))
    if not is_masked(record):
        return layouts
    layouts |= {
        "row_mean": Layout((m,), (rows,), dtype, ("row",), NO_MEAN),
        "column_mean": Layout((n,), (columns,), dtype, ("column",), NO_MEAN),
    }
    if not record.get("weighs_columns"):  # a run of an earlier version
        return layouts
    return layouts | {"column_weight": Layout((n,), (columns,), "float64", ("column",), NO_MEAN)}


def residual_layouts(record: dict[str, Any]) -> dict[str, Layout]:
    """Return how the residuals of a result are stored: of blocks, and of the worst rows and columns.

    Blocks have losses and sizes, and the worst of each side have numbers, losses and sizes.
    """
    sizes = record["matrix"]["shape"]
    blocks = (2, *(len(block_edges(size)) - 1 for size in sizes))
    layouts = {"residual_blocks": Layout(blocks, blocks, "float64", ("measure", "row_block", "column_block"))}
    for dimension, size in zip(DIMENSIONS, sizes, strict=True):
        shape = (3, min(WORST, size))
        layouts[f"residual_{dimension}s"] = Layout(shape, shape, "float64", ("measure", dimension))
    return layouts


def named_dimensions(record: dict[str, Any]) -> list[str]:
    """Return the dimensions that have names, in the record of a run or of its result."""
    named: list[str] = record.get("labels", {}).get("named", [])
    return named


def names_layout(record: dict[str, Any], dimension: str) -> Layout:
    """Return how the names of rows or columns are stored."""
    size = record["matrix"]["shape"][DIMENSIONS.index(dimension)]
    return Layout((size,), (min(size, PIECE),), TEXT, (dimension,), "")


def added_digest_layout(record: dict[str, Any]) -> Layout:
    """Return how the digests of rows that were added to a result are stored."""
    return _integers(record["added_spans"], "span")


def history_layout(record: dict[str, Any]) -> Layout:
    """Return how a history of a fit, or of its result, is stored."""
    passes = len(record["history"]["relative_error"])
    return Layout((passes,), (passes,), "float64", ("pass",), np.inf)


def result_units(record: dict[str, Any]) -> list[int]:
    """Return how many rows of W and columns of H are in one chunk, from the record of a fit."""
    along, across = record["layout"]["units"]
    return list(orientation_of(record).turn((along, across or panel_shape(record)[1])))


def _integers(size: int, dimension: str) -> Layout:
    return Layout((size,), (size,), "int64", (dimension,), INTEGER_FILL)


def check_edges(edges: Sequence[int], size: int) -> None:
    """Refuse edges of panels that do not cover ``size`` rows in order."""
    if len(edges) < 2 or (edges[0], edges[-1]) != (0, size) or any(a >= b for a, b in pairwise(edges)):
        raise ValueError(f"its panels do not cover {size} rows in order")
