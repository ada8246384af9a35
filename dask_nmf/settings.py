"""What a user asks of a fit, checked, and the part of it that makes two fits the same fit."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from numbers import Integral, Real
from typing import Any

SOLVERS = ("hals", "mu")
INITS = ("sample", "random", "custom")
MISSING = ("nan", "unstored")


@dataclass(frozen=True)
class Settings:
    """Options of a fit. Two fits of one matrix with equal settings give the same W and H."""

    rank: int
    solver: str = "hals"
    init: str | None = None  # None: "sample"
    max_iter: int = 200
    tol: float = 1e-4
    seed: int = 0
    delta: float | None = None  # mu: None is relative to the scale of V
    inner_iter: int = 1  # mu: steps on the products of one pass
    alpha_W: float = 0.0  # L2 penalty of w_i for each entry of V that counts in its row
    alpha_H: float | str = "same"  # of h_j for each in its column
    missing: str | None = None  # None: every entry counts; "nan", "unstored": these do not
    validation_fraction: float = 0.0  # of the entries is held out

    def __post_init__(self) -> None:
        _check(isinstance(self.rank, Integral) and self.rank >= 1, "rank", self.rank, "an integer ≥ 1")
        _check(self.solver in SOLVERS, "solver", self.solver, f"one of {', '.join(SOLVERS)}")
        _check(self.init in (None, *INITS), "init", self.init, f"one of {', '.join(INITS)} or None")
        _check(
            isinstance(self.max_iter, Integral) and self.max_iter >= 1,
            "max_iter",
            self.max_iter,
            "an integer ≥ 1",
        )
        _check(isinstance(self.tol, Real) and self.tol >= 0, "tol", self.tol, "a number ≥ 0")
        _check(isinstance(self.seed, Integral), "seed", self.seed, "an integer")
        _check(
            self.delta is None or (isinstance(self.delta, Real) and self.delta >= 0),
            "delta",
            self.delta,
            "a number ≥ 0 or None",
        )
        _check(
            isinstance(self.inner_iter, Integral) and self.inner_iter >= 1,
            "inner_iter",
            self.inner_iter,
            "an integer ≥ 1",
        )
        for name in ("alpha_W", "alpha_H"):
            value = getattr(self, name)
            same = name == "alpha_H" and value == "same"
            _check(same or (isinstance(value, float | int) and value >= 0), name, value, "a number ≥ 0")
        _check(
            self.missing in (None, *MISSING), "missing", self.missing, f"one of {', '.join(MISSING)} or None"
        )
        fraction = self.validation_fraction
        _check(
            isinstance(fraction, float | int) and 0 <= fraction < 1,
            "validation_fraction",
            fraction,
            "in [0, 1)",
        )
        if self.solver != "mu" and (self.delta is not None or self.inner_iter != 1):
            raise ValueError(
                f"delta and inner_iter belong to solver 'mu'; the solver is {self.solver!r}: leave them out"
            )

    @property
    def start(self) -> str:
        """The start that ``init`` means."""
        return self.init or "sample"

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
        return {**asdict(self), "init": self.start}


def _check(holds: bool, name: str, value: object, needed: str) -> None:
    if not holds:
        raise ValueError(f"{name} is {value!r}; it must be {needed}")
