"""A fit over V cut both ways: H is in pieces in the run, never whole in a process.

Three places of the run's checkpoint have the last H, the one before, and room for the next. Which is which,
and by how much H is extrapolated, is in the `State`, whose own arrays have no columns.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from dask.delayed import Delayed

from dask_nmf import rng
from dask_nmf.execution import executor, partition
from dask_nmf.execution.graphs import grid
from dask_nmf.execution.graphs.grid import Blocks, Draw, Given, InUnits, Look, Pass, Piece
from dask_nmf.fitting import components, finalize
from dask_nmf.fitting.finalize import Progress, Result
from dask_nmf.fitting.starts import initialize, sample_start
from dask_nmf.fitting.starts.initialize import Measures
from dask_nmf.kernels.blocks import masking, scaling
from dask_nmf.kernels.summary.digests import Digest, merged
from dask_nmf.planning.grid import Tiling
from dask_nmf.planning.row_panels import MIB
from dask_nmf.progress import report_stage
from dask_nmf.runs.run import Run
from dask_nmf.settings import Settings
from dask_nmf.solvers.hals import HALS
from dask_nmf.solvers.solver import State, accept_step, reject_step
from dask_nmf.sources.matrix import Matrix
from dask_nmf.types import Array, Block

logger = logging.getLogger(__name__)


class Tiles(NamedTuple):
    """V cut by a tiling."""

    matrix: Matrix
    tiling: Tiling
    scale: float = 1.0  # a power of two, by which V counts: known from the first read on

    def compute(self, build: Callable[[Blocks], list[Delayed]]) -> list[Any]:
        """Build a graph of blocks and compute it."""
        down, across = self.tiling.shape
        return executor.compute_with_retries(
            lambda: build(Blocks.of(self.matrix, self.tiling)), reads=down * across
        )


class Reached(NamedTuple):
    """What a pass gives."""

    loss: float  # without the penalty; less ‖V‖², where it was not taken entry by entry
    left: Array  # norms of W, and of the H that follows: see `Piece`
    right: Array
    exact: bool
    same: bool  # it began with the H of before


@dataclass(frozen=True)
class Pieces(HALS):
    """`HALS` with H in places: a pass has followed it up already, the state says where it is."""

    def update(self, state: State, totals: Any, sumsq: float) -> State:
        """The next state, from what was `Reached`: the same as that of `HALS`, but for H."""
        scales, penalty = self.penalty.balance(tuple(totals.left), tuple(totals.right))
        reached = totals.loss + penalty + (0.0 if totals.exact else sumsq)
        if reached > state.loss:
            return reject_step(state, totals.same)
        return accept_step(
            state,
            h=state.h,
            entering=state.entering,
            loss=reached,
            penalty=penalty,
            exact=totals.exact,
            slot=state.next_slot,
            good_slot=state.slot,
            scales=_divisors(scales),
            good_scales=_divisors(scales * (state.scales or 1.0)),
        )


def cut(matrix: Matrix, settings: Settings, run: Run | None) -> Tiles:
    """V in blocks that fit the workers (those of the run, if any), told.

    Raises
    ------
    MemoryError, DataError
        If no block does; if a worker does not see V.
    """
    kept = None if run is None or run.cuts is None else (run.edges, run.cuts)
    tiling = partition.tile(matrix, settings.n_components, kept)
    (down, across), block = tiling.shape, tiling.block
    logger.info(
        "V is %d x %d %s, cut both ways: %d x %d blocks of %d x %d, read %s a pass; "
        "a worker may take up to %d MiB; the start is %s",
        *matrix.shape,
        matrix.dtype,
        *((down, across) if not matrix.transposed else (across, down)),
        *(block if not matrix.transposed else block[::-1]),
        "once" if tiling.reads == 1 else "twice",
        tiling.worker_bytes // MIB,
        "random"
        if settings.start == "random"
        else "that of {} rows and {} columns".format(
            *(tiling.sample if not matrix.transposed else tiling.sample[::-1])
        ),
        extra={"nmf": {"event": "plan", "panels": down * across, "bytes": tiling.pass_bytes}},
    )
    return Tiles(matrix, tiling)


def first_read(tiles: Tiles, settings: Settings) -> tuple[Measures, Block, Draw, Digest]:
    """Check, measure and digest V, and draw a sample of its rows and columns, if the fit begins so.

    Raises
    ------
    InvalidEntryError
        For the first entry that is negative or not finite.
    """
    matrix, (rows, columns) = tiles.matrix, tiles.tiling.sample
    sampled = settings.start == "sample"
    layout = matrix.layout
    draw = Draw(settings.random_state, sampled * rows / layout.rows, sampled * columns / layout.columns)
    report_stage("first read")
    looks = _looks(tiles, draw)
    for look in looks:
        if look.bad is not None:
            raise look.bad.at(0, matrix.transposed)
    mean = sum(look.total for look in looks) / (layout.rows * layout.columns)
    sumsq = sum(look.sumsq for look in looks)
    initialize.check_squares(mean, sumsq)
    scale, unit = initialize.scale_and_unit(mean, initialize.NO_FACTORS, matrix)
    measures = Measures(
        mean,
        sumsq * scale * scale,
        sum(look.stored for look in looks),
        sum(look.empty_rows for look in looks),
        scale=scale,
        right_unit=unit,
    )
    initialize.tell(measures)
    sample = scaling.copied(masking.stack([look.sample for look in looks]), scale)
    return measures, sample, draw, _digest(looks)


def content(tiles: Tiles) -> Digest:
    """Return the digest of V as it is now, in one read."""
    return _digest(_looks(tiles, Draw(0, 0.0, 0.0)))


def _looks(tiles: Tiles, draw: Draw) -> list[Look]:
    looks: list[Look] = tiles.compute(lambda blocks: grid.look(blocks, draw))
    return looks


def _digest(looks: list[Look]) -> Digest:
    return merged([look.digest for look in looks])


def begin(
    tiles: Tiles, settings: Settings, measures: Measures, sample: Block, draw: Draw, places: Run
) -> State:
    """The state before the first pass; writes an H to begin with into the run.

    H of a sample is known for some columns alone. It is 0 in the others: so the first pass finds W from the
    columns of the sample, and H of all columns from W. It is not extrapolated from.
    """
    transposed, columns = tiles.matrix.transposed, tiles.tiling.columns
    stream = rng.W_FACTOR if transposed else rng.H_FACTOR
    nothing = np.empty((settings.n_components, 0), tiles.matrix.dtype)
    tiles = tiles._replace(scale=measures.scale)
    scale = sample_start.factor_scale(measures.level, settings.n_components)
    own = initialize.own_penalty(settings, measures, tiles.matrix).bounded
    balanced = own.in_balanced_units(scale).right_unit / own.right_unit
    make: Callable[[int, int], Array] = partial(
        _random, settings, scale * balanced, stream, tiles.matrix.dtype
    )
    known = sample.size > 0 and sample.sum() > 0
    if known:
        h = sample_start.sampled_h(sample, settings, own, stream)
        make = partial(_spread, h, draw)
    begun = places.new_h_pieces(0)
    executor.compute_with_retries(lambda: grid.begin(begun, columns, make))
    state = State(nothing, nothing, slot=-1 if known else 0, good_slot=0 if known else -1)
    for _ in range(initialize.WARM if settings.start == "random" and settings.lasso else 0):
        reached = sweep(tiles, Pieces(own.without_lasso), places, state, False)
        scales, _ = own.balance(tuple(reached.left), tuple(reached.right))
        state = State(nothing, nothing, slot=state.next_slot, scales=_divisors(scales))
    return state


def _divisors(scales: Array) -> tuple[float, ...]:
    return () if (scales == 1).all() else tuple(scales.tolist())


def _random(
    settings: Settings, scale: float, stream: int, dtype: np.dtype[Any], first: int, last: int
) -> Array:
    return sample_start.random_factor(
        settings.random_state, np.arange(first, last), settings.n_components, scale, stream
    ).astype(dtype)


def _spread(h: Array, draw: Draw, first: int, last: int) -> Array:
    """Columns of an H (k, drawn columns) in the places where they were drawn, as rows."""
    before = len(draw.of_columns((0, first)))
    drawn = draw.of_columns((first, last))
    piece = np.zeros((last - first, len(h)), h.dtype)
    piece[drawn] = h[:, before : before + len(drawn)].T
    return piece


def sweep(tiles: Tiles, solver: Pieces, run: Run, state: State, exact: bool) -> Reached:
    """One pass, from the H that the state says: its H is in the next place."""
    what = Pass(
        solver,
        given(run, state),
        run.temporary_w(),
        run.new_h_pieces(state.next_slot),
        solver.update_h,
        exact,
        scale=tiles.scale,
    )
    return _computed(tiles, what)


def given(run: Run, state: State) -> Given:
    """The H that the next pass begins with."""
    if state.slot < 0:  # no pass so far has given one
        return Given(run.factor(state.good_slot))
    last = run.factor(state.slot)
    if not state.accepted or state.good_slot < 0:
        return Given(last, scales=state.scales)
    before = run.factor(state.good_slot)
    return Given(last, before, state.last_beta, state.scales, state.good_scales)


def _computed(tiles: Tiles, what: Pass) -> Reached:
    rows = len(tiles.tiling.rows) - 1
    if tiles.tiling.reads == 1:
        found = tiles.compute(lambda blocks: grid.at_once(blocks, what))
        on_w, pieces = found[:rows], found[rows:]
    else:
        on_w = tiles.compute(lambda blocks: grid.by_rows(blocks, what))
        pieces = tiles.compute(lambda blocks: grid.by_columns(blocks, what))
    losses, on_h, same = zip(*(Piece(*piece) for piece in pieces), strict=True)
    return Reached(sum(losses), sum(on_w), sum(on_h), what.exact, all(same))


def answered(tiles: Tiles, settings: Settings, run: Run, progress: Progress) -> Result:
    """The last pass: W for H (and H for W, where V was cut along its columns), and the exact loss."""
    solver, transposed = progress.solver, tiles.matrix.transposed
    assert isinstance(solver, Pieces)
    names = ("H", "W") if transposed else ("W", "H")
    answer_places, penalty, how = run.create_factors(), solver.penalty, settings.normalize
    left, right = (answer_places[name] if how is None else run.temporary_factor(name) for name in names)
    places = InUnits(left, penalty.left_unit), InUnits(right, penalty.right_unit)
    report_stage("last read")
    last = replace(progress.state, accepted=False)  # H as it is, and no further
    follow = solver.solve_h if transposed else None
    what = Pass(solver, given(run, last), *places, follow, last=True, scale=tiles.scale)
    reached = _computed(tiles, what).loss
    if how is not None:
        moves = (
            components.Moved(left, answer_places[names[0]]),
            components.Moved(right, answer_places[names[1]]),
        )
        sides = (moves[0], tiles.tiling.rows), (moves[1], tiles.tiling.columns)
        components.arrange_pieces(*sides, how, transposed)
    finalize.tell(reached, progress)
    stored = run.commit_result(max(reached, 0.0), float("nan"), progress.ending)
    return finalize.result_of(stored)


def kept(result: Result, run: Run) -> Result:
    """The answer in the memory of the cluster, from a run that is about to go."""
    W, H = executor.persist(*(factor.map_blocks(_there, run.path) for factor in (result.W, result.H)))
    return replace(result, W=W, H=H)


def _there(block: Array, path: str) -> Array:
    """A block that was read while its run was there: else Zarr gives zeros."""
    if not Path(path).exists():
        raise FileNotFoundError(
            f"a part of the answer was lost with a worker, and its copy in {path} is gone; "
            "give store= to keep it"
        )
    return block
