"""Heat maps of a report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from dask_nmf.plots.drawing import SHADES, matplotlib_part
from dask_nmf.report.drawing.charts import WIDE, Words
from dask_nmf.report.drawing.svg import inline_svg, new_figure
from dask_nmf.report.pages.page import Figure, Table
from dask_nmf.types import Array

MOST_TICKS = 25
LOW, HIGH, OF_ROW = 1.6, 4.2, 0.2  # least and largest height of a heat map, and that of a row, in inches


class Sides(NamedTuple):
    """The labels of the sides of a heat map and of its shades, and what is written beside rows and columns.

    Attributes
    ----------
    most : the value of the darkest shade; None: the largest one
    row_ticks, column_ticks : texts by place; None: the numbers of the places
    """

    rows: str
    columns: str
    value: str
    most: float | None = None
    row_ticks: Mapping[float, str] | None = None
    column_ticks: Mapping[float, str] | None = None


def component_ticks(count: int) -> dict[float, str]:
    """Return the numbers of components, by their places, as many as there is room for."""
    return {place: str(place) for place in range(0, count, max(1, -(-count // MOST_TICKS)))}


def heat_map(matrix: Array, words: Words, sides: Sides, table: Table | None = None) -> Figure:
    """Return a matrix as shades, of which 0 is the colour of the paper; NaN are left out."""
    rows, columns = matrix.shape
    square = rows == columns
    side = min(max(OF_ROW * rows, LOW), HIGH)
    figure = new_figure(side + 1.6 if square else WIDE, side + 0.8)
    axes = figure.subplots()
    most = float(np.nanmax(matrix, initial=0.0)) if sides.most is None else sides.most
    axes.imshow(matrix, cmap=SHADES, vmin=0, vmax=most or 1.0, aspect="equal" if square else "auto")
    axes.set(xlabel=sides.columns, ylabel=sides.rows)
    for axis, ticks in ((axes.yaxis, sides.row_ticks), (axes.xaxis, sides.column_ticks)):
        if ticks is not None:
            axis.set_ticks(list(ticks), list(ticks.values()), fontsize=7)
    add_legend(figure, axes, sides.value, most)
    axes.spines[["top", "right"]].set_visible(True)
    return Figure(words.title, words.description, inline_svg(figure, *words), table, "heat")


def add_legend(figure: Any, axes: Any, label: str, most: float) -> None:
    """Draw beside a heat map which shade stands for which value."""
    scale = matplotlib_part("cm").ScalarMappable(matplotlib_part("colors").Normalize(0, most or 1.0), SHADES)
    bar = figure.colorbar(scale, ax=axes, shrink=0.8, aspect=25, pad=0.02, drawedges=False)
    bar.solids.set_rasterized(True)  # an image, whose shades the page can turn as those of the map
    bar.ax.tick_params(labelsize=7)
    bar.set_label(label, fontsize=8)
