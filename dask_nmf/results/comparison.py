"""`compare`: the components of two runs matched with each other, with the errors and settings that differ."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dask_nmf.iteration.outcome import relative_error
from dask_nmf.quality.matching import pair_components
from dask_nmf.runs.run import Run
from dask_nmf.runs.stored_result import StoredResult
from dask_nmf.storage.locations import Location, located
from dask_nmf.types import Array
from dask_nmf.wording import counted


class Pair(NamedTuple):
    """A component of each of two runs, and the cosine of their rows of H."""

    first: int
    second: int
    cosine: float


@dataclass(frozen=True)
class Comparison:
    """The comparison of two runs.

    Attributes
    ----------
    runs : the names of both runs
    pairs : matched components, with the most alike first: the assignment with the largest sum of cosines
    unmatched : components of each run that have no match, because the other run has fewer
    relative_errors : of both runs; None where it is infinite
    passes : of both runs
    settings : the settings that differ, each with its value in both runs
    columns : the number of columns that were compared: those of both runs, by name if both have names
    widths : the number of columns of each run

    Examples
    --------
    >>> from dask_nmf import nmf
    >>> from dask_nmf.results import compare
    >>> for rank in (1, 2):
    ...     result = nmf([[1.0, 3.0], [2.0, 6.0]], rank, store=f"rank-{rank}.zarr")
    >>> compared = compare("rank-1.zarr", "rank-2.zarr")
    >>> len(compared.pairs), compared.columns, compared.settings["n_components"]
    (1, 2, (1, 2))
    """

    runs: tuple[str, str]
    pairs: list[Pair]
    unmatched: tuple[list[int], list[int]]
    relative_errors: tuple[float | None, float | None]
    passes: tuple[int, int]
    settings: dict[str, tuple[Any, Any]]
    columns: int
    widths: tuple[int, int]

    @property
    def mean_cosine(self) -> float:
        """The mean cosine of matched components."""
        return float(np.mean([pair.cosine for pair in self.pairs]))

    def as_json(self) -> dict[str, Any]:
        """Return the comparison as JSON holds it."""
        return {
            "runs": list(self.runs),
            "columns": self.columns,
            "widths": list(self.widths),
            "mean_cosine": self.mean_cosine,
            "components": [pair._asdict() for pair in self.pairs],
            "unmatched": list(self.unmatched),
            "relative_errors": list(self.relative_errors),
            "passes": list(self.passes),
            "settings": {name: list(values) for name, values in self.settings.items()},
        }


def compare(first: str | Path | Location, second: str | Path | Location) -> Comparison:
    """Return the comparison of the results of two runs, whose V have common columns.

    Parameters
    ----------
    first, second : path, URL or location of a run or of a selection of ranks.

    Returns
    -------
    Comparison, with the pairs of components, their cosines, and the options that differ.

    Raises
    ------
    FileNotFoundError, InvalidRunError
        As `Run.load`.
    ValueError
        If a run has no result, or the runs have no common columns.

    Examples
    --------
    >>> from dask_nmf import nmf
    >>> from dask_nmf.results import compare
    >>> for seed in (0, 1):
    ...     result = nmf([[1.0, 3.0], [2.0, 6.0]], 1, store=f"start-{seed}.zarr", random_state=seed)
    >>> [round(float(pair.cosine), 3) for pair in compare("start-0.zarr", "start-1.zarr").pairs]
    [1.0]
    """
    results = [Run.load_result(located(place, verbatim=True)) for place in (first, second)]
    names = results[0].location.name, results[1].location.name
    one, other = _common_columns(results, names)
    pairs, unmatched = _matched(one, other)
    return Comparison(
        names,
        pairs,
        unmatched,
        (_error(results[0]), _error(results[1])),
        (results[0].record["pass"], results[1].record["pass"]),
        _differing(*(result.settings.record() for result in results)),
        one.shape[1],
        (results[0].record["matrix"]["shape"][1], results[1].record["matrix"]["shape"][1]),
    )


def _common_columns(results: list[StoredResult], names: tuple[str, str]) -> tuple[Array, Array]:
    """Return H of both runs, (k, n), of the columns that both have: by name, if both have names.

    Raises
    ------
    ValueError
        If there are names and none is common, or there are no names and the numbers of columns differ.
    """
    one, other = (result.read("H") for result in results)
    labels = [result.labels.columns for result in results]
    if labels[0] is not None and labels[1] is not None:
        mine, theirs = ({name: at for at, name in enumerate(_all(each))} for each in labels)
        common = [name for name in mine if name in theirs]
        if not common:
            raise ValueError(
                f"no column of {names[0]} has the name of one of {names[1]}; give runs with common columns"
            )
        return one[:, [mine[name] for name in common]], other[:, [theirs[name] for name in common]]
    if one.shape[1] != other.shape[1]:
        raise ValueError(
            f"{names[0]} has {counted(one.shape[1], 'column')} and {names[1]} has {other.shape[1]}; "
            "give runs of matrices with the same columns"
        )
    return one, other


def _all(names: Any) -> list[str]:
    """Return all names of columns."""
    found: list[str] = names.read(0, len(names)).tolist()
    return found


def _matched(one: Array, other: Array) -> tuple[list[Pair], tuple[list[int], list[int]]]:
    """Return the pairs of components, the most alike first, and the components without one."""
    matching = pair_components(one, other)
    order = np.argsort(-matching.cosines, kind="stable")
    columns = (matching.first[order], matching.second[order], matching.cosines[order])
    pairs = [Pair(*values) for values in zip(*(column.tolist() for column in columns), strict=True)]
    left = (
        sorted({*range(len(h))} - {*chosen.tolist()})
        for h, chosen in ((one, matching.first), (other, matching.second))
    )
    return pairs, (next(left), next(left))


def _error(result: StoredResult) -> float | None:
    """Return the relative error of a result; None if it is infinite."""
    loss = result.record["loss"]
    return None if loss is None else relative_error(loss, result.record["measures"]["baseline"])


def _differing(one: dict[str, Any], other: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return the settings that differ, with both values."""
    return {name: (one[name], other[name]) for name in one if one[name] != other[name]}
