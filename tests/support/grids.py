"""Parameters of tests that need not be tried in every combination."""

from collections.abc import Iterable, Mapping
from itertools import combinations, product
from typing import Any

import pytest


def pairwise(axes: Mapping[str, Iterable[Any]]) -> pytest.MarkDecorator:
    """Return a parametrization in which each value of an axis meets each value of every other axis.

    The key of an axis is the name of an argument, or names with commas between them; then its values are
    tuples. An axis may be a mapping from ids to values.
    """
    values = [list(axis.items() if isinstance(axis, Mapping) else _with_ids(axis)) for axis in axes.values()]
    chosen, missing = [], set(_pairs_of_all(values))
    everything = list(product(*(range(len(axis)) for axis in values)))
    while missing:
        best = max(everything, key=lambda numbers: len(missing & _pairs(numbers)))
        missing -= _pairs(best)
        chosen.append(best)
    names = [name.strip() for key in axes for name in key.split(",")]
    return pytest.mark.parametrize(names, [_param(axes, values, numbers) for numbers in sorted(chosen)])


def _with_ids(axis: Iterable[Any]) -> list[tuple[str, Any]]:
    return [(getattr(value, "__name__", None) or _text(value), value) for value in axis]


def _text(value: Any) -> str:
    return "-".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _pairs(numbers: tuple[int, ...]) -> set[tuple[tuple[int, int], ...]]:
    return set(combinations(enumerate(numbers), 2))


def _pairs_of_all(values: list[list[Any]]) -> Iterable[tuple[tuple[int, int], ...]]:
    for one, other in combinations(range(len(values)), 2):
        for i, j in product(range(len(values[one])), range(len(values[other]))):
            yield (one, i), (other, j)


def _param(axes: Iterable[str], values: list[list[Any]], numbers: tuple[int, ...]) -> Any:
    picked = [values[axis][number] for axis, number in enumerate(numbers)]
    parts: list[Any] = []
    for key, (_, value) in zip(axes, picked, strict=True):
        parts.extend(value if "," in key else [value])
    return pytest.param(*parts, id="-".join(name for name, _ in picked))
