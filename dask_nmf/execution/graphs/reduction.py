"""The graph of a pass over panels: a task for each panel, and a tree that combines their results."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple
from uuid import uuid4

import dask.array as da
import numpy as np
from dask.delayed import Delayed, delayed
from dask.highlevelgraph import HighLevelGraph

from dask_nmf.cluster import client
from dask_nmf.execution.tasks import prefetch
from dask_nmf.execution.tasks.blas import one_blas_thread
from dask_nmf.types import Array, Block

NOTHING = np.zeros(0)
PASS, SUMS = "pass-", "sums-"  # prefixes of the keys of panels, and of combined parts
CHUNK, INPUTS = "chunk-of-a-pass", "inputs-of-a-pass"  # placeholders for the nodes that differ between passes
FAN_IN = 8  # parts that one node of the tree combines


class PassInputs(NamedTuple):
    """The inputs that all panels of a pass share. They are sent once to each worker."""

    h: Array  # (k, n)
    edges: Sequence[int]  # of the panels: row numbers, the first 0
    w: Array | None = None  # the factor that panels hold, (rows, k), if the client has it
    prefetch: bool = False  # whether one more panel may be read while others are processed
    on_cluster: bool = False  # whether tasks run on workers
    scale: float = 1.0  # a power of two that V is multiplied by
    more_h: tuple[Array, ...] = ()  # the H of the further models of a sweep

    @property
    def aligned(self) -> PassInputs:
        """These inputs with H aligned and contiguous, because BLAS needs both."""
        h, *more = (np.require(each, requirements=["C", "A"]) for each in (self.h, *self.more_h))
        return self._replace(h=h, more_h=tuple(more))


@dataclass(frozen=True)
class Reduction:
    """The computation of a pass: a part for each panel, and the combination of neighbouring parts.

    Parameters
    ----------
    chunk : computes a part; called with a block of V, the blocks beside it (if any), ``panel`` (its number)
        and ``inputs`` (the `PassInputs`).
    combine : combines a list of neighbouring parts, in order, to one part.
    """

    chunk: Callable[..., Any]
    combine: Callable[[list[Any]], Any]


class PanelTasks:
    """The tasks of passes over panels: each loads a panel and the blocks beside it, and computes a part.

    Dask fuses the loading of a panel with its computation, once for all passes. Each pass takes copies of
    these tasks under other names, with its own chunk and inputs.

    Parameters
    ----------
    panels : V, with one block a panel.
    beside : other arrays, also with one block a panel.
    """

    def __init__(self, panels: da.Array, *beside: da.Array) -> None:
        count = panels.numblocks[0]
        boxes = panels.map_blocks(
            _boxed,
            Delayed(CHUNK, {CHUNK: None}),
            Delayed(INPUTS, {INPUTS: None}),
            *beside,
            name=f"{PASS}tasks",
            dtype=object,
            chunks=((1,) * count, (1,)),
            meta=np.empty((0, 0), object),
        )
        parts = boxes.to_delayed(optimize_graph=True).ravel()
        graph = dict(parts[0].dask)
        self._tasks = [graph.pop(part.key) for part in parts]
        self._sources = {key: node for key, node in graph.items() if key not in (CHUNK, INPUTS)}

    def map(self, chunk: Callable[..., Any], inputs: Delayed) -> list[Delayed]:
        """Return a delayed part for each panel; ``inputs`` is a delayed `PassInputs`."""
        name = f"{PASS}{uuid4().hex}"
        function = delayed(chunk, traverse=False, pure=False)
        nodes = {CHUNK: function.key, INPUTS: inputs.key}
        keys = [(name, number, 0) for number in range(len(self._tasks))]
        layer = dict(self._sources)
        layer |= {key: task.substitute(nodes, key=key) for key, task in zip(keys, self._tasks, strict=True)}
        graph = HighLevelGraph.from_collections(name, layer, dependencies=(function, inputs))
        return [Delayed(key, graph, layer=name) for key in keys]

    def reduce(self, reduction: Reduction, inputs: Delayed) -> Delayed:
        """Return the delayed result of a pass; ``inputs`` is a delayed `PassInputs`."""
        return combine_tree(self.map(reduction.chunk, inputs), reduction.combine)


def aligned(block: Block) -> Block:
    """Return a block aligned as BLAS needs it; one that came over the network may begin at any byte."""
    return np.require(block, requirements="A") if isinstance(block, np.ndarray) else block


def item(part: Delayed, index: int) -> Delayed:
    """Return one delayed item of a delayed part that is a tuple or a list."""
    return delayed(_item, pure=False)(part, index)


def _item(part: Any, index: int) -> Any:
    return unbox(part)[index]


def panel_of(key: Any) -> int | None:
    """Return the number of the panel that a task processes, or of the first that it combines; else None."""
    if isinstance(key, tuple):
        return int(key[1]) if key[0].startswith(PASS) else None
    return int(key.rpartition("-")[2]) if key.startswith(SUMS) else None


def _boxed(
    v: Block, chunk: Callable[..., Any], inputs: PassInputs, *beside: Array, block_id: tuple[int, ...]
) -> Any:
    """Return a part as the only entry of a block.

    H and V are aligned first. NumPy would not use BLAS for unaligned arrays, and then the last digits would
    depend on which worker had H first.
    """
    inputs, v = inputs.aligned, aligned(v)
    box = np.empty((1, 1), object)
    with one_blas_thread(), prefetch.compute_slot(inputs.on_cluster) if inputs.prefetch else nullcontext():
        box[0, 0] = chunk(v, *beside, panel=block_id[0], inputs=inputs)
    client.announce_panel()
    return box


def unbox(part: Any) -> Any:
    """Return the only entry of a block of objects; anything else is returned unchanged."""
    return part[0, 0] if isinstance(part, np.ndarray) and part.dtype == object else part


def combine_tree(parts: Sequence[Delayed], combine: Callable[[list[Any]], Any]) -> Delayed:
    """Return the delayed root of a tree that combines FAN_IN neighbours at a time.

    The shape of the tree, and so the order of additions, depends on the number of parts only.
    """
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
    """Return the number of rows of each panel (or of columns, from edges of columns)."""
    return tuple(last - first for first, last in pairwise(edges))
