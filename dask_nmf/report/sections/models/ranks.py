"""The sections of a selection: error and stability against the rank, and the consensus of the models."""

from __future__ import annotations

import numpy as np

from dask_nmf.plots.consensus import consensus_of
from dask_nmf.plots.ranks import plot_errors, plot_stability
from dask_nmf.report.drawing.charts import Words
from dask_nmf.report.drawing.heat import Sides, heat_map
from dask_nmf.report.drawing.reduction import block_means
from dask_nmf.report.drawing.svg import inline_svg, new_figure
from dask_nmf.report.facts.columns import column
from dask_nmf.report.facts.words import number
from dask_nmf.report.pages.page import Figure, Section, Table
from dask_nmf.selection.result import HEADINGS, RankSelection
from dask_nmf.wording import counted

MOST_SQUARES = 300  # of a side of the heat map of the consensus
ERRORS = "Error of held-out entries against the rank"
STABILITY = "Agreement of the models of a rank"
MEANINGS = (
    "Held out: the mean error of entries that no model saw. Above best: by how much it is above that of the "
    "best rank, over pairs of models with the same start and fold, with its standard error. Fitted: the "
    "relative error of all other entries. Stability: the mean cosine of components that are matched between "
    "models. Cophenetic, dispersion: 1 if all models group the rows alike. Ambiguous: the share of pairs of "
    "rows on which models disagree."
)


def ranks_section(selection: RankSelection) -> Section:
    """Return the section with the recommendation, and the error and the stability of each rank."""
    paragraphs = [f"Rank {selection.n_components} is recommended: {selection.reason}.", MEANINGS]
    return Section(
        "ranks",
        "The choice of the rank",
        paragraphs,
        tables=[_table(selection)],
        figures=[_errors(selection), _stability(selection)],
    )


def consensus_section(selection: RankSelection) -> Section:
    """Return the section on how far the models of the recommended rank group the rows of V alike."""
    agreement = consensus_of(selection)
    ordered = agreement.matrix[np.ix_(agreement.order, agreement.order)]
    known = (
        ""
        if np.isnan(agreement.cophenetic)
        else f" The cophenetic correlation is {agreement.cophenetic:.3f}."
    )
    words = Words(
        f"Consensus of the models of rank {selection.n_components}",
        f"Heat map of {counted(len(ordered), 'row')} of V by the same rows, ordered by cluster: how many "
        f"models put two rows together.{known}",
    )
    text = (
        "Two rows belong together in a model if they have the same largest component. Blocks of the "
        f"strongest shade on the diagonal with nothing beside them are groups that all models find.{known}"
    )
    sides = Sides("rows of V, ordered by cluster", "the same rows", "share of models", 1.0, {}, {})
    figure = heat_map(block_means(ordered, MOST_SQUARES), words, sides)
    return Section("consensus", "Consensus", [text], figures=[figure])


def _table(selection: RankSelection) -> Table:
    best = selection.n_components
    ranks = [row["n_components"] for row in selection.ranks]
    names = [f"{rank}{', recommended' if rank == best else ''}" for rank in ranks]
    columns = [column(row[name] for row in selection.ranks) for name in list(HEADINGS)[1:]]
    rows = list(zip(names, *columns, strict=True))
    return Table("All ranks", list(HEADINGS.values()), rows)


def _errors(selection: RankSelection) -> Figure:
    rows = [row for row in selection.ranks if row["held_out_error"] is not None]
    best = min(rows, key=lambda row: row["held_out_error"])
    words = Words(
        ERRORS,
        f"Line with standard errors: the lowest error is {number(best['held_out_error'])} at rank "
        f"{best['n_components']}; rank {selection.n_components} is recommended.",
    )
    figure = new_figure(5.2, 3.4)
    plot_errors(selection, figure.subplots()).set_title("")
    return Figure(words.title, words.description, inline_svg(figure, *words))


def _stability(selection: RankSelection) -> Figure:
    known = [row for row in selection.ranks if row["stability"] is not None]
    values = ", ".join(f"{row['n_components']}: {row['stability']:.3f}" for row in known)
    words = Words(STABILITY, f"Lines against the rank. Stability by rank: {values or 'unknown'}.")
    figure = new_figure(5.2, 3.4)
    plot_stability(selection, figure.subplots()).set_title("")
    return Figure(words.title, words.description, inline_svg(figure, *words))
