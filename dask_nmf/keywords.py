"""Keywords that a function does not take: the error says which of its own is meant."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from difflib import get_close_matches
from functools import wraps
from inspect import signature
from typing import Any, ParamSpec, TypeVar

# What scikit-learn and other packages call our options; of several the first that the function has is meant.
OTHER_NAMES: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("rank", "k", "r", "n_topics", "components"), ("n_components",)),
    **dict.fromkeys(("seed", "rng"), ("random_state",)),
    **dict.fromkeys(("n_iter", "max_iters", "maxiter", "iterations", "epochs", "n_epochs"), ("max_iter",)),
    **dict.fromkeys(("alpha", "regularization", "reg", "l2", "lambda_"), ("alpha_W",)),
    **dict.fromkeys(("loss", "beta", "objective"), ("beta_loss",)),
    **dict.fromkeys(("method", "algorithm", "update"), ("solver",)),
    **dict.fromkeys(("X", "A", "data", "matrix"), ("V",)),
    **dict.fromkeys(("W0", "W_init", "init_W"), ("W",)),
    **dict.fromkeys(("H0", "H_init", "init_H"), ("H",)),
    **dict.fromkeys(("weight", "sample_weight", "mask"), ("weights",)),
    **dict.fromkeys(("path", "output", "checkpoint", "checkpoint_dir"), ("store",)),
    **dict.fromkeys(("lr", "eta", "step_size"), ("learning_rate",)),
    **dict.fromkeys(("eps", "tolerance"), ("tol",)),
    **dict.fromkeys(("missing_values", "nan"), ("missing",)),
}
NOT_NEEDED = {
    "shuffle": "leave it out, components are updated in one order",
    "n_jobs": "leave it out, the active Dask client or the threads of this process are used",
    "update_H": "give fixed_H for an H that stays as it is",
}

Parameters = ParamSpec("Parameters")
Value = TypeVar("Value")


def checked(function: Callable[Parameters, Value]) -> Callable[Parameters, Value]:
    """Return the function, such that a keyword it does not take is refused with the one that is meant."""
    takes = [name for name in signature(function).parameters if name != "self"]
    name = function.__qualname__.removesuffix(".__init__")

    @wraps(function)
    def called(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Value:
        for word, value in kwargs.items():
            if word not in takes:
                raise TypeError(f"{name}() takes no {word}; {cure(word, value, takes, kwargs)}")
        return function(*args, **kwargs)

    return called


def cure(word: str, value: Any, takes: list[str], given: Iterable[str]) -> str:
    """Return what to give in the place of a keyword, or what there is to choose from."""
    if word in NOT_NEEDED:
        return NOT_NEEDED[word]
    named = [name for name in OTHER_NAMES.get(word, ()) if name in takes]
    meant = [*named, *get_close_matches(word, takes, 1)][:1]
    if not meant:
        return f"it takes {', '.join(takes)}"
    if meant[0] in given:
        return f"it is {meant[0]} here, which is given too; leave {word} out"
    shown = repr(value) if isinstance(value, int | float | str) else "..."
    return f"give {meant[0]}={shown}"
