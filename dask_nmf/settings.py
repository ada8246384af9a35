"""What a user asks of a fit, checked, and the part of it that makes two fits the same fit."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from difflib import get_close_matches
from numbers import Integral, Real
from typing import Any, ClassVar, NoReturn

SOLVERS = ("hals", "mu", "sgd")
NNDSVD = ("nndsvd", "nndsvda", "nndsvdar")
INITS = ("sample", "random", *NNDSVD, "custom")
LOSSES = {"frobenius": 2.0, "kullback-leibler": 1.0, "itakura-saito": 0.0}
MISSING = ("nan", "unstored")
SCHEDULES = ("adagrad", "bold-driver", "constant", "inverse-time")
NORMS = ("l1", "l2")
OTHER_WORDS = {  # of scikit-learn and other packages, for values that we have by another name
    **dict.fromkeys(("cd", "als", "anls", "nnls", "bcd"), "hals"),
    **dict.fromkeys(("lee-seung", "multiplicative", "multiplicative-update"), "mu"),
    **dict.fromkeys(("fro", "euclidean", "squared", "mse"), "frobenius"),
    **dict.fromkeys(("kl", "poisson", "generalized-kl"), "kullback-leibler"),
    **dict.fromkeys(("is", "itakura"), "itakura-saito"),
    **dict.fromkeys(("svd", "nmf-svd"), "nndsvd"),
}


@dataclass(frozen=True)
class Settings:
    """Options of a fit, by the names and defaults of `dask_nmf.nmf`, which explains them.

    Two fits of one matrix with equal settings give the same W and H.
    """

    n_components: int
    solver: str = "hals"
    beta_loss: str | float = "frobenius"
    init: str | None = None
    max_iter: int = 200
    tol: float = 1e-4
    random_state: int = 0
    normalize: str | None = None
    delta: float | None = None
    inner_iter: int = 1
    alpha_W: float = 0.0
    alpha_H: float | str = "same"
    l1_ratio: float = 0.0
    missing: str | None = None
    validation_fraction: float = 0.0
    stop_below: float = 0.0
    schedule: str = "adagrad"
    learning_rate: float | None = None
    batch_size: int | None = None

    OF_ONE: ClassVar[dict[str, tuple[str, ...]]] = {
        "mu": ("delta", "inner_iter"),
        "sgd": ("schedule", "learning_rate", "batch_size"),
    }  # options that only one solver has
    BETAS: ClassVar[dict[str, tuple[float, ...]]] = {"hals": (2.0, 1.0), "sgd": (2.0,)}  # mu: any

    def __post_init__(self) -> None:
        for field in fields(self):
            object.__setattr__(self, field.name, plain(getattr(self, field.name)))
        for name in ("n_components", "max_iter", "inner_iter"):
            self._check(name, _is_count(getattr(self, name)), "an integer ≥ 1")
        self._check("random_state", _is_integer(self.random_state), "an integer")
        self._check(
            "batch_size", self.batch_size is None or _is_count(self.batch_size), "an integer ≥ 1 or None"
        )
        for name, values in (
            ("solver", SOLVERS),
            ("init", (None, *INITS)),
            ("missing", (None, *MISSING)),
            ("schedule", SCHEDULES),
            ("normalize", (None, *NORMS)),
        ):
            if (value := getattr(self, name)) not in values:  # a run's settings are read at each look at it
                self._refuse(name, f"one of {_choice(value, values)}")
        for name in ("tol", "stop_below", "alpha_W"):
            self._check(name, _is_size(getattr(self, name)), "a number ≥ 0")
        self._check("alpha_H", self.alpha_H == "same" or _is_size(self.alpha_H), "a number ≥ 0 or 'same'")
        self._check("delta", self.delta is None or _is_size(self.delta), "a number ≥ 0 or None")
        rate = self.learning_rate
        self._check("learning_rate", rate is None or (_is_size(rate) and rate > 0), "a number > 0 or None")
        known = self.beta_loss in LOSSES if isinstance(self.beta_loss, str) else _is_number(self.beta_loss)
        if not known:
            self._refuse("beta_loss", f"a number or one of {_choice(self.beta_loss, tuple(LOSSES))}")
        self._check("l1_ratio", _is_size(self.l1_ratio) and self.l1_ratio <= 1, "from 0 to 1")
        share = self.validation_fraction
        self._check("validation_fraction", _is_size(share) and share < 1, "at least 0 and below 1")
        self._refuse_ignored()
        self._refuse_gaps()

    def _check(self, name: str, holds: bool, needed: str) -> None:
        if not holds:
            self._refuse(name, needed)

    def _refuse(self, name: str, needed: str) -> NoReturn:
        raise ValueError(f"{name} is {getattr(self, name)!r}; it must be {needed}")

    def _refuse_gaps(self) -> None:
        """A singular value decomposition wants every entry."""
        for name in ("missing", "validation_fraction"):
            if self.by_svd and getattr(self, name):
                raise ValueError(
                    f"{name} is {getattr(self, name)!r} and init is {self.init!r}, which needs every entry "
                    f"of V; leave {name} out, or give init 'sample' or 'random'"
                )

    def _refuse_ignored(self) -> None:
        """No option that the solver would not look at."""
        defaults = {field.name: field.default for field in fields(self)}
        for solver, names in self.OF_ONE.items():
            given = [name for name in names if getattr(self, name) != defaults[name]]
            if given and self.solver != solver:
                raise ValueError(
                    f"{' and '.join(given)} belong to solver {solver!r} and the solver is {self.solver!r}; "
                    "leave them out"
                )
        if self.beta not in self.BETAS.get(self.solver, (self.beta,)):
            named = " and ".join(name for name, beta in LOSSES.items() if beta in self.BETAS[self.solver])
            raise ValueError(
                f"beta_loss is {self.beta_loss!r} and solver {self.solver!r} is for {named}; take solver 'mu'"
            )
        if self.beta != 2 and self.delta is not None:
            raise ValueError(
                f"delta belongs to beta_loss 'frobenius', and it is {self.beta_loss!r}; leave it out"
            )

    @property
    def beta(self) -> float:
        """The β of the loss."""
        return LOSSES[self.beta_loss] if isinstance(self.beta_loss, str) else float(self.beta_loss)

    @property
    def loss_name(self) -> str | float:
        """The loss, by its name where it has one."""
        return {beta: name for name, beta in LOSSES.items()}.get(self.beta, self.beta)

    @property
    def start(self) -> str:
        """The start that ``init`` means."""
        return self.init or "sample"

    @property
    def by_svd(self) -> bool:
        """Whether the start is from singular vectors."""
        return self.start in NNDSVD

    @property
    def carried(self) -> int:
        """Components of a factor between passes: sgd has one more than the answer, see `gradient`."""
        return self.n_components + (self.solver == "sgd")

    @property
    def alphas(self) -> tuple[float, float]:
        """The penalties on W and on H."""
        return self.alpha_W, self.alpha_W if isinstance(self.alpha_H, str) else self.alpha_H

    @property
    def lasso(self) -> bool:
        """Whether there is an L1 penalty."""
        return self.l1_ratio > 0 and any(self.alphas)

    def check_rank(self, shape: tuple[int, int]) -> None:
        """Refuse more components than a start from singular vectors has: min(m, n). Others take any rank."""
        if self.by_svd and self.n_components > min(shape):
            raise ValueError(
                f"n_components is {self.n_components}, init is {self.start!r} and V is {shape[0]} x "
                f"{shape[1]}, which has {min(shape)} pairs of singular vectors; give at most {min(shape)}, "
                "or init 'sample' or 'random'"
            )

    def record(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {**asdict(self), "init": self.start, "beta_loss": self.beta}


def plain(value: Any) -> Any:
    """Return an option as Python's own number or text: NumPy's are narrow, and JSON does not take them."""
    if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):
        value = value.item()
    if isinstance(value, bool):
        return value
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(value)
    return str(value) if isinstance(value, str) else value


def _choice(value: Any, values: tuple[str | None, ...]) -> str:
    """Return the values there are to choose from, and the one that is meant, where that can be guessed."""
    named, word = [name for name in values if name is not None], str(value).lower()
    listed = ", ".join(map(str, values))
    if OTHER_WORDS.get(word) in named:
        return f"{listed}; {word!r} is called {OTHER_WORDS[word]!r} here"
    meant = get_close_matches(word, named, 1)
    return f"{listed}; give {meant[0]!r}" if meant else listed


def _is_integer(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return _is_integer(value) and int(value) >= 1


def _is_number(value: Any) -> bool:
    real = isinstance(value, Real) and not isinstance(value, bool)
    return real and -float("inf") < float(value) < float("inf")


def _is_size(value: Any) -> bool:
    return _is_number(value) and float(value) >= 0
