"""The two steps of a pass over panels: a task for each panel, and a tree that combines their results."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from itertools import pairwise
from typing import Any, NamedTuple
from uuid import uuid4

import dask.array as da
import numpy as np
from dask import delayed
from dask.delayed import Delayed
from dask.highlevelgraph import HighLevelGraph

from dask_nmf.cluster import client
from dask_nmf.execution.tasks import prefetch
from dask_nmf.execution.tasks.blas import one_blas_thread
from dask_nmf.types import Array, Block

NOTHING = np.zeros(0)

PASS, SUMS = "pass-", "sums-"  # how the keys of panels begin, and of what is combined

FAN_IN = 8  # of the tree of sums


class PassInputs(NamedTuple):
    """What every panel of a pass is given. Sent once to each worker."""

    h: Array  # (k, n)
    edges: Sequence[int]  # of the panels
    left: Array | None = None  # the factor that panels hold, (rows, k), where it is at hand
    ahead: bool = False  # whether one panel more may be read meanwhile
    on_cluster: bool = False  # whether tasks run on workers
    scale: float = 1.0  # a power of two, by which V counts


def aligned(block: Block) -> Block:
    """A block that BLAS takes. What came over the network may begin at any byte."""
    return np.require(block, requirements="A") if isinstance(block, np.ndarray) else block


def item(pair: Delayed, index: int) -> Delayed:
    """One half of what `weigh_all` gives."""
    return delayed(_item, pure=False)(pair, index)


def _item(pair: Any, index: int) -> Any:
    return unbox(pair)[index]


def map_panels(
    panels: da.Array, function: Callable[..., Any], given: Delayed, *beside: da.Array, **kwargs: Any
) -> list[Delayed]:
    """One delayed result a panel, its loading (and that of blocks beside it) fused into the same task."""
    count = panels.numblocks[0]
    boxes = panels.map_blocks(
        _boxed,
        given,
        *beside,
        function=function,
        name=f"{PASS}{uuid4().hex}",  # or Dask would hash every argument, each pass
        dtype=object,
        chunks=((1,) * count, (1,)),
        meta=np.empty((0, 0), object),
        **kwargs,
    )
    return list(boxes.to_delayed(optimize_graph=True).ravel())


def panel_of(key: Any) -> int | None:
    """The number of the panel that a task of a pass looks at, or of the first one that it combines."""
    if isinstance(key, tuple):
        return int(key[1]) if key[0].startswith(PASS) else None
    return int(key.rpartition("-")[2]) if key.startswith(SUMS) else None


def _boxed(
    v: Block,
    given: PassInputs,
    *beside: Array,
    function: Callable[..., Any],
    block_id: tuple[int, ...],
    **kwargs: Any,
) -> Any:
    """An object of ours as the only entry of a block.

    H and V are aligned first: NumPy would leave BLAS aside, and the last digits would depend on which worker
    had H first.
    """
    given = given._replace(h=np.require(given.h, requirements=["C", "A"]))
    v = aligned(v)
    box = np.empty((1, 1), object)
    with one_blas_thread(), prefetch.compute_slot(given.on_cluster) if given.ahead else nullcontext():
        box[0, 0] = function(v, *beside, panel=block_id[0], given=given, **kwargs)
    client.announce_panel()
    return box


def unbox(part: Any) -> Any:
    return part[0, 0] if isinstance(part, np.ndarray) and part.dtype == object else part


def reduce_tree(parts: Sequence[Delayed], combine: Callable[[list[Any]], Any]) -> Delayed:
    """Combine neighbours, FAN_IN at a time; the shape depends on the number of parts only."""
    level, width, name = [part.key for part in parts], 1, f"{SUMS}{uuid4().hex}"
    layer: dict[str, Any] = {}
    while True:
        width *= FAN_IN
        firsts = range(0, len(level), FAN_IN)
        above = [f"{name}-{width}-{first * width // FAN_IN}" for first in firsts]
        for key, first in zip(above, firsts, strict=True):
            layer[key] = (_combine, level[first : first + FAN_IN], combine)
        level = above
        if len(level) == 1:
            graph = HighLevelGraph.from_collections(name, layer, dependencies=parts)
            return Delayed(level[0], graph, layer=name)


def _combine(parts: list[Any], combine: Callable[[list[Any]], Any]) -> Any:
    return combine([unbox(part) for part in parts])


def heights(edges: Sequence[int]) -> tuple[int, ...]:
    """Rows of each panel."""
    return tuple(last - first for first, last in pairwise(edges))
