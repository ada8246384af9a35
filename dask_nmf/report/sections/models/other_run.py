"""The section that compares a run with another one: their errors, matched components and settings."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from dask_nmf.display.text import escape_control
from dask_nmf.report.drawing.charts import Words
from dask_nmf.report.drawing.heat import Sides, heat_map
from dask_nmf.report.facts.columns import column
from dask_nmf.report.facts.fit import row_norms
from dask_nmf.report.pages.page import Figure, Section, Table
from dask_nmf.results.comparison import Comparison
from dask_nmf.types import Array

STRIP = 1 << 16  # columns that are processed at once
MOST_TICKS = 25


def comparison_section(comparison: Comparison, h: Array, other: Array) -> Section:
    """Return the section; ``h`` (k, n) and ``other`` are the H of both runs."""
    paragraphs = [
        f"This run is compared with {escape_control(comparison.runs[1])}. Components are matched so that the "
        f"sum of the cosines of their rows of H is the largest: the mean is {comparison.mean_cosine:.3f}.",
        *_unmatched(comparison),
    ]
    if "beta_loss" in comparison.settings:
        paragraphs.append(
            "The relative errors are of different losses, so that the smaller one does not say which run "
            "fits V better."
        )
    settings = [(name, _shown(one), _shown(two)) for name, (one, two) in comparison.settings.items()]
    tables = [
        Table(
            "Errors of both runs",
            ["", "this run", "the other run"],
            [
                ("relative error", *column(comparison.relative_errors, 6)),
                ("passes", *map(str, comparison.passes)),
            ],
        ),
        Table(
            "Settings that differ", ["setting", "this run", "the other run"], settings or [("none", "", "")]
        ),
    ]
    return Section(
        "comparison",
        "Compared with another run",
        paragraphs,
        tables=tables,
        figures=[_matched(comparison, h, other)],
    )


def _unmatched(comparison: Comparison) -> Iterator[str]:
    for name, left in zip(("this run", "the other run"), comparison.unmatched, strict=True):
        if left:
            yield f"Components of {name} without a match: {', '.join(map(str, left))}."


def _shown(value: object) -> str:
    return "–" if value is None else escape_control(value)


def _matched(comparison: Comparison, h: Array, other: Array) -> Figure:
    """Return the cosines of all components of both runs, matched ones on the diagonal."""
    firsts = [pair.first for pair in comparison.pairs] + comparison.unmatched[0]
    seconds = [pair.second for pair in comparison.pairs] + comparison.unmatched[1]
    cosines = cosines_between(h, other)[np.ix_(firsts, seconds)]
    words = Words(
        "Components of both runs",
        "Heat map of cosines; matched components are on the diagonal, the most alike first. Their mean "
        f"cosine is {comparison.mean_cosine:.3f}.",
    )
    pairs = [(str(pair.first), str(pair.second), f"{pair.cosine:.4f}") for pair in comparison.pairs]
    table = Table("matched components", ["this run", "the other run", "cosine"], pairs)
    sides = Sides(
        "component of this run", "component of the other run", "cosine", 1.0, _ticks(firsts), _ticks(seconds)
    )
    return heat_map(cosines, words, sides, table)


def _ticks(numbers: list[int]) -> dict[float, str]:
    return {place: str(numbers[place]) for place in range(0, len(numbers), -(-len(numbers) // MOST_TICKS))}


def cosines_between(h: Array, other: Array) -> Array:
    """Return the cosines of rows of two H, (k, k'); 0 for rows of zeros."""
    both = [np.where((norms := row_norms(one)) > 0, norms, 1.0)[:, None] for one in (h, other)]
    total = np.zeros((len(h), len(other)))
    for first in range(0, h.shape[1], STRIP):
        some = slice(first, first + STRIP)
        total += (h[:, some] / both[0]) @ (other[:, some] / both[1]).T
    return total
