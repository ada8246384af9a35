"""The models of a selection: which ones are asked for, and each of them between two passes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any, NamedTuple

from dask_nmf.iteration.loop import Step
from dask_nmf.iteration.outcome import Ending, Outcome
from dask_nmf.kernels.blocks.masking import EntryMask
from dask_nmf.options.option import COUNT, INNER, INTEGER, Need, check, option, plain
from dask_nmf.options.settings import APART, LOSSES, Settings
from dask_nmf.quality.recommend import Trial
from dask_nmf.solvers.parts.state import State
from dask_nmf.sources.matrix import Matrix

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


BETAS = (2, 1)  # of the losses that ranks are chosen for
COUNTS = option("Number of starts or folds.", COUNT)["option"]
SEVERAL = Need(lambda value: INTEGER.holds(value) and (value == 0 or value >= 2), "0 or an integer ≥ 2")
REPLICATES = option("Number of bootstrap samples.", SEVERAL)["option"]
HOLDOUT = option("Share of the entries.", INNER)["option"]


@dataclass(frozen=True)
class SelectionOptions:
    """Which models a selection has.

    Attributes
    ----------
    ranks : the numbers of components, rising.
    n_init : the number of starts of each rank in each fold.
    folds : the number of sets of held-out entries.
    holdout : the share of the entries in such a set.
    settings : the settings of all fits; their number of components is the largest rank.
    """

    ranks: tuple[int, ...]
    n_init: int = 5
    folds: int = 1
    holdout: float = 0.03
    settings: Settings = field(default_factory=lambda: Settings(1))

    def __post_init__(self) -> None:
        for name, described in (("n_init", COUNTS), ("folds", COUNTS), ("holdout", HOLDOUT)):
            object.__setattr__(self, name, plain(getattr(self, name)))
            check(name, getattr(self, name), described, optional=False)
        if self.settings.algorithm.carries_w:
            raise ValueError(
                f"solver is {self.settings.solver!r}, which keeps a W for each model between passes; "
                "ranks are chosen with solver 'hals'"
            )

    @classmethod
    def of(cls, ranks: Any, n_init: int, folds: int, holdout: float, **settings: Any) -> SelectionOptions:
        """Return the options with these ranks, as `parse_ranks` takes them, and settings of the fits.

        Raises
        ------
        ValueError
            If one of them is not as needed.
        """
        parsed = parse_ranks(ranks)
        loss = plain(settings.get("beta_loss", 2))
        beta = LOSSES.get(loss, loss)
        if beta not in BETAS and not isinstance(beta, str):
            raise ValueError(
                f"beta_loss is {loss!r}; ranks are chosen for 'frobenius' and 'kullback-leibler'"
            )
        return cls(parsed, n_init, folds, holdout, Settings(max(parsed), **settings))

    def with_models(self, keys: Iterable[ModelKey]) -> SelectionOptions:
        """Return the options with the ranks and the folds of these models."""
        ranks = tuple(sorted({key.n_components for key in keys}))
        settings = replace(self.settings, n_components=max(ranks))
        return replace(self, ranks=ranks, folds=1 + max(key.fold for key in keys), settings=settings)

    def settings_of(self, rank: int, start: int) -> Settings:
        """Return the settings of the fits of one rank and start."""
        return replace(self.settings.at_start(start), n_components=rank)

    def mask_of(self, fold: int, matrix: Matrix) -> EntryMask:
        """Return the rule by which entries count in a fold."""
        settings = self.settings
        seed = settings.random_state + (fold << APART)
        return EntryMask(settings.missing, self.holdout, seed, matrix.orientation, beta=settings.beta)

    def record(self) -> dict[str, Any]:
        """Return the options that decide the models, as JSON holds them; models may be added later."""
        settings = self.settings.record()
        del settings["n_components"], settings["n_init"]
        return {"holdout": self.holdout, **settings}


def parse_ranks(ranks: str | int | Iterable[int]) -> tuple[int, ...]:
    """Return rising ranks from numbers, or from text such as ``2:30``, ``2:30:2`` or ``2,4,8``.

    The last number of a range belongs to it.

    Raises
    ------
    ValueError
        If a rank is no whole number ≥ 1, or there is none.
    """
    wanted = f"ranks are {ranks!r}; give whole numbers ≥ 1 such as 2:30, 2:30:2 or 2,4,8"
    try:
        if isinstance(ranks, str):
            found = [rank for part in ranks.split(",") for rank in _range_of(part)]
        else:
            numbers = plain(ranks)
            found = [numbers] if isinstance(numbers, int) else [plain(rank) for rank in numbers]
    except (ValueError, TypeError):
        raise ValueError(wanted) from None
    if not found or any(not isinstance(rank, int) or isinstance(rank, bool) or rank < 1 for rank in found):
        raise ValueError(wanted)
    return tuple(sorted(set(found)))


def _range_of(text: str) -> Iterable[int]:
    parts = [int(part) for part in text.split(":")]
    if len(parts) == 1:
        return parts
    first, last, *step = parts
    return range(first, last + 1, *step)
