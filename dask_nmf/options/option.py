"""The description of an option: its help, what its value must be, and the errors that say so."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import Field, dataclass
from difflib import get_close_matches
from math import inf, isfinite
from numbers import Integral, Real
from typing import Any, NamedTuple

OTHER_WORDS = {  # of scikit-learn and other packages, for values that have another name here
    **dict.fromkeys(("cd", "als", "anls", "nnls", "bcd"), "hals"),
    **dict.fromkeys(("lee-seung", "multiplicative", "multiplicative-update"), "mu"),
    **dict.fromkeys(("fro", "euclidean", "squared", "mse"), "frobenius"),
    **dict.fromkeys(("kl", "poisson", "generalized-kl"), "kullback-leibler"),
    **dict.fromkeys(("is", "itakura"), "itakura-saito"),
    **dict.fromkeys(("svd", "nmf-svd"), "nndsvd"),
}


class Need(NamedTuple):
    """A condition on the value of a setting, and its text in an error message."""

    holds: Callable[[Any], bool]
    text: str


@dataclass(frozen=True)
class Option:
    """The description of a setting, for error messages, for the command and for its help.

    Parameters
    ----------
    help : one line for people.
    need : what a value must be that is none of the choices; None if it must be one of them.
    choices : the words that are allowed.
    implied : those of the choices that follow from other options, so that the command does not offer them.
    flags : the flags of the command, where they are not made from the name.
    metavar : the name of the value in the help, where it is not the type.
    default : the text of the default in the help, where the value does not say it.
    solver : the only solver that has the option.
    group : the heading below which the help lists it.
    """

    help: str
    need: Need | None = None
    choices: Collection[str] = ()
    implied: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    metavar: str | None = None
    default: str | None = None
    solver: str | None = None
    group: str = "Model"


def option(help: str, need: Need | None = None, **more: Any) -> dict[str, Option]:
    """Return the metadata of a field of `Settings`; the arguments are those of `Option`."""
    return {"option": Option(help, need, **more)}


def option_of(setting: Field[Any]) -> Option:
    """Return the description of a field of `Settings`."""
    described: Option = setting.metadata["option"]
    return described


def _is_integer(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _is_real(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    try:
        return _is_real(value) and isfinite(value)
    except OverflowError:  # an integer beyond the range of floats
        return False


INTEGER = Need(_is_integer, "an integer")
COUNT = Need(lambda value: _is_integer(value) and value >= 1, "an integer ≥ 1")
NUMBER = Need(_is_number, "a number")
POSITIVE = Need(lambda value: _is_number(value) and value > 0, "a number > 0")
NOT_NEGATIVE = Need(lambda value: _is_number(value) and value >= 0, "a number ≥ 0")
UP_TO = Need(lambda value: _is_real(value) and (value == inf or NOT_NEGATIVE.holds(value)), "a number ≥ 0")
SHARE = Need(lambda value: _is_number(value) and 0 <= value <= 1, "from 0 to 1")
INNER = Need(lambda value: _is_number(value) and 0 < value < 1, "above 0 and below 1")
PART = Need(lambda value: _is_number(value) and 0 <= value < 1, "at least 0 and below 1")
TIME_LIMIT = Option("Seconds after which the pass that is running is the last one.", UP_TO)


def check(name: str, value: Any, described: Option, optional: bool) -> None:
    """Refuse a value that is neither as needed nor one of the choices; None is allowed where ``optional``.

    Raises
    ------
    ValueError
        With the name, the value and what is needed.
    """
    if value is None and optional:
        return
    if isinstance(value, str):
        holds = value in described.choices
    else:
        holds = described.need is not None and described.need.holds(value)
    if not holds:
        raise ValueError(f"{name} is {value!r}; it must be {_needed(value, described, optional)}")


def check_time_limit(seconds: Any) -> None:
    """Refuse a time limit that is no number of seconds; None is no limit.

    Raises
    ------
    ValueError
        With the value and what is needed.
    """
    check("time_limit", plain(seconds), TIME_LIMIT, optional=True)


def _needed(value: Any, described: Option, optional: bool) -> str:
    """Return what a value must be, for the error about one that is not."""
    need, choices = described.need, tuple(described.choices)
    if need is None:
        return f"one of {_choice(value, (None, *choices) if optional else choices)}"
    if len(choices) > 1:
        return f"{need.text} or one of {_choice(value, choices)}"
    others = [*map(repr, choices), *(["None"] if optional else [])]
    return " or ".join([need.text, *others])


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
