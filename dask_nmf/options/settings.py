"""Options of a fit: each stands once, in `Settings`, with its default, its help and what it must be."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from dask_nmf.options.algorithms import SOLVERS, Algorithm
from dask_nmf.options.option import (
    COUNT,
    INTEGER,
    NOT_NEGATIVE,
    NUMBER,
    PART,
    POSITIVE,
    SHARE,
    check,
    option,
    option_of,
    plain,
)

NNDSVD = ("nndsvd", "nndsvda", "nndsvdar")
MOST_STARTS = 100_000  # of a fit; each is a run with commits of its own
SAME_STARTS = ("nndsvd", "nndsvda", "custom")  # every seed gives the same factors
INITS = ("sample", "random", *NNDSVD, "custom")
MISSING = ("nan", "unstored")
APART = 32  # bits between the seeds of starts, or of folds: no seed that a person gives is so large
LOSSES = {"frobenius": 2.0, "kullback-leibler": 1.0, "itakura-saito": 0.0}  # and their β


@dataclass(frozen=True)
class Settings:
    """The options of a fit, by the names and defaults of `dask_nmf.nmf`, which explains them.

    Two fits of one matrix with equal settings give the same W and H.
    """

    n_components: int = field(
        metadata=option("Number of components.", COUNT, flags=("--rank", "-k"), group="Options")
    )
    solver: str = field(
        default="hals",
        metadata=option("Algorithm; hals needs the fewest passes (see docs/choosing.md).", choices=SOLVERS),
    )
    beta_loss: str | float = field(
        default="frobenius",
        metadata=option(
            f"Loss to minimise: {', '.join(LOSSES)}, or the β of a β-divergence.",
            NUMBER,
            choices=LOSSES,
            metavar="LOSS",
        ),
    )
    init: str | None = field(
        default=None,
        metadata=option(
            "Method by which the initial W and H are found.",
            choices=INITS,
            implied=("custom",),
            default="sample",
            group="Start",
        ),
    )
    n_init: int = field(
        default=1,
        metadata=option(
            "Number of starts, which share each read of V; the best one is kept.", COUNT, group="Start"
        ),
    )
    max_iter: int = field(
        default=200, metadata=option("Largest number of passes over V.", COUNT, group="Options")
    )
    tol: float = field(
        default=1e-4,
        metadata=option(
            "Stop when a pass lowers the loss by less than this share.", NOT_NEGATIVE, group="Options"
        ),
    )
    stop_below: float = field(
        default=0.0,
        metadata=option("Stop when ‖V − W H‖ falls below this number.", NOT_NEGATIVE, group="Stopping"),
    )
    random_state: int = field(
        default=0,
        metadata=option(
            "Seed of the start and of the held-out entries.",
            INTEGER,
            flags=("--seed",),
            group="Options",
        ),
    )
    missing: str | None = field(
        default=None,
        metadata=option(
            "Entries of V that are missing: NaN, or those that a sparse V does not store.",
            choices=MISSING,
            group="Input",
        ),
    )
    alpha_W: float = field(default=0.0, metadata=option("Strength of the penalty on W.", NOT_NEGATIVE))
    alpha_H: float | str = field(
        default="same",
        metadata=option(
            "Strength of the penalty on H.",
            NOT_NEGATIVE,
            choices=("same",),
            metavar="FLOAT",
            default="as for W",
        ),
    )
    l1_ratio: float = field(
        default=0.0, metadata=option("Share of the L1 norm in the penalties; the rest is L2.", SHARE)
    )
    normalize: str | None = field(
        default=None,
        metadata=option(
            "Give each component this norm, and sort the components by weight.", choices=("l1", "l2")
        ),
    )
    validation_fraction: float = field(
        default=0.0,
        metadata=option(
            "Hold out this share of the entries, and stop when their error no longer falls.",
            PART,
            group="Stopping",
        ),
    )
    delta: float | None = field(
        default=None,
        metadata=option(
            "number that is added to denominators.", NOT_NEGATIVE, default="relative to V", solver="mu"
        ),
    )
    inner_iter: int = field(
        default=1, metadata=option("number of update steps in each pass.", COUNT, solver="mu")
    )
    schedule: str = field(
        default="adagrad",
        metadata=option(
            "how the size of the steps changes.",
            choices=("adagrad", "bold-driver", "constant", "inverse-time"),
            solver="sgd",
        ),
    )
    learning_rate: float | None = field(
        default=None,
        metadata=option("size of the first steps.", POSITIVE, default="by the schedule", solver="sgd"),
    )
    batch_size: int | None = field(
        default=None,
        metadata=option(
            "number of rows in a step, or of entries if some are missing.",
            COUNT,
            default="32, or 1",
            solver="sgd",
        ),
    )

    def __post_init__(self) -> None:
        for setting in fields(self):
            object.__setattr__(self, setting.name, plain(getattr(self, setting.name)))
            check(setting.name, getattr(self, setting.name), option_of(setting), setting.default is None)
        self._refuse_ignored()
        self._refuse_gaps()
        self._refuse_starts()

    def _refuse_gaps(self) -> None:
        """Refuse missing or held-out entries for a start that needs every entry."""
        for name in ("missing", "validation_fraction"):
            if self.by_svd and getattr(self, name):
                raise ValueError(
                    f"{name} is {getattr(self, name)!r} and init is {self.init!r}, which needs every entry "
                    f"of V; leave {name} out, or give init 'sample' or 'random'"
                )

    def _refuse_starts(self) -> None:
        """Refuse several starts where they would be the same, or cannot share reads of V."""
        if self.n_init == 1:
            return
        if self.n_init > MOST_STARTS:
            raise ValueError(f"n_init is {self.n_init}; give at most {MOST_STARTS} starts")
        if self.start in SAME_STARTS:
            raise ValueError(
                f"n_init is {self.n_init} and init is {self.init!r}, so that every start would be the same; "
                "leave n_init out, or give init 'sample' or 'random'"
            )
        if self.algorithm.by_strata:
            raise ValueError(
                f"n_init is {self.n_init} and solver {self.solver!r} takes the entries of V in another order "
                "for each start, so that they cannot share a read; leave n_init out, or give another solver"
            )

    def _refuse_ignored(self) -> None:
        """Refuse options and losses that the solver would ignore."""
        changed = {one.name: one for one in fields(self) if getattr(self, one.name) != one.default}
        owners = {name: option_of(one).solver for name, one in changed.items()}
        for owner in filter(None, owners.values()):
            names = [name for name, solver in owners.items() if solver == owner]
            if owner != self.solver:
                raise ValueError(
                    f"{' and '.join(names)} belong to solver {owner!r} and the solver is {self.solver!r}; "
                    "leave them out"
                )
        betas = self.algorithm.betas
        if betas is not None and self.beta not in betas:
            named = " and ".join(name for name, beta in LOSSES.items() if beta in betas)
            raise ValueError(
                f"beta_loss is {self.beta_loss!r} and solver {self.solver!r} is for {named}; take solver 'mu'"
            )
        if self.beta != 2 and self.delta is not None:
            raise ValueError(
                f"delta belongs to beta_loss 'frobenius', and it is {self.beta_loss!r}; leave it out"
            )

    @property
    def beta(self) -> float:
        """The β of the loss, as a β-divergence."""
        return LOSSES[self.beta_loss] if isinstance(self.beta_loss, str) else float(self.beta_loss)

    @property
    def loss_name(self) -> str | float:
        """The name of the loss, or its β if it has no name."""
        return {beta: name for name, beta in LOSSES.items()}.get(self.beta, self.beta)

    @property
    def start(self) -> str:
        """The start, where ``init`` is None too."""
        return self.init or "sample"

    @property
    def by_svd(self) -> bool:
        """Whether the start uses singular vectors."""
        return self.start in NNDSVD

    @property
    def algorithm(self) -> Algorithm:
        """The traits of the solver."""
        return SOLVERS[self.solver]

    @property
    def carried(self) -> int:
        """The number of columns that a factor has between passes."""
        return self.n_components + self.algorithm.extra_columns

    @property
    def alphas(self) -> tuple[float, float]:
        """The penalties on W and on H."""
        return self.alpha_W, self.alpha_W if isinstance(self.alpha_H, str) else self.alpha_H

    @property
    def lasso(self) -> bool:
        """Whether there is an L1 penalty."""
        return self.l1_ratio > 0 and any(self.alphas)

    def at_start(self, number: int) -> Settings:
        """Return the settings of one of several starts, which has its own seed: the first has this one."""
        return replace(self, random_state=self.random_state + (number << APART), n_init=1)

    def check_rank(self, shape: tuple[int, int]) -> None:
        """Refuse more than min(m, n) components if the start uses singular vectors."""
        if self.by_svd and self.n_components > min(shape):
            raise ValueError(
                f"n_components is {self.n_components}, init is {self.start!r} and V is {shape[0]} x "
                f"{shape[1]}, which has {min(shape)} pairs of singular vectors; give at most {min(shape)}, "
                "or init 'sample' or 'random'"
            )

    def record(self) -> dict[str, Any]:
        """Return the settings as a run stores them in JSON."""
        return {**asdict(self), "init": self.start, "beta_loss": self.beta}
