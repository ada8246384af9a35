"""The graphs of a pass over V. Nothing here computes: each function returns delayed sums or blocks.

A pass is one task a panel (load, look, return what H needs) and a tree that adds up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import cache, partial, reduce
from itertools import pairwise
from operator import add
from typing import Any, NamedTuple, Protocol
from uuid import uuid4

import dask.array as da
import numpy as np
import scipy.linalg  # noqa: F401  SciPy brings a BLAS of its own: it must be there to be pinned
from dask import delayed
from dask.delayed import Delayed
from dask.highlevelgraph import HighLevelGraph
from dask.sizeof import sizeof
from threadpoolctl import ThreadpoolController

from dask_nmf.cluster import client
from dask_nmf.errors import DataError
from dask_nmf.execution import prefetch
from dask_nmf.kernels import least_squares
from dask_nmf.kernels.blocks import masking, scaling
from dask_nmf.kernels.blocks.masked import Cells
from dask_nmf.kernels.blocks.masking import Observed, Rule
from dask_nmf.kernels.least_squares import Sums
from dask_nmf.kernels.summary import row_sample
from dask_nmf.kernels.summary.row_sample import Draw, Summary
from dask_nmf.process_settings import SharedSetting
from dask_nmf.types import Array, Block

NOTHING = np.zeros(0)
PASS, SUMS = "pass-", "sums-"  # how the keys of panels begin, and of what is combined
FAN_IN = 8  # of the tree of sums


class Weigher(Protocol):
    """How the W of a panel comes from (v, h, w before)."""

    def __call__(self, v: Block, h: Array, w: Array | None) -> Array: ...


class Loss(Protocol):
    """What is to be small, and what H learns from a panel to make it so: a `Solver` has it."""

    def learn(self, v: Block, w: Array, h: Array, exact: bool) -> Sums: ...

    def error(self, v: Block, w: Array, h: Array, final: bool = False) -> float: ...


class Weights(Protocol):
    """A W kept outside of the graph, by rows: written by one pass, read by the next."""

    def read(self, first: int, last: int) -> Array: ...

    def write(self, first: int, w: Array) -> None: ...


class HeldWeights:
    """A W in this process's memory."""

    def __init__(self, rows: int, rank: int, dtype: np.dtype[Any]) -> None:
        self.array = np.zeros((rows, rank), dtype)

    def read(self, first: int, last: int) -> Array:
        return self.array[first:last]

    def write(self, first: int, w: Array) -> None:
        self.array[first : first + len(w)] = w


@dataclass(frozen=True)
class InUnits:
    """A W kept outside of the graph, read in units of which its own are so many."""

    place: Weights
    unit: float

    def read(self, first: int, last: int) -> Array:
        return scaling.times(self.place.read(first, last), self.unit)

    def write(self, first: int, w: Array) -> None:
        self.place.write(first, scaling.times(w, 1 / self.unit))


class Given(NamedTuple):
    """What every panel of a pass is given. Sent once to each worker."""

    h: Array  # (k, n)
    edges: Sequence[int]  # of the panels
    left: Array | None = None  # the factor that panels hold, (rows, k), where it is at hand
    ahead: bool = False  # whether one panel more may be read meanwhile
    on_cluster: bool = False  # whether tasks run on workers
    scale: float = 1.0  # a power of two, by which V counts


class Weighing(NamedTuple):
    """What a pass does with each panel."""

    weigh: Weigher
    loss: Loss
    before: Weights | None = None  # the W that is carried in
    after: Weights | None = None  # where W goes
    keep: bool = False  # W is returned beside the sums
    residual: bool = False  # the loss is taken entry by entry
    check: bool = False  # raise on the first entry that is negative or not finite
    bare: bool = False  # of the sums, no more than the residual
    averages: bool = False  # the means of the rows are taken, and `Sums.columns`
    means: Weights | None = None  # where those of the rows go
    unit: float = 1.0  # by which the W that is kept or goes away is multiplied
    anew: Callable[[Weighing, float], Weighing] | None = None  # the same, for V at the scale of a panel


def summarise(panels: da.Array, given: Delayed, draw: Draw) -> Delayed:
    """The first read of V: a delayed `Summary`."""
    parts = map_panels(panels, _summarise, given=given, draw=draw)
    return reduce_tree(parts, partial(row_sample.merge, draw=draw))


def sweep(panels: da.Array, given: Delayed, weighing: Weighing, held: da.Array | None = None) -> Delayed:
    """One pass: a delayed `Sums`. ``given`` is a delayed `Given`.

    ``held`` has the factor that panels hold, (rows, k), with one block a panel, where it is in such blocks.
    """
    sums = map_panels(panels, _weigh, given, *(() if held is None else (held,)), weighing=weighing)
    return reduce_tree(sums, _add)


def weigh_all(panels: da.Array, given: Delayed, weighing: Weighing) -> list[Delayed]:
    """One pass that keeps W: a delayed (W, `Sums`, means of rows, if taken) for each panel."""
    return map_panels(panels, _weigh, given=given, weighing=weighing._replace(keep=True))


def observe(panels: da.Array, weights: da.Array | None, edges: Sequence[int], rule: Rule) -> da.Array:
    """Panels of `Observed` blocks."""
    parts = [panels] if weights is None else [panels, weights]
    return da.map_blocks(
        _observe,
        *parts,
        edges=tuple(edges),
        rule=rule,
        dtype=panels.dtype,
        meta=np.empty((0, 0), panels.dtype),
    )


@sizeof.register(Observed)
def _bytes(block: Observed) -> int:
    """Return the bytes of a block, which Dask would count as an object without contents."""
    return int(sizeof(block.v) + sizeof(block.weights) + sizeof(block.rows))


def _observe(
    v: Block,
    *weights: Block,
    edges: Sequence[int],
    rule: Rule,
    block_id: tuple[int, ...],
) -> Observed:
    first = edges[block_id[0]]
    rows = np.arange(first, first + v.shape[0])
    return Observed(aligned(v), aligned(weights[0]) if weights else None, rows, rule)


def block_of(panel: Block, first: int, last: int) -> Block:
    """Some columns of a panel."""
    if not isinstance(panel, Observed):
        return panel[:, first:last]
    assert panel.weights is None
    return replace(panel, v=panel.v[:, first:last], first_column=first)


def aligned(block: Block) -> Block:
    """A block that BLAS takes. What came over the network may begin at any byte."""
    return np.require(block, requirements="A") if isinstance(block, np.ndarray) else block


def add_up(parts: Sequence[Delayed]) -> Delayed:
    """Sums of sums, by the same tree in every pass: the order of additions is part of the result."""
    return reduce_tree(parts, _add)


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
    given: Given,
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
    with one_blas_thread(), prefetch.working(given.on_cluster) if given.ahead else nullcontext():
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


def _add(parts: list[Any]) -> Any:
    return reduce(add, parts)


def _summarise(v: Block, panel: int, given: Given, draw: Draw) -> Summary:
    return row_sample.summarise(v, given.edges[panel], draw)


def _weigh(
    v: Block, held: Array | None = None, *, panel: int, given: Given, weighing: Weighing
) -> Sums | tuple[Array, Sums, Array]:
    first, last = given.edges[panel], given.edges[panel + 1]
    scale, alone = given.scale, weighing.anew is not None
    own = _check(v, first) if weighing.check else scale
    if weighing.anew is not None:
        scale, weighing = own, weighing.anew(weighing, own)
    before = held if given.left is None else given.left[first:last]
    if weighing.before is not None:
        before = weighing.before.read(first, last)
    w, sums = look(masking.at_scale(v, scale), given.h, weighing, before)
    w = scaling.times(w, weighing.unit)
    if alone:
        check_factor(w)
        sums = sums._replace(num=scaling.times(sums.num, 1 / scale))
    if weighing.after is not None:
        weighing.after.write(first, w)
    means = NOTHING
    if weighing.averages:
        found = masking.total(v)
        means, sums = found.rows.astype(w.dtype), sums._replace(column_totals=found.columns)
        if weighing.means is not None:
            weighing.means.write(first, means)
    return (w, sums, means) if weighing.keep else sums


def _check(v: Block, first: int) -> float:
    """Refuse a panel with an entry that no NMF takes, or return its own scale."""
    found = masking.measure(v)
    if found.invalid is not None:
        raise found.invalid.at(first)
    mass = float(np.sum(np.broadcast_to(found.column_weight, v.shape[1])))
    return scaling.scale_of(found.total / mass if mass else 0.0, v.dtype)


def as_it_was(weighing: Weighing, scale: float) -> Weighing:
    """The same at the scale of any panel: the sums are told as those of V all the same."""
    return weighing


def check_factor(w: Array) -> None:
    """Refuse a W, (rows, k), that its dtype does not hold."""
    if not np.isfinite(w).all():
        raise DataError(
            f"W for this V and H is beyond {w.dtype}; multiply V by a number that brings it near the V "
            "that H is of"
        )


def look(v: Block, h: Array, weighing: Weighing, before: Array | None = None) -> tuple[Array, Sums]:
    """A pass over one block in memory: its W and its sums."""
    if not isinstance(v, Observed):
        w = weighing.weigh(v, h, before)
        return w, _sums(v, w, h, weighing)
    parts, total = [], None
    for rows, cells, held in masking.strips(v):
        first = None if before is None else before[rows]
        found = [
            weighing.weigh(piece, h, None if first is None else first[some])
            for some, piece in cells.split_rows(len(h))
        ]
        w = np.concatenate(found)
        sums = _sums(cells, w, h, weighing)._replace(
            held_out_loss=weighing.loss.error(held, w, h), held_out_weight=float(held.row_weight.sum())
        )
        total = sums if total is None else total + sums
        parts.append(w)
    assert total is not None
    return np.concatenate(parts), total


def _sums(v: Block, w: Array, h: Array, weighing: Weighing) -> Sums:
    exact = weighing.residual or isinstance(
        v, Cells
    )  # their residual costs little, and no other form is at hand
    squares, ones = least_squares.component_norms(
        w, v.row_weight if isinstance(v, Cells) else float(v.shape[1])
    )
    if weighing.bare:
        rest = weighing.loss.error(v, w, h, final=True) if exact else np.nan
        return Sums(NOTHING, NOTHING, rest, w_sq_norm=squares, w_l1_norm=ones)
    return weighing.loss.learn(v, w, h, exact)._replace(w_sq_norm=squares, w_l1_norm=ones)


def as_it_is(v: Block, h: Array, w: Array | None) -> Array:
    """The `Weigher` that keeps the W it is given."""
    assert w is not None
    return w


@cache
def _controller() -> ThreadpoolController:
    return ThreadpoolController()


@contextmanager
def _limited_blas() -> Iterator[None]:
    """Hold OpenBLAS at one thread, whichever thread undoes it.

    Threadpoolctl obeys one thread of a process until that ends, and ignores the others. So the threads that
    set the number and restore it end at once.
    """
    if _has_one_thread():  # as a rule where Dask started the process
        yield
        return
    with ThreadPoolExecutor(1) as setter:
        limiter = setter.submit(_limit_blas).result()
    try:
        yield
    finally:
        with ThreadPoolExecutor(1) as setter:
            setter.submit(limiter.restore_original_limits).result()


def _limit_blas() -> Any:
    return _controller().limit(limits=1, user_api="blas")


_blas = SharedSetting(_limited_blas)


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Hold BLAS at one thread in this process, for all fits and tasks of it that are in work."""
    with _blas.held(), nullcontext() if _has_one_thread() else _limit_blas():  # where each thread has its own
        yield


def _has_one_thread() -> bool:
    return all(pool["num_threads"] == 1 for pool in _controller().info() if pool["user_api"] == "blas")


def heights(edges: Sequence[int]) -> tuple[int, ...]:
    """Rows of each panel."""
    return tuple(last - first for first, last in pairwise(edges))
