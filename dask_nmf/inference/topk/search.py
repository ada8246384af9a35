"""The top-k search over all of V, some panels at a time."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any, NamedTuple

import dask.array as da
import numpy as np
import zarr

from dask_nmf.execution import partition
from dask_nmf.execution.engines.panels import PanelEngine
from dask_nmf.execution.graphs.reduction import heights
from dask_nmf.inference import factors
from dask_nmf.inference.factors import Clip
from dask_nmf.inference.topk import passes, row_marks
from dask_nmf.inference.topk.kernel import TopK, TopKSpec
from dask_nmf.inference.topk.sides import panel_sides
from dask_nmf.kernels.summary.means import Means
from dask_nmf.sources.matrix import Matrix
from dask_nmf.sources.registry import open_matrix
from dask_nmf.types import Array

CELLS = 2**22  # cells of results that come to this process at once


class Search(NamedTuple):
    """A model, and the columns to find for each row of V."""

    W: Any  # (m, k)
    H: Any  # (k, n)
    spec: TopKSpec
    means: Means | None
    clip: Clip | None


def run(matrix: Matrix, search: Search, marks: Array | None) -> Iterator[tuple[Array, TopK]]:
    """Yield numbers of rows of V, in order, and the top-k columns of these rows.

    Parameters
    ----------
    marks : the rows to search, as `row_marks.mark_rows` returns them; None: all rows of V.
    """
    spec, width = search.spec, search.H.shape[0] + (search.means is not None)
    by_columns = matrix.orientation.by_columns
    listed = spec.n_columns * (3 if by_columns else 2)  # the lists of a row, counted as components
    panels, planned = partition.cut_into_panels(matrix, max(width, listed))
    along, _ = matrix.orientation.turn((search.W, search.H))  # the factor that workers read
    if isinstance(along, zarr.Array):
        partition.check_sight(open_matrix(along))
    w, h = panel_sides(search.W, search.H, search.means, heights(planned.edges), matrix.orientation)
    search_panels = _search_columns if by_columns else _search_rows
    for numbers, best in search_panels(panels, w, h, spec, marks):
        known = _without_zero_rows(best)
        yield numbers, known._replace(values=factors.clip_values(known.values, search.clip))


def _without_zero_rows(best: TopK) -> TopK:
    """Return the best columns without those of rows for which all values are 0."""
    zero = ~(best.values > 0).any(axis=1, keepdims=True)
    return TopK(np.where(zero, -1, best.columns), np.where(zero, np.nan, best.values))


def _search_columns(
    panels: PanelEngine, w: da.Array, h: Array, spec: TopKSpec, marks: Array | None
) -> Iterator[tuple[Array, TopK]]:
    """Yield the numbers and the best of all rows at once, from panels of columns."""
    m = h.shape[1]
    chosen = None if marks is None else row_marks.unpack(marks, 0, m)
    numbers = np.arange(m) if chosen is None else np.flatnonzero(chosen)
    yield numbers, passes.top_k_by_columns(panels, w, h, spec, chosen)


def _search_rows(
    panels: PanelEngine, w: da.Array, h: Array, spec: TopKSpec, marks: Array | None
) -> Iterator[tuple[Array, TopK]]:
    """Yield the numbers and the best of the rows of each panel; a panel without a marked row is not read."""
    offer, edges = partition.resources(), panels.edges
    some = max(1, offer.threads * offer.workers, CELLS // (spec.n_columns * max(heights(edges))))
    wanted = [
        panel
        for panel, (first, last) in enumerate(pairwise(edges))
        if marks is None or row_marks.unpack(marks, first, last).any()
    ]
    for group in (wanted[at : at + some] for at in range(0, len(wanted), some)):
        chosen, numbers = None, [np.arange(edges[panel], edges[panel + 1]) for panel in group]
        if marks is not None:
            masks = [row_marks.unpack(marks, edges[panel], edges[panel + 1]) for panel in group]
            numbers = [rows[mask] for rows, mask in zip(numbers, masks, strict=True)]
            chunks = tuple(map(len, masks)), (1,)
            chosen = da.from_array(np.concatenate(masks)[:, None], chunks=chunks, name=False)
        yield from zip(numbers, passes.top_k(panels, w, h, spec, group, chosen), strict=True)
