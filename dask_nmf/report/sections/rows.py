"""The section about W: which component leads in how many rows, how rows are mixed, how entries spread."""

from __future__ import annotations

import numpy as np

from dask_nmf.report.drawing.charts import Words, bar_chart
from dask_nmf.report.drawing.heat import Sides, component_ticks, heat_map
from dask_nmf.report.facts.columns import column, percents
from dask_nmf.report.facts.fit import FitFacts
from dask_nmf.report.facts.words import number
from dask_nmf.report.pages.page import Figure, Section, Table
from dask_nmf.types import Array
from dask_nmf.wording import counted

MOST_BARS = 48  # components
CLASSES = 24  # of the sizes of parts, each of half an octave
TICKS: dict[float, str] = {
    0: "less",
    CLASSES - 1: "1",
    **{CLASSES - 1 - 2 * octave: f"1/{1 << octave}" for octave in range(1, 11)},
}
QUANTILES = (0.1, 0.5, 0.9, 0.99, 1.0)


def rows_section(facts: FitFacts) -> Section:
    """Return the section about the rows of W."""
    mixtures = effective_numbers(facts.weights.sample)
    paragraphs = []
    if len(mixtures):
        low, middle, high = np.quantile(mixtures, [0.1, 0.5, 0.9])
        paragraphs.append(
            f"A typical row is made of {counted(number(middle, 2), 'component')}, and four fifths of all "
            f"rows of {number(low, 2)} to {number(high, 2)}, counted by their sizes: two equal parts "
            "count as 2, and a part that is much smaller than another hardly counts."
        )
    paragraphs.append(
        "The size of a component in a row is its weight in W times its norm in H, so that it does not depend "
        "on how the scale is split between them."
    )
    figures = [_leading(facts)]
    if len(mixtures):
        figures += [_sizes(facts)]
    return Section("rows", "Rows and their weights", paragraphs, figures=figures)


def effective_numbers(parts: Array) -> Array:
    """Return (Σ p)² / Σ p² of each row of parts (rows, k): the effective number of its components.

    Rows of zeros are left out.
    """
    wide = parts.astype(np.float64)
    largest = wide.max(axis=1, initial=0.0)
    wide = wide[largest > 0] / largest[largest > 0, None]
    return np.asarray(wide.sum(axis=1) ** 2 / (wide**2).sum(axis=1))


def _leading(facts: FitFacts) -> Figure:
    counts = facts.weights.leading
    order = np.argsort(-counts[:-1], kind="stable")[:MOST_BARS].tolist()
    names = [f"component {one}" for one in order]
    values = counts[order].astype(np.float64)
    if counts[-1]:
        names, values = [*names, "none (zero)"], np.append(values, counts[-1])
    words = Words(
        "Rows by their largest component",
        f"Bars; component {order[0]} is the largest in {int(counts[order[0]]):,} of "
        f"{counted(facts.weights.rows, 'row', ',')}.",
    )
    shares = values / max(facts.weights.rows, 1)
    rows = list(zip(names, column(values), percents(shares), strict=True))
    figure = bar_chart(names, values, words, "rows", width=4.6)
    table = Table("rows by their largest component", ["component", "rows", "share"], rows)
    return Figure(words.title, words.description, figure.svg, table)


def _sizes(facts: FitFacts) -> Figure:
    """Return how the sizes of parts spread: a heat map of components and classes of sizes."""
    parts = facts.weights.sample
    shares = size_classes(parts)
    most = float(shares[:, 1:].max()) or 1.0  # most parts of sparse rows are zero: the others would be pale
    words = Words(
        "How large the parts of components are",
        "Heat map: for each component the share of rows by the size of its part, which doubles every two "
        "classes to the right. The first class has parts that are zero or very small.",
    )
    sides = Sides(
        "component",
        "size of the part, as a share of the largest of all",
        "share of rows\n(the strongest: this or more)" if shares.max() > most else "share of rows",
        most,
        row_ticks=component_ticks(facts.rank),
        column_ticks=TICKS,
    )
    quantiles = np.quantile(parts, QUANTILES, axis=0)
    present = 1 - facts.weights.zeros / max(facts.weights.rows, 1)
    rows = list(zip(map(str, range(facts.rank)), percents(present), *map(column, quantiles), strict=True))
    names = [f"{100 * share:g} % quantile" for share in QUANTILES[:-1]]
    table = Table(
        "sizes of the parts of components", ["component", "rows that have it", *names, "largest"], rows
    )
    return heat_map(shares, words, sides, table)


def size_classes(parts: Array) -> Array:
    """Return the share of rows of parts (rows, k) in each class of size, (k, 24).

    The last class holds the largest part of all and what is above it divided by √2, and so on downwards; the
    first one holds all that is smaller.
    """
    largest = parts.max(initial=0.0)
    with np.errstate(divide="ignore"):
        depth = -2 * np.log2(parts / (largest if largest > 0 else 1.0))
    classes = CLASSES - 1 - np.minimum(depth, CLASSES - 1).astype(np.int64)
    counts = np.array([np.bincount(column, minlength=CLASSES) for column in classes.T])
    return counts / max(len(parts), 1)
