"""The graph of a pass over panels: a task for each panel, and a tree that combines their results."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import uuid4

import numpy as np
from dask.delayed import Delayed, delayed
from dask.highlevelgraph import HighLevelGraph

from dask_nmf.cluster import client
from dask_nmf.execution.tasks import prefetch, stopwatch
from dask_nmf.execution.tasks.blas import one_blas_thread
from dask_nmf.execution.tasks.panel_reader import PanelReader
from dask_nmf.types import Array, Block

if TYPE_CHECKING:  # workers need it only for a V that is a Dask array
    import dask.array as da

PASS, SUMS = "nmf-pass-", "nmf-sums-"  # prefixes of the keys of panels, and of combined parts
KEY = re.compile(rf"{PASS}[0-9a-f]{{32}}|{SUMS}[0-9a-f]{{32}}-\d+-(\d+)")  # users may have similar ones
WORK, INPUTS = "work-of-a-pass", "inputs-of-a-pass"  # placeholders for the nodes that differ between passes
FAN_IN = 8  # parts that one node of the tree combines
FEW = 3  # parts that one task of a node combines, where they are large: see `combine_tree`


class PassInputs(NamedTuple):
    """The inputs that all panels of a pass share. They are sent once to each worker."""

    h: Array  # (k, n)
    edges: Sequence[int]  # of the panels: row numbers, the first 0
    w: Array | None = None  # the factor that panels hold, (rows, k), if the client has it
    prefetch: bool = False  # whether one more panel may be read while others are processed
    on_cluster: bool = False  # whether tasks run on workers
    scale: float = 1.0  # a power of two that V is multiplied by
    more_h: tuple[Array, ...] = ()  # the H of the further models of a sweep
    fit: str = ""  # the fit for which the time of tasks is counted

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
    at_once : how many parts a task combines: see `combine_tree`.
    """

    chunk: Callable[..., Any]
    combine: Callable[[list[Any]], Any]
    at_once: int = FAN_IN


class Panels(NamedTuple):
    """V in panels, as tasks get them: from their reader, and from Dask arrays with one block a panel."""

    reader: PanelReader
    arrays: tuple[da.Array, ...] = ()  # V and its weights, as far as the reader does not read them

    def select(self, numbers: list[int]) -> Panels:
        """Return some of the panels."""
        return Panels(self.reader.select(numbers), tuple(array.blocks[numbers] for array in self.arrays))


@dataclass(frozen=True)
class PanelWork:
    """The work of the tasks of a pass: load a panel, and compute its part. It is sent once to each worker."""

    reader: PanelReader
    chunk: Callable[..., Any]

    def run(self, panel: int, inputs: PassInputs, *blocks: Block) -> Any:
        """Return the part of a panel.

        H and V are aligned first. NumPy would not use BLAS for unaligned arrays, and then the last digits
        would depend on which worker had H first.

        Parameters
        ----------
        blocks : the blocks of the panel that Dask has: those that the reader takes, then those beside V.
        """
        remaining = iter(blocks)
        with stopwatch.of_fit(inputs.fit), ExitStack() as held:
            with stopwatch.spending(stopwatch.READ):
                v, inputs = self.reader.load(panel, remaining), inputs.aligned
            held.enter_context(one_blas_thread())
            if inputs.prefetch:
                with stopwatch.spending(stopwatch.WAIT):
                    held.enter_context(prefetch.compute_slot(inputs.on_cluster))
            return self.chunk(v, *remaining, panel=panel, inputs=inputs)


class PanelTasks:
    """The tasks of passes over panels: each loads a panel and the blocks beside it, and computes a part.

    Parameters
    ----------
    panels : V.
    beside : other arrays, with one block a panel.
    """

    def __init__(self, panels: Panels, *beside: da.Array) -> None:
        self.reader = panels.reader
        self._fused = _Fused(*panels.arrays, *beside) if panels.arrays or beside else None

    def map(self, chunk: Callable[..., Any], inputs: Delayed) -> list[Delayed]:
        """Return a delayed part for each panel; ``inputs`` is a delayed `PassInputs`."""
        name = f"{PASS}{uuid4().hex}"
        work = delayed(PanelWork(self.reader, chunk), traverse=False, pure=False)
        keys = [(name, number) for number in range(len(self.reader.rows))]
        if self._fused is None:
            layer = {key: (_run_task, key[1], work.key, inputs.key) for key in keys}
        else:
            layer = self._fused.layer(keys, work, inputs)
        graph = HighLevelGraph.from_collections(name, layer, dependencies=(work, inputs))
        return [Delayed(key, graph, layer=name) for key in keys]

    def reduce(self, reduction: Reduction, inputs: Delayed) -> Delayed:
        """Return the delayed result of a pass; ``inputs`` is a delayed `PassInputs`."""
        return combine_tree(self.map(reduction.chunk, inputs), reduction.combine, reduction.at_once)


class _Fused:
    """Tasks for panels of which Dask has blocks: Dask fuses the computation of a block with its task.

    They are fused once for all passes. Each pass takes copies under other names, with its work and inputs.

    Parameters
    ----------
    arrays : have one block a panel.
    """

    def __init__(self, first: da.Array, *more: da.Array) -> None:
        count = first.numblocks[0]
        parts = first.map_blocks(
            _run_task_with_blocks,
            Delayed(WORK, {WORK: None}),
            Delayed(INPUTS, {INPUTS: None}),
            *more,
            name=f"{PASS}tasks",
            dtype=object,
            chunks=((1,) * count, (1,)),
            meta=np.empty((0, 0), object),
        )
        delayed_parts = parts.to_delayed(optimize_graph=True).ravel()
        graph = dict(delayed_parts[0].dask)
        self._tasks = [graph.pop(part.key) for part in delayed_parts]
        self._sources = {key: node for key, node in graph.items() if key not in (WORK, INPUTS)}

    def layer(self, keys: Sequence[Any], work: Delayed, inputs: Delayed) -> dict[Any, Any]:
        """Return the tasks of a pass under some keys, one a panel, and the tasks that they depend on."""
        nodes = {WORK: work.key, INPUTS: inputs.key}
        tasks = zip(keys, self._tasks, strict=True)
        return self._sources | {key: task.substitute(nodes, key=key) for key, task in tasks}


def _run_task(panel: int, work: PanelWork, inputs: PassInputs, *blocks: Block) -> Any:
    part = work.run(panel, inputs, *blocks)
    client.announce_panel()
    return part


def _run_task_with_blocks(
    first: Block, work: PanelWork, inputs: PassInputs, *more: Block, block_id: tuple[int, ...]
) -> Any:
    return _run_task(block_id[0], work, inputs, first, *more)


def item(part: Delayed, index: int) -> Delayed:
    """Return one delayed item of a delayed part that is a tuple or a list."""
    return delayed(_item, pure=False)(part, index)


def _item(part: Any, index: int) -> Any:
    return part[index]


def panel_of(key: Any) -> int | None:
    """Return the number of the panel that a task processes, or of the first that it combines; else None."""
    name = key[0] if isinstance(key, tuple) else key
    known = KEY.fullmatch(name) if isinstance(name, str) else None
    if known is None:
        return None
    return int(key[1] if known[1] is None else known[1])


def combine_tree(
    parts: Sequence[Delayed], combine: Callable[[list[Any]], Any], at_once: int = FAN_IN
) -> Delayed:
    """Return the delayed root of a tree that combines FAN_IN neighbours at a time.

    The shape of the tree, and so the order of additions, depends on the number of parts only.

    Parameters
    ----------
    at_once : how many parts one task of a node combines. If they are fewer than FAN_IN, the next task goes on
        with its result and the next parts: there are more tasks, and fewer parts wait in the memory of a
        worker. The parts of 500 panels, of which 25 are there at once, are then 10 to 15. Sums come out the
        same, bit for bit, because they are added in their order in any case.
    """
    level, width, name = [part.key for part in parts], 1, f"{SUMS}{uuid4().hex}"
    layer: dict[str, Any] = {}
    while True:
        nodes = [level[first : first + FAN_IN] for first in range(0, len(level), FAN_IN)]
        width *= FAN_IN
        level = []
        for number, keys in enumerate(nodes):
            before: list[Any] = []
            for step, more in enumerate(_in_turn(keys, at_once)):
                key = f"{name}-{width + step}-{number * width}"
                layer[key], before = (combine, before + more), [key]
            level += before
        if len(level) == 1:
            graph = HighLevelGraph.from_collections(name, layer, dependencies=parts)
            return Delayed(level[0], graph, layer=name)


def _in_turn(keys: list[Any], at_once: int) -> Iterator[list[Any]]:
    """Yield the parts that each task of a node combines, but for the result of the task before."""
    yield keys[:at_once]
    for first in range(at_once, len(keys), at_once - 1):
        yield keys[first : first + at_once - 1]


def heights(edges: Sequence[int]) -> tuple[int, ...]:
    """Return the number of rows of each panel (or of columns, from edges of columns)."""
    return tuple(last - first for first, last in pairwise(edges))
