"""The top-k search over V in one pass, as row panels or as panels of columns."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from dask.delayed import Delayed

from dask_nmf.execution.engines.panels import PanelEngine
from dask_nmf.execution.graphs.reduction import Panels, PanelTasks, PassInputs, Reduction
from dask_nmf.inference.topk import kernel
from dask_nmf.inference.topk.kernel import TopK, TopKSpec
from dask_nmf.types import Array, Block

if TYPE_CHECKING:  # workers need it only for arrays that are Dask's
    import dask.array as da


def top_k(
    panels: PanelEngine, w: da.Array, h: Array, spec: TopKSpec, some: list[int], chosen: da.Array | None
) -> list[TopK]:
    """Return the top-k columns of the rows of some panels, in one pass over these panels.

    Parameters
    ----------
    w : (m, k), with one block a panel.
    h : (k, n).
    some : numbers of panels.
    chosen : booleans, (rows of these panels, 1), with one block a panel: which rows to search. None: all.
    """

    def build(inputs: Delayed) -> list[Delayed]:
        return top_k_graph(panels.panels.select(some), w.blocks[some], inputs, spec, chosen)

    return panels.compute_all(h, build)


def top_k_by_columns(
    panels: PanelEngine, w: da.Array, h: Array, spec: TopKSpec, chosen: Array | None
) -> TopK:
    """Return the top-k columns of all rows of V, in one pass over panels of columns.

    Parameters
    ----------
    w : Hᵀ, (n, k), with one block a panel.
    h : Wᵀ, (k, m).
    chosen : booleans, (m,): which rows of V to search. None: all.
    """
    search = Reduction(partial(_top_k_by_columns, spec=spec, chosen=chosen), kernel.merge)
    best: TopK = panels.compute_beside(h, search, w)
    return best


def top_k_graph(
    panels: Panels, w: da.Array, inputs: Delayed, spec: TopKSpec, chosen: da.Array | None = None
) -> list[Delayed]:
    """Return a delayed `TopK` for each panel; ``w`` and ``chosen`` as for `top_k`."""
    blocks = [w] if chosen is None else [w, chosen]
    return PanelTasks(panels, *blocks).map(partial(_top_k, spec=spec), inputs)


def _top_k(
    v: Block, w: Array, chosen: Array | None = None, *, panel: int, inputs: PassInputs, spec: TopKSpec
) -> TopK:
    if chosen is not None:
        v, w = v[chosen[:, 0]], w[chosen[:, 0]]
    return kernel.top_k(v, np.require(w, requirements="A"), inputs.h, spec)


def _top_k_by_columns(
    v: Block, w: Array, *, panel: int, inputs: PassInputs, spec: TopKSpec, chosen: Array | None
) -> TopK:
    h = inputs.h
    if chosen is not None:
        v, h = v[:, chosen], np.ascontiguousarray(h[:, chosen])
    best = kernel.top_k_by_columns(v, np.require(w, requirements="A"), h, spec)
    return best.shifted(inputs.edges[panel])
