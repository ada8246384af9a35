"""The sections about components: a table of all, a card for each, and how alike they are."""

from __future__ import annotations

import numpy as np

from dask_nmf.plots.drawing import short_name
from dask_nmf.report.drawing.charts import MOST_POINTS, Words, bar_chart
from dask_nmf.report.drawing.heat import Sides, component_ticks, heat_map
from dask_nmf.report.facts.columns import column, percents
from dask_nmf.report.facts.fit import FitFacts
from dask_nmf.report.facts.words import number, percent
from dask_nmf.report.pages.page import Card, Figure, Section, Table
from dask_nmf.report.sections.views import ImageShape, View, component_figure
from dask_nmf.types import Array
from dask_nmf.wording import counted

MOST_CARDS = 48  # components that have a card of their own
NAMED = 5  # top columns of a component in the table
LONGEST_ROW = 40  # characters of the name of a row in a card
MOST_PAIRS = 30  # of the table of components that are alike


def components_section(facts: FitFacts, view: View, shape: ImageShape | None) -> Section:
    """Return the section with a table of all components, and a card for each of the heaviest ones."""
    order = np.argsort(-facts.shares, kind="stable").tolist()
    shown = sorted(order[:MOST_CARDS])
    paragraphs = [
        "A row of V is a sum of components with the weights of its row of W. The share of a component is its "
        f"part of what W H explains ({'of ‖W H‖²' if facts.squared else 'of the sum of W H'}). Sparseness is "
        "Hoyer's: 0 if all entries are alike, 1 if only one is not zero. Components are counted from 0.",
    ]
    if len(shown) < facts.rank:
        paragraphs.append(
            f"The {counted(len(shown), 'component')} with the largest shares are drawn; all are in the table."
        )
    cards = [
        Card(f"Component {one}", _line(facts, one), component_figure(facts, one, view, shape))
        for one in shown
    ]
    figures = [_shares(facts, order[:MOST_CARDS])]
    if view is not View.IMAGE and facts.h.shape[1] > 1:
        figures.append(_sorted_heat_map(facts))
    return Section(
        "components",
        "Components",
        paragraphs,
        tables=[_table(facts, view)],
        figures=figures,
        cards=cards,
        small=view is View.IMAGE,
    )


def similarity_section(facts: FitFacts) -> Section:
    """Return the section on how alike components are, in H and in W."""
    ticks = component_ticks(facts.rank)
    sides = Sides("component", "component", "cosine", 1.0, ticks, ticks)
    figures = []
    for name, matrix, text in (
        ("H", facts.h_cosines, "have the same columns"),
        ("W", facts.w_cosines, "occur in the same rows"),
    ):
        off = matrix - np.diag(np.diagonal(matrix))
        one, other = np.unravel_index(off.argmax(), off.shape)
        most = (
            ""
            if facts.rank == 1
            else (f" The pair that is most alike is {one} and {other}, with {off.max():.3f}.")
        )
        words = Words(
            f"Components that {text} ({name})",
            f"Heat map of the cosines of the components in {name}.{most}",
        )
        figures.append(heat_map(matrix, words, sides, _pairs(matrix, name)))
    text = (
        "Cosines of components: 1 means that two are the same up to scale, 0 that they share nothing. "
        "Two components that are alike in H and in W do the work of one."
    )
    return Section("similarity", "Likeness of components", [text], figures=figures)


def _line(facts: FitFacts, component: int) -> str:
    """Return one line about a component."""
    parts = [
        f"{percent(facts.shares[component])} of what is explained",
        f"sparseness {number(facts.h_sparseness[component], 2)} in H, "
        f"{number(facts.w_sparseness[component], 2)} in W",
    ]
    if facts.likeness is not None:
        parts.append(f"bootstrap stability {number(float(facts.likeness[component]), 3)}")
    tops = [
        facts.names.row(int(row))
        for row, value in zip(
            facts.weights.top_rows[component], facts.weights.top_values[component], strict=True
        )
        if value > 0
    ]
    rows = f" Largest in {' · '.join(short_name(name, LONGEST_ROW) for name in tops[:3])}." if tops else ""
    return f"{'; '.join(parts)}.{rows}"


def _table(facts: FitFacts, view: View) -> Table:
    tops = view is not View.IMAGE  # pixels have no names
    columns = [
        list(map(str, range(facts.rank))),
        percents(facts.shares),
        column(facts.h_sparseness, 2),
        column(facts.w_sparseness, 2),
        column(facts.weights.leading[: facts.rank]),
    ]
    if facts.likeness is not None:
        columns.append(column(facts.likeness, 3))
    if tops:
        columns.append(
            [" · ".join(map(facts.names.column, facts.top_columns(one, NAMED))) for one in range(facts.rank)]
        )
    rows = list(zip(*columns, strict=True))
    head = ["component", "share", "sparseness in H", "sparseness in W", "largest in rows"]
    head += [] if facts.likeness is None else ["bootstrap stability"]
    head += ["largest columns"] if tops else []
    return Table("All components", head, rows, [len(head) - 1] if tops else [])


def _shares(facts: FitFacts, order: list[int]) -> Figure:
    words = Words(
        "Share of each component in what is explained",
        f"Bars; the largest is component {order[0]} with {percent(facts.shares[order[0]])}, "
        f"the smallest shown component {order[-1]} with {percent(facts.shares[order[-1]])}.",
    )
    names = [f"component {one}" for one in order]
    return bar_chart(names, 100 * facts.shares[order], words, "per cent", width=4.6)


def _sorted_heat_map(facts: FitFacts) -> Figure:
    """Return H with the columns in order of their largest component, each row from 0 to its largest entry."""
    matrix, columns = sorted_columns(facts.h), counted(facts.h.shape[1], "column", ",")
    words = Words(
        "All of H, its columns sorted",
        f"Heat map of {counted(facts.rank, 'component')} and {columns}. Columns are grouped by the component "
        "that is largest in them, and fall from left to right within a group.",
    )
    ticks, label = component_ticks(facts.rank), f"{columns} of V, sorted"
    sides = Sides("component", label, "share of the row's largest", 1.0, ticks, {})
    return heat_map(matrix, words, sides)


def sorted_columns(h: Array) -> Array:
    """Return H (k, n) with sorted columns and rows of largest entry 1, in at most 600 columns.

    If there are more, each is the largest of a run of them.
    """
    tops = h.max(axis=1).astype(np.float64)
    by = np.where(tops > 0, tops, 1.0).astype(h.dtype)[:, None]
    owners = np.empty(h.shape[1], np.int64)
    values = np.empty(h.shape[1], h.dtype)
    step = 1 << 16
    for first in range(0, h.shape[1], step):
        some = h[:, first : first + step] / by
        owners[first : first + step] = some.argmax(axis=0)
        values[first : first + step] = some.max(axis=0)
    order = np.lexsort((-values, owners))
    runs = np.array_split(order, min(MOST_POINTS, len(order)))
    return np.stack([(h[:, run] / by).max(axis=1) for run in runs], axis=1)


def _pairs(matrix: Array, name: str) -> Table:
    """Return the pairs of components that are most alike as a table."""
    rows, columns = np.triu_indices(len(matrix), 1)
    order = np.argsort(-matrix[rows, columns], kind="stable")[:MOST_PAIRS]
    pairs = [(str(rows[one]), str(columns[one]), f"{matrix[rows[one], columns[one]]:.3f}") for one in order]
    return Table(f"pairs of components that are most alike in {name}", ["one", "other", "cosine"], pairs)
