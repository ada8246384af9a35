"""Parts that all figures share: Matplotlib, which is optional, and colours that print in grey too."""

from __future__ import annotations

from importlib import import_module
from typing import Any, NamedTuple

from dask_nmf.types import Array


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
