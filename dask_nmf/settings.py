"""What a user asks of a fit, checked, and the part of it that makes two fits the same fit."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from numbers import Integral, Real
from typing import Any, ClassVar

SOLVERS = ("hals", "mu", "sgd")
NNDSVD = ("nndsvd", "nndsvda", "nndsvdar")
INITS = ("sample", "random", *NNDSVD, "custom")
LOSSES = {"frobenius": 2.0, "kullback-leibler": 1.0, "itakura-saito": 0.0}
MISSING = ("nan", "unstored")
SCHEDULES = ("adagrad", "bold-driver", "constant", "inverse-time")


@dataclass(frozen=True)
class Settings:
    """Options of a fit. Two fits of one matrix with equal settings give the same W and H.

    Parameters
    ----------
    rank : number of components, k.
    solver : ``"hals"`` (few passes, W solved anew in each), ``"mu"`` (Lee & Seung's steps) or ``"sgd"``
        (minibatches; for V of which most is missing).
    beta_loss : what is to be small: ``"frobenius"`` (half of ‖V − W H‖²), ``"kullback-leibler"`` (for
        counts), ``"itakura-saito"`` (V > 0), or the β of a β-divergence (2, 1 and 0 are these). Solver hals
        takes the first two, mu takes any, sgd the first. A divergence is told as √(2 D), as ‖V − W H‖ is, and
        its relative error is √(D(V | W H) / D(V | mean of V)).
    init : ``"sample"`` (default; H of some rows, factorised in memory), ``"random"``, or ``"custom"`` (from
        given W and H, or from either). As in scikit-learn: ``"nndsvd"`` (from singular vectors, in two more
        reads of V, of which every entry must count), ``"nndsvda"`` (with the mean of V for its zeros),
        ``"nndsvdar"`` (with small random numbers, of a hundredth of the mean).
    max_iter : most passes over V.
    tol : stop when a pass lowers the loss by less than ``tol`` times itself, or ``tol`` times what is
        explained of ‖V‖² if that is less.
    stop_below : stop when ‖V − W H‖ (Frobenius) is below this.
    seed : of the start, of the entries held out and of the order of minibatches.
    alpha_W, alpha_H : penalties, scaled as scikit-learn does: to the loss, ‖V − W H‖² or twice the
        divergence, is added ``alpha_W · n_i ((1 − l1_ratio) ‖w_i‖² + 2 l1_ratio |w_i|)`` for each row of W
        and ``alpha_H · m_j (…)`` for each column of H, n_i and m_j the number (or weight) of the entries that
        count in that row or column of V. ``alpha_H="same"`` is ``alpha_W``.
    l1_ratio : share of the L1 norm in the penalties, 0 to 1.
    missing : None: every entry of V counts; ``"nan"``: NaN is missing; ``"unstored"``: only the stored
        entries of a sparse V count, and a stored zero is a zero that was observed.
    validation_fraction : share of the entries that is held out. The fit ends when their error has not fallen
        for some passes, and its answer is the best of the passes by that error.
    normalize : ``"l1"`` or ``"l2"``: in the answer the rows of H have that norm 1, W is scaled so that W H
        stays, and the components are in the order of their weight, the norm of W's column, the largest first.
    delta : mu: added to denominators; by default a trifle relative to the scale of V.
    inner_iter : mu: steps on the products of a pass; 1 is Lee & Seung's.
    schedule : sgd: of the step. ``"adagrad"``: its own for each row and column, by the gradients so far
        (Duchi et al. 2011), free of scale; ``"bold-driver"``: grows by 5 % when the loss falls, halved when
        it rises; ``"constant"``; ``"inverse-time"``: divided by the number of the pass.
    learning_rate : sgd: for ``"adagrad"`` relative to the size of a factor's entries (by default 0.1 from a
        random start, else 0.03); absolute for the others (by default one that is safe at the scale of V).
    batch_size : sgd: rows of V in a minibatch (default 32); where entries are missing, stored entries (1).
    """

    rank: int
    solver: str = "hals"
    beta_loss: str | float = "frobenius"
    init: str | None = None
    max_iter: int = 200
    tol: float = 1e-4
    seed: int = 0
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
        for name in ("rank", "max_iter", "inner_iter"):
            self._check(name, _is_count(getattr(self, name)), "an integer ≥ 1")
        self._check("seed", isinstance(self.seed, Integral), "an integer")
        self._check(
            "batch_size", self.batch_size is None or _is_count(self.batch_size), "an integer ≥ 1 or None"
        )
        for name, values in (
            ("solver", SOLVERS),
            ("init", (None, *INITS)),
            ("missing", (None, *MISSING)),
            ("schedule", SCHEDULES),
            ("normalize", (None, "l1", "l2")),
        ):
            named = ", ".join(str(value) for value in values)
            self._check(name, getattr(self, name) in values, f"one of {named}")
        for name in ("tol", "stop_below", "alpha_W"):
            self._check(name, _is_size(getattr(self, name)), "a number ≥ 0")
        self._check("alpha_H", self.alpha_H == "same" or _is_size(self.alpha_H), "a number ≥ 0 or 'same'")
        self._check("delta", self.delta is None or _is_size(self.delta), "a number ≥ 0 or None")
        rate = self.learning_rate
        self._check("learning_rate", rate is None or (_is_size(rate) and rate > 0), "a number > 0 or None")
        named = ", ".join(LOSSES)
        known = self.beta_loss in LOSSES if isinstance(self.beta_loss, str) else _is_number(self.beta_loss)
        self._check("beta_loss", known, f"one of {named}, or a number")
        self._check("l1_ratio", _is_size(self.l1_ratio) and self.l1_ratio <= 1, "from 0 to 1")
        share = self.validation_fraction
        self._check("validation_fraction", _is_size(share) and share < 1, "at least 0 and below 1")
        self._refuse_ignored()
        self._refuse_gaps()

    def _check(self, name: str, holds: bool, needed: str) -> None:
        if not holds:
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
        return self.rank + (self.solver == "sgd")

    @property
    def alphas(self) -> tuple[float, float]:
        """The penalties on W and on H."""
        return self.alpha_W, self.alpha_W if isinstance(self.alpha_H, str) else self.alpha_H

    def check_rank(self, shape: tuple[int, int]) -> None:
        """Refuse a rank above either dimension of V."""
        if self.rank > min(shape):
            raise ValueError(
                f"rank is {self.rank} and V is {shape[0]} x {shape[1]}; give a rank of at most {min(shape)}"
            )

    def record(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {**asdict(self), "init": self.start, "beta_loss": self.beta}


def _is_count(value: Any) -> bool:
    return isinstance(value, Integral) and int(value) >= 1


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and -float("inf") < float(value) < float("inf")


def _is_size(value: Any) -> bool:
    return isinstance(value, Real) and 0 <= float(value) < float("inf")
