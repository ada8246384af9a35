"""Charts of a report: lines, bars, spectra and pictures, each as a `Figure` of its page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple
from unicodedata import east_asian_width

import numpy as np

from dask_nmf.plots.drawing import BLUE, FIRST, SECOND, draw_line, label_axes, matplotlib_part, short_name
from dask_nmf.report.drawing.reduction import block_means
from dask_nmf.report.drawing.svg import inline_svg, new_figure, plain_figure
from dask_nmf.report.pages.page import Figure, Table
from dask_nmf.types import Array

WIDE, CARD, IMAGE = 6.2, 2.95, 1.9  # widths in inches
LETTER = 0.066  # width of a letter of a name, in inches
WIDEST_TICKS = 4  # spaces between numbers below a line that have room even for 0.00123
MOST_POINTS = 600  # of a line
MOST_PIXELS = 140  # of a side of a picture
MARKED = 60  # points of a line, up to which each has a mark


class Words(NamedTuple):
    """The words of a figure: its title, and the text that stands for it."""

    title: str
    description: str


def line_chart(
    x: Array,
    y: Array,
    words: Words,
    axes_labels: tuple[str, str],
    table: Table | None = None,
    expected: float | None = None,
) -> Figure:
    """Return a line, of which NaN leave gaps, and a level line at what was expected of ``y``, if it was."""
    figure = new_figure(WIDE / 1.3, 2.6)
    axes = figure.subplots()
    step = max(1, -(-len(x) // MOST_POINTS))
    some = np.unique([*range(0, len(x), step), len(x) - 1])
    look = FIRST if len(x) <= MARKED else FIRST._replace(marker="")
    draw_line(axes, x[some], y[some], look, "found")
    if expected is not None:
        ends = np.array([x[0], x[-1]])
        draw_line(axes, ends, np.full(2, expected), SECOND._replace(marker=""), "expected")
        axes.legend(fontsize="small", framealpha=0, ncols=2, loc="lower right", bbox_to_anchor=(1, 0.98))
    label_axes(axes, "", *axes_labels)
    axes.margins(y=0.1)
    axes.yaxis.get_major_formatter().set_useOffset(False)
    whole = axes_labels[0] == "pass"
    ticks = {"integer": True, "min_n_ticks": 1} if whole else {"nbins": WIDEST_TICKS}
    axes.xaxis.set_major_locator(matplotlib_part("ticker").MaxNLocator(**ticks))
    return Figure(words.title, words.description, inline_svg(figure, *words), table)


def bar_chart(
    names: Sequence[str],
    values: Array,
    words: Words,
    label: str = "",
    errors: Array | None = None,
    width: float = CARD,
) -> Figure:
    """Return horizontal bars, the first one on top; ``errors`` are drawn as error bars."""
    shown = [short_name(name) for name in names]
    left = 0.12 + LETTER * max(map(letters, shown), default=0)
    below, bars = 0.38 if label else 0.24, 0.17 * len(names) + 0.05
    figure = plain_figure(width, below + bars + 0.05)
    axes = figure.add_axes(
        (left / width, below / (below + bars + 0.05), 1 - (left + 0.12) / width, bars / (below + bars + 0.05))
    )
    places = np.arange(len(names))
    axes.barh(places, values, height=0.72, color=BLUE)
    if errors is not None:
        axes.errorbar(values, places, xerr=errors, fmt="none", ecolor="#000000", elinewidth=1, capsize=2)
    axes.set_yticks(places, shown, fontsize=8)
    axes.tick_params(axis="x", labelsize=7)
    axes.tick_params(axis="y", length=0)
    axes.xaxis.set_major_locator(matplotlib_part("ticker").MaxNLocator(4))
    axes.invert_yaxis()
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlabel(label, fontsize=8)
    return Figure(words.title, words.description, inline_svg(figure, *words))


def spectrum(x: Array, y: Array, words: Words, errors: Array | None = None) -> Figure:
    """Return a line over columns that are numbers in order; ``errors`` are drawn as a band."""
    figure = plain_figure(CARD, 1.7)
    axes = figure.add_axes((0.14, 0.13, 0.83, 0.83))
    x, y, errors = (None if part is None else thinned(part) for part in (x, y, errors))  # type: ignore[assignment]
    axes.plot(x, y, color=BLUE, linewidth=1)
    if errors is not None:
        axes.fill_between(x, np.maximum(y - errors, 0), y + errors, color=BLUE, alpha=0.3, linewidth=0)
    axes.tick_params(labelsize=7)
    axes.set_ylim(bottom=0)
    return Figure(words.title, words.description, inline_svg(figure, *words))


def thinned(values: Array) -> Array:
    """Return values for a line of at most 600 points: the least and the largest of each run, in turn."""
    if len(values) <= MOST_POINTS:
        return values
    runs = np.array_split(values, MOST_POINTS // 2)
    return np.array([part for run in runs for part in (run.min(), run.max())])


def picture(pixels: Array, words: Words, largest: float) -> Figure:
    """Return pixels (height, width), from 0 (the darkest) to ``largest``; a large picture is made smaller."""
    pixels = block_means(pixels, MOST_PIXELS)
    height, width = pixels.shape
    scale = min(IMAGE / width, IMAGE / height)
    figure = plain_figure(width * scale, height * scale)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.imshow(pixels, cmap="gray", vmin=0, vmax=largest or 1.0, aspect="auto")
    axes.set_axis_off()
    return Figure(words.title, words.description, inline_svg(figure, *words), kind="image")


def letters(text: str) -> float:
    """Return how wide a text is, in small letters; capitals and letters of East Asia are wider."""
    wide = {"W": 1.9, "F": 1.9}
    return sum(wide.get(east_asian_width(char), 1.25 if char.isupper() else 1.0) for char in text)
