"""Errors about unknown keyword arguments that name the one that is meant."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from difflib import get_close_matches
from functools import wraps
from inspect import signature
from typing import Any, ParamSpec, TypeVar

OTHER_NAMES = {  # names of options in scikit-learn and in other packages, and ours
    **dict.fromkeys(("rank", "k", "r", "n_topics", "components"), "n_components"),
    **dict.fromkeys(("seed", "rng"), "random_state"),
    **dict.fromkeys(("n_iter", "max_iters", "maxiter", "iterations", "epochs", "n_epochs"), "max_iter"),
    **dict.fromkeys(("alpha", "regularization", "reg", "l2", "lambda_"), "alpha_W"),
    **dict.fromkeys(("loss", "beta", "objective"), "beta_loss"),
    **dict.fromkeys(("method", "algorithm", "update"), "solver"),
    **dict.fromkeys(("X", "A", "data", "matrix"), "V"),
    **dict.fromkeys(("W0", "W_init", "init_W"), "W"),
    **dict.fromkeys(("H0", "H_init", "init_H"), "H"),
    **dict.fromkeys(("weight", "sample_weight", "mask"), "weights"),
    **dict.fromkeys(("path", "output", "checkpoint", "checkpoint_dir"), "store"),
    **dict.fromkeys(("lr", "eta", "step_size"), "learning_rate"),
    **dict.fromkeys(("eps", "tolerance"), "tol"),
    **dict.fromkeys(("missing_values", "nan"), "missing"),
}
NOT_NEEDED = {
    "shuffle": "leave it out, components are updated in one order",
    "n_jobs": "leave it out, the active Dask client or the threads of this process are used",
    "update_H": "give fixed_H for an H that stays as it is",
}

Parameters = ParamSpec("Parameters")
Value = TypeVar("Value")


def reject_unknown_keywords(function: Callable[Parameters, Value]) -> Callable[Parameters, Value]:
    """Return the function, made to refuse unknown keywords with the name of the keyword that is meant.

    Raises
    ------
    TypeError
        When the function is called with a keyword that it does not take.
    """
    takes = [name for name in signature(function).parameters if name != "self"]
    name = function.__qualname__.removesuffix(".__init__")

    @wraps(function)
    def called(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Value:
        for word, value in kwargs.items():
            if word not in takes:
                raise TypeError(f"{name}() takes no {word}; {suggestion(word, value, takes, kwargs)}")
        return function(*args, **kwargs)

    return called


def suggestion(word: str, value: Any, takes: list[str], given: Iterable[str]) -> str:
    """Return what to give instead of an unknown keyword, or all keywords if none is like it."""
    if word in NOT_NEEDED:
        return NOT_NEEDED[word]
    ours = OTHER_NAMES.get(word)
    meant = [ours] if ours in takes else get_close_matches(word, takes, 1)
    if not meant:
        return f"it takes {', '.join(takes)}"
    if meant[0] in given:
        return f"it is {meant[0]} here, which is given too; leave {word} out"
    shown = repr(value) if isinstance(value, int | float | str) else "..."
    return f"give {meant[0]}={shown}"
