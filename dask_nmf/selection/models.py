"""The models of a selection: which ones are asked for, and each of them between two passes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any, NamedTuple

import numpy as np

from dask_nmf.iteration.loop import Step
from dask_nmf.iteration.outcome import Ending, Outcome
from dask_nmf.kernels.blocks.masking import EntryMask
from dask_nmf.options.algorithms import SOLVERS
from dask_nmf.options.option import COUNT, INNER, INTEGER, Need, check, option, plain
from dask_nmf.options.selection import BETA_LOSS, BETAS, SOLVER
from dask_nmf.options.settings import APART, LOSSES, Settings
from dask_nmf.quality.recommend import Trial
from dask_nmf.solvers.parts.state import HeldOut, Snapshot, State
from dask_nmf.sources.matrix import Matrix
from dask_nmf.types import Array

RISEN = "stopped: the held-out error of this rank has clearly risen above that of a smaller one"
Pair = tuple[int, int]  # the numbers of a start and of a fold: their models of all ranks come from one sample


class ModelKey(NamedTuple):
    """Which model of a selection it is."""

    n_components: int
    start: int  # number of the start, which has random numbers of its own
    fold: int  # number of the fold, which has held-out entries of its own

    @property
    def pair(self) -> Pair:
        """The start and the fold."""
        return self.start, self.fold


@dataclass(frozen=True)
class Model:
    """A model of a selection between two passes."""

    key: ModelKey
    state: State[Any]
    history: tuple[float, ...] = ()  # the relative error after each pass
    # The least error of the held-out entries so far after each pass, root mean square, in units of V
    held_out: tuple[float, ...] = ()
    ending: Ending | None = None

    @property
    def passes(self) -> int:
        """The number of passes so far."""
        return len(self.history)

    @property
    def runs(self) -> bool:
        """Whether more passes are to be made."""
        return self.ending is None

    @property
    def validation_error(self) -> float:
        """The least error of the held-out entries so far; NaN if it is not known."""
        return self.held_out[-1] if self.held_out else float("nan")

    @property
    def best_factor(self) -> Array:
        """The factor that all panels are given, (k, columns), with the least held-out error.

        It is H, or Wᵀ if V is cut into panels of columns.
        """
        return np.ascontiguousarray(self.state.best[0][: self.key.n_components])

    @property
    def in_memory(self) -> bool:
        """Whether the state has its arrays; those of a model that has ended may be in a store alone."""
        return bool(self.state.h.size)

    def after(self, step: Step, unit: float) -> Model:
        """Return the model after a pass; ``unit`` is that of the square root of a loss."""
        best = step.state.held_out.best_mse
        error = best**0.5 * unit if best < float("inf") else self.validation_error
        return replace(
            self,
            state=step.state,
            history=(*self.history, step.relative_error),
            held_out=(*self.held_out, error),
            ending=step.ending,
        )

    def without_passes(self) -> Model:
        """Return the model of a rank that needs no further passes, ended."""
        return replace(self, ending=Ending(Outcome.HELD_OUT, RISEN))

    def with_factor(self, factor: Array) -> Model:
        """Return the model with a factor as the only array of its state."""
        state = replace(self.state, h=factor, h_input=factor, measured=Snapshot(), held_out=HeldOut())
        return replace(self, state=state)

    def without_arrays(self) -> Model:
        """Return the model with a factor that has no columns, because a store keeps it."""
        return self.with_factor(np.empty((self.key.n_components, 0), self.state.h.dtype))

    def trial_after(self, passes: int) -> Trial:
        """Return the errors of the model after some passes, or after its last one if it has fewer."""
        last = min(passes, self.passes) - 1
        return Trial(*self.key, held_out_error=self.held_out[last], training_error=self.history[last])

    @property
    def trial(self) -> Trial:
        """The errors of the model so far, for a comparison of ranks."""
        return self.trial_after(self.passes) if self.passes else Trial(*self.key, held_out_error=float("nan"))


def model_keys(ranks: Iterable[int], starts: int, folds: int) -> list[ModelKey]:
    """Return all models: each rank with each start in each fold."""
    return [ModelKey(*key) for key in product(sorted(ranks), range(starts), range(folds))]


MOST_MODELS = 10_000  # of a selection: each commit writes a record that lists all of them
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
        _check_count(len(self.ranks) * self.n_init * self.folds)
        _check_solver(self.settings.solver)

    @classmethod
    def of(cls, ranks: Any, n_init: int, folds: int, holdout: float, **settings: Any) -> SelectionOptions:
        """Return the options with these ranks, as `parse_ranks` takes them, and settings of the fits.

        Raises
        ------
        ValueError
            If one of them is not as needed.
        """
        parsed = parse_ranks(ranks)
        _check_solver(plain(settings.get("solver", Settings.solver)))
        _check_loss(plain(settings.get("beta_loss", Settings.beta_loss)))
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
        If a rank is no whole number ≥ 1, or there is none, or there are more than `MOST_MODELS`.
    """
    wanted = f"ranks are {ranks!r}; give whole numbers ≥ 1 such as 2:30, 2:30:2 or 2,4,8"
    try:
        parts = _parts_of(ranks)
    except (ValueError, TypeError):
        raise ValueError(wanted) from None
    _check_count(sum(map(_length, parts)))
    found = [rank for part in parts for rank in part]
    if not found or any(not isinstance(rank, int) or isinstance(rank, bool) or rank < 1 for rank in found):
        raise ValueError(wanted)
    return tuple(sorted(set(found)))


def _length(part: Sequence[int]) -> int:
    """Return the length of a range or a list; `len` takes no range that is longer than an index."""
    if isinstance(part, range):
        return max(0, -((part.start - part.stop) // part.step))
    return len(part)


def _check_solver(solver: Any) -> None:
    """Refuse a solver that ranks are not chosen with."""
    if isinstance(solver, str) and solver in SOLVERS and SOLVERS[solver].carries_w:
        raise ValueError(
            f"solver is {solver!r}, which keeps a W for each model between passes; "
            "ranks are chosen with solver 'hals'"
        )
    check("solver", solver, SOLVER, optional=False)


def _check_loss(loss: Any) -> None:
    """Refuse a loss that ranks are not chosen for."""
    if isinstance(loss, str) and loss not in LOSSES:
        check("beta_loss", loss, BETA_LOSS, optional=False)
    if (LOSSES[loss] if isinstance(loss, str) else loss) not in BETAS:
        named = " and ".join(map(repr, BETA_LOSS.choices))
        raise ValueError(f"beta_loss is {loss!r}; ranks are chosen for {named}")


def _check_count(models: int) -> None:
    """Refuse more models than a selection may have, before there is a list of them."""
    if models > MOST_MODELS:
        raise ValueError(
            f"a selection of {models} models is too large; give fewer ranks, starts or folds, of which there "
            f"are at most {MOST_MODELS} models"
        )


def _parts_of(ranks: str | int | Iterable[int]) -> list[Sequence[int]]:
    """Return ranks as ranges, which are not listed yet, and lists."""
    if isinstance(ranks, str):
        return [_range_of(part) for part in ranks.split(",")]
    numbers = plain(ranks)
    return [[numbers] if isinstance(numbers, int) else [plain(rank) for rank in numbers]]


def _range_of(text: str) -> Sequence[int]:
    parts = [int(part) for part in text.split(":")]
    if len(parts) == 1:
        return parts
    first, last, *step = parts
    return range(first, last + 1, *step)
