"""A pass that several models share, such as the starts of a fit or the models of a selection."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any, NamedTuple

from dask_nmf.execution.engine import Engine, Model
from dask_nmf.execution.tasks.blas import one_blas_thread
from dask_nmf.execution.tasks.factor_store import FactorSlots
from dask_nmf.iteration.loop import Passes, Step, end_in_time
from dask_nmf.kernels.blocks.masking import EntryMask
from dask_nmf.planning.model_groups import CutPlan, ModelGroups, group_models
from dask_nmf.process_settings import CPU_COUNT
from dask_nmf.solvers.parts.squared_error import IN_ONE_GO

UPDATED_AT_ONCE = 4  # models, at most: each has temporary arrays of the size of its sums


class RunningModel(NamedTuple):
    """A model that is to make a pass."""

    passes: Passes
    slots: FactorSlots | None = None  # stores of the factor that is carried from pass to pass
    mask: EntryMask | None = None  # decides which entries count for it; None: as for the engine

    def begin(self) -> Model:
        """Begin the next pass, and return the model for the engine."""
        return Model(self.passes.solver, *self.passes.begin(), self.slots, self.mask)


def make_shared_pass(engine: Engine, plan: CutPlan, models: Sequence[RunningModel]) -> list[Step]:
    """Make a pass for each model, and return their steps; the time limit may end those that would go on."""
    groups = group_models(plan, [len(model.passes.state.h) for model in models])
    steps = dict(iter_steps(engine, models, groups))
    made = [steps[number] for number in range(len(models))]
    return end_in_time(made, [model.passes.stop.deadline for model in models])


def iter_steps(
    engine: Engine, models: Sequence[RunningModel], groups: ModelGroups, overlap: bool = True
) -> Iterator[tuple[int, Step]]:
    """Make a pass for each model, and yield its number and its step once the models of its group are updated.

    The models of a group share a read of V, and their totals are in memory together.

    Parameters
    ----------
    overlap : whether models with many columns are updated during the read of the next group, so that the
        totals of two groups are in memory together.
    """
    if max((model.passes.state.h.shape[1] for model in models), default=0) > IN_ONE_GO:
        yield from _updated_in_threads(engine, models, groups, overlap)
    else:
        yield from _updated_in_turn(engine, models, groups)


def _updated_in_turn(
    engine: Engine, models: Sequence[RunningModel], groups: ModelGroups
) -> Iterator[tuple[int, Step]]:
    """Make a pass for each model, and update one after another in this thread."""
    for group in groups.groups:
        totals = engine.sweep([models[number].begin() for number in group])
        totals.reverse()
        for number in group:
            yield number, models[number].passes.end(totals.pop())


def _updated_in_threads(
    engine: Engine, models: Sequence[RunningModel], groups: ModelGroups, overlap: bool
) -> Iterator[tuple[int, Step]]:
    """Make a pass for each model, and update several at the same time, also while V is read for others."""
    updating: list[tuple[int, Future[Step]]] = []
    pool = ThreadPoolExecutor(min(CPU_COUNT, UPDATED_AT_ONCE))
    try:
        for group in groups.groups:
            if not overlap:
                yield from _taken(updating)
            totals = engine.sweep([models[number].begin() for number in group])
            yield from _taken(updating)
            totals.reverse()
            updating = [(number, pool.submit(_end, models[number].passes, totals.pop())) for number in group]
        yield from _taken(updating)
    finally:
        pool.shutdown(cancel_futures=True)  # after an error or an interrupt, no further update begins


def _taken(updating: list[tuple[int, Future[Step]]]) -> Iterator[tuple[int, Step]]:
    """Take all updates from a list, and yield the number and the step of each model when it is there."""
    updating.reverse()
    while updating:
        number, step = updating.pop()
        yield number, step.result()


def _end(passes: Passes, totals: Any) -> Step:
    """Return the step of a pass. BLAS has one thread, since their number may change the last digits."""
    with one_blas_thread():
        return passes.end(totals)


def exact_losses(engine: Engine, plan: CutPlan, models: Sequence[Model], baseline: float) -> list[float]:
    """Return the objective of each model after one more pass, whose loss is taken entry by entry.

    The pass begins with the factors of the result, without extrapolation, and changes no model.
    """
    begun = [_without_extrapolation(model) for model in models]
    losses = [0.0] * len(models)
    for group in group_models(plan, [len(model.state.h) for model in models]).groups:
        totals = engine.sweep([begun[number] for number in group])
        for number, total in zip(group, totals, strict=True):
            model = begun[number]
            losses[number] = model.own_solver.update(model.state, total, baseline).loss
    return losses


def _without_extrapolation(model: Model) -> Model:
    state = model.state.as_measured
    return model._replace(
        state=replace(state, h_input=state.h, loss=float("inf"), accepted=False), exact=True
    )
