"""The models of a selection: which ones there are, and each of them between two passes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, NamedTuple

from dask_nmf.iteration.loop import Step
from dask_nmf.iteration.outcome import Ending, Outcome
from dask_nmf.quality.recommend import Trial
from dask_nmf.solvers.parts.state import State

RISEN = "stopped: the held-out error of this rank has clearly risen above that of a smaller one"


class ModelKey(NamedTuple):
    """Which model of a selection it is."""

    n_components: int
    start: int  # number of the start, which has random numbers of its own
    fold: int  # number of the fold, which has held-out entries of its own


@dataclass(frozen=True)
class Model:
    """A model of a selection between two passes."""

    key: ModelKey
    state: State[Any]
    history: tuple[float, ...] = ()  # the relative error after each pass
    validation_error: float = float("nan")  # root mean squared error of the held-out entries, in units of V
    ending: Ending | None = None

    @property
    def passes(self) -> int:
        """The number of passes so far."""
        return len(self.history)

    @property
    def runs(self) -> bool:
        """Whether more passes are to be made."""
        return self.ending is None

    def after(self, step: Step, unit: float) -> Model:
        """Return the model after a pass; ``unit`` is that of the square root of a loss."""
        best = step.state.held_out.best_mse
        return replace(
            self,
            state=step.state,
            history=(*self.history, step.relative_error),
            validation_error=best**0.5 * unit if best < float("inf") else self.validation_error,
            ending=step.ending,
        )

    def without_passes(self) -> Model:
        """Return the model of a rank that needs no further passes, ended."""
        return replace(self, ending=Ending(Outcome.HELD_OUT, RISEN))

    @property
    def trial(self) -> Trial:
        """The errors of the model, for a comparison of ranks."""
        error = self.history[-1] if self.history else float("nan")
        return Trial(*self.key, held_out_error=self.validation_error, training_error=error)


def model_keys(ranks: Iterable[int], starts: int, folds: int) -> list[ModelKey]:
    """Return all models: each rank with each start in each fold."""
    return [ModelKey(*key) for key in product(sorted(ranks), range(starts), range(folds))]


def of_rank(models: Sequence[Model], rank: int) -> list[Model]:
    """Return the models of one rank, in their order."""
    return [model for model in models if model.key.n_components == rank]
