"""The section on where the model fails: residuals by blocks of V, and the worst rows and columns."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from dask_nmf.fitting.starts.problem import Measures
from dask_nmf.kernels.summary.residual_sums import Residuals, Side
from dask_nmf.plots.factors.residuals import darkest, ticks_of
from dask_nmf.report.drawing.charts import Words
from dask_nmf.report.drawing.heat import Sides, heat_map
from dask_nmf.report.facts.columns import column, percents
from dask_nmf.report.facts.fit import FitFacts
from dask_nmf.report.pages.page import Figure, Section, Table

WORST_BLOCKS = 10  # of the table


def failures_section(facts: FitFacts, residuals: Residuals | None) -> Section:
    """Return the section; without residuals it says how to get them, if that is possible."""
    title = "Where the model fails"
    if residuals is None:
        reason, may_be_found = _reason(facts)
        text = f"This is not known: {reason}."
        if may_be_found and facts.record["settings"].get("weights") is None:
            text += " Write the report with --residuals and the V that was fitted, which is then read once."
        return Section("failures", title, [text])
    names = facts.names.reading(residuals.rows.worst.tolist(), residuals.columns.worst.tolist())
    text = (
        "When V was last read, the residuals V − W H were summed up by blocks of neighbouring rows and "
        f"columns. {_meaning(facts.squared)} A strong band is a group of rows or columns that the components "
        "do not describe; if the order of rows and columns means nothing, look at the tables of single rows "
        "and columns."
    )
    tables = [
        _worst("row", residuals.rows, names.row, residuals, facts.squared),
        _worst("column", residuals.columns, names.column, residuals, facts.squared),
    ]
    return Section("failures", title, [text], tables=tables, figures=[_map(facts, residuals)])


def _reason(facts: FitFacts) -> tuple[str, bool]:
    """Return why the last read of a fit has not found residuals, and whether another read would find them."""
    record = facts.record
    if Measures(**record["measures"]).loss_unit(facts.stored.settings.beta) is None:
        why = "V is so large or so small that losses of its entries are beyond float64"
        return f"{why}; factorise V times a number", False
    if "lineage" in record:
        return "rows were added or taken out since the fit", True
    if record["loss"] is None:
        return "the loss is infinite", False
    return "an earlier version of dask_nmf fitted it", True


def _meaning(squared: bool) -> str:
    if squared:
        text = "The shade of a block is the part of its ‖V‖² that W H leaves unexplained"
        return f"{text}; above 1, W H is worse there than 0."
    return "The shade of a block is the mean divergence of its entries, in units of the mean of all entries."


def _map(facts: FitFacts, residuals: Residuals) -> Figure:
    values = residuals.relative(facts.squared)
    finite = np.where(np.isfinite(values), values, 0.0)
    order = np.argsort(-finite, axis=None, kind="stable")[:WORST_BLOCKS]
    blocks = [np.unravel_index(place, values.shape) for place in order]
    spans = [(_span(residuals.rows, int(i)), _span(residuals.columns, int(j))) for i, j in blocks]
    rows = []
    if residuals.total > 0:
        shares = percents(float(residuals.losses[block]) / residuals.total for block in blocks)
        lost = _losses((float(values[block]) for block in blocks), facts.squared)
        rows = [(*span, *texts) for span, *texts in zip(spans, lost, shares, strict=True)]
    label = "unexplained part" if facts.squared else "mean divergence"
    worst = f" It is worst in rows {spans[0][0]} and columns {spans[0][1]}." if spans else ""
    words = Words(
        "Residuals by blocks of rows and columns",
        f"Heat map of {values.shape[0]} blocks of rows by {values.shape[1]} blocks of columns.{worst}",
    )
    table = Table("blocks that fit worst", ["rows", "columns", label, "share of the loss"], rows, [1])
    most, ticks = darkest(values), [ticks_of(side) for side in (residuals.rows, residuals.columns)]
    shown = f"{label}\n(the strongest: this or more)" if finite.max(initial=0.0) > most else label
    sides = Sides("rows of V", "columns of V", shown, most, *ticks)
    return heat_map(finite, words, sides, table)


def _losses(relative: Iterable[float | None], squared: bool) -> list[str]:
    """Return losses by their sizes as the texts of a column: parts as per cent, or mean divergences."""
    return percents(relative) if squared else column(relative)


def _span(side: Side, block: int) -> str:
    return f"{side.edges[block]:,} to {side.edges[block + 1] - 1:,}"


def _worst(kind: str, side: Side, name: Callable[[int], str], residuals: Residuals, squared: bool) -> Table:
    total = residuals.total if residuals.total > 0 else 1.0
    mean = residuals.total / max(residuals.sizes.sum(), 1) or 1.0
    unit = 1.0 if squared else mean
    lost = [
        loss / size / unit if size > 0 else None for loss, size in zip(side.losses, side.sizes, strict=True)
    ]
    names = [name(int(place)) for place in side.worst]
    rows = list(zip(names, percents(side.losses / total), _losses(lost, squared), strict=True))
    of_itself = f"unexplained part of the {kind}" if squared else "mean divergence, in units of that of V"
    return Table(f"The {kind}s with the largest residuals", [kind, "share of the loss", of_itself], rows)
