"""A pass that several models share, such as the starts of a fit or the models of a selection."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from dask_nmf.execution.engine import Engine, Model
from dask_nmf.execution.tasks.factor_store import FactorSlots
from dask_nmf.iteration.loop import Passes, Step, end_in_time
from dask_nmf.kernels.blocks.masking import EntryMask
from dask_nmf.planning.model_groups import CutPlan, ModelGroups, group_models


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
    engine: Engine, models: Sequence[RunningModel], groups: ModelGroups
) -> Iterator[tuple[int, Step]]:
    """Make a pass for each model, and yield its number and its step as soon as the read of its group is made.

    The models of a group share a read of V, and their totals are in memory together.
    """
    for group in groups.groups:
        totals = engine.sweep([models[number].begin() for number in group])
        totals.reverse()
        for number in group:
            yield number, models[number].passes.end(totals.pop())


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
