"""Parts that all figures share: Matplotlib, which is optional, and colours that print in grey too."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from math import ceil, sqrt
from typing import Any, NamedTuple

import numpy as np

from dask_nmf.display.text import escape_control
from dask_nmf.types import Array
from dask_nmf.wording import counted


class Line(NamedTuple):
    """The look of a line: lines differ by marker and dashes too, not by colour alone."""

    colour: str
    marker: str
    dashes: str


# The colours are Okabe & Ito's, which colour-blind people tell apart.
BLUE, ORANGE, GREEN, GREY, BLACK = "#0072B2", "#D55E00", "#009E73", "#595959", "#000000"
FIRST, SECOND, THIRD = Line(BLUE, "o", "-"), Line(ORANGE, "s", "--"), Line(GREEN, "^", ":")
SHADES = "Blues"  # of heat maps: white is 0, and the lightness falls evenly


def matplotlib_part(name: str) -> Any:
    """Return a module of Matplotlib.

    Raises
    ------
    ValueError
        If it is not installed; the text has the command that installs it.
    """
    try:
        return import_module(f"matplotlib.{name}")
    except ImportError as error:
        raise ValueError(
            "figures need matplotlib, which is not installed: pip install 'dask_nmf[figures]'"
        ) from error


def axes_or_new(axes: Any) -> Any:
    """Return the axes that are given, or those of a new figure of pyplot."""
    return matplotlib_part("pyplot").subplots(layout="constrained")[1] if axes is None else axes


def draw_line(axes: Any, x: Array, y: Array, line: Line, label: str) -> None:
    """Draw a line with its markers."""
    axes.plot(x, y, line.dashes, color=line.colour, marker=line.marker, markersize=5, label=label)


def label_axes(axes: Any, title: str, x: str, y: str) -> None:
    """Write the title and the labels, and leave out the frame that says nothing."""
    axes.set(title=title, xlabel=x, ylabel=y)
    axes.spines[["top", "right"]].set_visible(False)


LONGEST_NAME = 26  # characters of a name in a chart; its table has all of it


def short_name(name: str, longest: int = LONGEST_NAME) -> str:
    """Return a name for a chart: in one line, and cut near its end if it is long."""
    plain = escape_control(name)
    if len(plain) <= longest:
        return plain
    return f"{plain[: longest - 9]}…{plain[-8:]}"


def plain_ticks(axis: Any, places: Sequence[int], names: Sequence[str]) -> None:
    """Write names beside places of an axis, as they are: a $ begins no formula."""
    axis.set_ticks(places, names, fontsize="small")
    for label in axis.get_ticklabels():
        label.set_parse_math(False)


def axes_grid(axes: Any, count: int, size: tuple[float, float]) -> Array:
    """Return an array of ``count`` axes.

    Parameters
    ----------
    axes : axes whose space is divided, or as many as there shall be; None for a new figure of pyplot.
    size : width and height of one in a new figure, in inches.

    Raises
    ------
    ValueError
        If Matplotlib is not installed, there are too few or too many axes, or they are in no grid.
    """
    if axes is not None and (np.size(axes) > 1 or count == 1):
        given = np.ravel(np.asarray(axes, object))
        if len(given) != count:
            wanted = counted(count, "component")
            raise ValueError(f"there are {len(given)} axes for {wanted}; give one, or one for each")
        return given
    columns = min(count, max(2, ceil(sqrt(count * size[1] / size[0]))))
    rows = ceil(count / columns)
    if axes is None:
        figure = matplotlib_part("pyplot").figure(
            figsize=(columns * size[0], rows * size[1]), layout="constrained"
        )
        grid = figure.add_gridspec(rows, columns)
    else:
        (whole,) = np.ravel(np.asarray(axes, object))
        place = whole.get_subplotspec()
        if place is None:
            raise ValueError("the axes are in no grid of subplots; give those of subplots, or one for each")
        whole.set_axis_off()
        figure, grid = whole.figure, place.subgridspec(rows, columns)
    return np.array([figure.add_subplot(grid[place]) for place in range(count)], object)
