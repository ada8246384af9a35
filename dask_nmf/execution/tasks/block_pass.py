"""A pass over one block in memory, for one model or for several that share their walks over it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from dask_nmf.execution.tasks import stopwatch
from dask_nmf.execution.tasks.factor_store import FactorStore
from dask_nmf.kernels import least_squares, row_sums
from dask_nmf.kernels.blocks import holed, row_batches
from dask_nmf.kernels.blocks.holed import HoledBlock
from dask_nmf.kernels.blocks.holes.held_entries import HeldEntries
from dask_nmf.kernels.blocks.masked import Cells
from dask_nmf.kernels.blocks.masking import EntryMask, MaskedBlock
from dask_nmf.kernels.products import same_bits, stacked
from dask_nmf.kernels.row_sums import NOTHING, Sums
from dask_nmf.kernels.summary.residual_sums import Places, residual_sums
from dask_nmf.types import Array, Block


class SolveW(Protocol):
    """A function that returns the W of a panel, (rows, k), from v, h and the W before."""

    def __call__(self, v: Block, h: Array, w: Array | None) -> Array: ...


class Loss(Protocol):
    """The loss of a block, and the sums from which H is updated to lower it; every `Solver` is one."""

    def accumulate(self, v: Block, w: Array, h: Array, exact: bool) -> Sums:
        """Return the sums of a block, with its loss entry by entry if ``exact``."""
        ...

    def loss(self, v: Block, w: Array, h: Array, final: bool = False) -> float:
        """Return the loss of a block, without penalties; ``final`` is for the result: see `Solver.loss`."""
        ...


class PassSpec(NamedTuple):
    """The instructions of a pass for each panel."""

    solve_w: SolveW
    loss: Loss
    w_in: FactorStore | None = None  # store of the W that the pass begins with
    w_out: FactorStore | None = None  # store of the new W
    return_w: bool = False  # whether W is returned beside the sums
    residual: bool = False  # whether the loss is taken entry by entry
    check: bool = False  # whether the first entry that is negative or not finite raises an error
    residual_only: bool = False  # whether the sums have only the residual and the norms of W
    averages: bool = False  # whether means of rows and `Sums.column_totals` are taken
    means: FactorStore | None = None  # store of the means of the rows
    weights: FactorStore | None = None  # store of the weight of the entries of each row
    unit: float = 1.0  # multiplies the W that is returned or stored
    mask: EntryMask | None = None  # decides which entries count; None: as the panels say
    anew: Callable[[PassSpec, float], PassSpec] | None = None  # makes the spec for V at a panel's scale
    shares_products: bool = False  # see `Solver.shares_products`
    places: Places | None = None  # the blocks of V by which losses are summed up; None: they are not


class ModelPart(NamedTuple):
    """The part of a model in a pass over a block that several models share."""

    h: Array
    spec: PassSpec
    before: Array | None = None  # the W that the pass begins with
    numbers: Array | None = None  # the number of each row in V, (rows,), if the spec has places

    def of_rows(self, rows: Any) -> ModelPart:
        """Return the part for some of the rows."""
        before, numbers = (each if each is None else each[rows] for each in (self.before, self.numbers))
        return self._replace(before=before, numbers=numbers)


def stacks(specs: Sequence[PassSpec], ranks: Sequence[int]) -> list[list[int]]:
    """Return the numbers of the models that use a block together.

    They have one mask and one way to take the loss. They have `same_bits.MOST` components in all, so that the
    memory of their products is bounded.
    """
    kinds: dict[Any, list[list[int]]] = {}
    for number, (spec, rank) in enumerate(zip(specs, ranks, strict=True)):
        own = kinds.setdefault((spec.mask, spec.shares_products, spec.residual), [[]])
        if own[-1] and sum(ranks[other] for other in own[-1]) + rank > same_bits.MOST:
            own.append([])
        own[-1].append(number)
    return [some for own in kinds.values() for some in own]


def process_block(
    v: Block, h: Array, spec: PassSpec, before: Array | None = None, first: int = 0
) -> tuple[Array, Sums]:
    """Return the W, (rows, k), and the sums of a pass over one block in memory, whose first row is given."""
    numbers = None if spec.places is None else np.arange(first, first + v.shape[0])
    return process_models(v, [ModelPart(h, spec, before, numbers)])[0]


def process_models(v: Block, parts: Sequence[ModelPart]) -> list[tuple[Array, Sums]]:
    """Return the W, (rows, k), and the sums of a pass over one block in memory for each of some models.

    All models have the mask of the block. What they have is what `process_block` returns for them, bit for
    bit.
    """
    if not isinstance(v, MaskedBlock):
        return _process_batch([v] * len(parts), parts)
    factors: list[Any] = [None] * len(parts)
    totals: list[Any] = [None] * len(parts)
    for rows, blocks, held in _batches(v, parts):
        own, weight = [part.of_rows(rows) for part in parts], float(held[0].row_weight.sum())
        for number, (w, sums) in enumerate(_process_batch(blocks, own)):
            lost = parts[number].spec.loss.loss(held[number], w, parts[number].h)
            sums = sums._replace(held_out_loss=lost, held_out_weight=weight)
            if totals[number] is None:
                factors[number], totals[number] = np.empty((v.shape[0], w.shape[1]), w.dtype), sums
            else:
                totals[number] = totals[number] + sums
            factors[number][rows] = w
    return list(zip(factors, totals, strict=True))


def _batches(
    v: MaskedBlock, parts: Sequence[ModelPart]
) -> Iterator[tuple[slice, Sequence[Block], Sequence[Cells | HeldEntries]]]:
    """Yield rows of a masked block, what counts in them and what is held out, for each model."""
    if v.mask.by_groups:
        for batch in holed.iter_batches(v, [part.h for part in parts]):
            yield batch.rows, batch.of_models, batch.held_of_models
    else:
        for rows, cells, held in row_batches.iter_row_batches(v):
            yield rows, [cells] * len(parts), [held] * len(parts)


def _process_batch(blocks: Sequence[Block], parts: Sequence[ModelPart]) -> list[tuple[Array, Sums]]:
    """Return W, (rows, k), and the sums of each model; all models have the same entries in their blocks."""
    apart = parts[0].spec.shares_products and not isinstance(blocks[0], Cells)
    known = blocks
    if apart:
        with stopwatch.spending(stopwatch.MULTIPLY):
            known = least_squares.with_right_products(blocks, [part.h for part in parts])
    with stopwatch.spending(stopwatch.SOLVE):
        factors = [_solve_batch(v, *part[:3]) for v, part in zip(known, parts, strict=True)]
    known = blocks
    if apart:
        with stopwatch.spending(stopwatch.MULTIPLY):
            known = row_sums.with_left_products(blocks, factors, parts[0].spec.residual)
    with stopwatch.spending(stopwatch.SUMS):
        sums = [_sums(v, w, part) for v, w, part in zip(known, factors, parts, strict=True)]
    return list(zip(factors, sums, strict=True))


def _solve_batch(v: Block, h: Array, spec: PassSpec, before: Array | None) -> Array:
    """Return the W of a batch of rows, (rows, k)."""
    if not isinstance(v, Cells):
        return spec.solve_w(v, h, before)
    pieces = v.split_rows(len(h))
    return np.concatenate(
        [spec.solve_w(piece, h, None if before is None else before[some]) for some, piece in pieces]
    )


def _sums(v: Block, w: Array, part: ModelPart) -> Sums:
    h, spec = part.h, part.spec
    # cells have no other form of the residual, and it costs little
    exact = spec.residual or isinstance(v, Cells)
    plain, _ = stacked.known_product(v)
    listed = isinstance(plain, Cells | HoledBlock)
    squares, ones = row_sums.component_norms(w, plain.row_weight if listed else float(v.shape[1]))
    found = None
    if spec.places is not None and part.numbers is not None:
        found = residual_sums(plain, w, h, spec.places, part.numbers)
    known = found is not None and not isinstance(plain, Cells)  # whether the loss follows, with its digits
    if spec.residual_only:
        rest = spec.loss.loss(plain, w, h, final=True) if exact and not known else np.nan
        sums = Sums(NOTHING, NOTHING, rest)
    else:
        sums = spec.loss.accumulate(v, w, h, exact and not known)
    sums = sums._replace(w_sq_norm=squares, w_l1_norm=ones)
    if found is None:
        return sums
    return sums._replace(residuals=found, residual=found.loss if known else sums.residual)


def keep_w(v: Block, h: Array, w: Array | None) -> Array:
    """Return the W before: the `SolveW` that keeps W as it is."""
    assert w is not None
    return w
