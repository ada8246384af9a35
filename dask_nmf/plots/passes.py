"""The relative error after each pass."""

from __future__ import annotations

from typing import Any

import numpy as np

from dask_nmf.plots.drawing import FIRST, axes_or_new, draw_line, label_axes, matplotlib_part
from dask_nmf.types import Array

MARKED = 60  # passes, up to which each has a mark


def plot_error(history: Array, axes: Any = None) -> Any:
    """Draw the relative error after each pass, and return the axes; errors that are not known leave gaps.

    Parameters
    ----------
    history : (n_iter,), the relative error after each pass.
    axes : axes of Matplotlib; None for those of a new figure.

    Raises
    ------
    ValueError
        If Matplotlib is not installed.
    """
    axes = axes_or_new(axes)
    errors = np.asarray(history, np.float64)
    look = FIRST if len(errors) <= MARKED else FIRST._replace(marker="")
    draw_line(axes, np.arange(1, len(errors) + 1), errors, look, "relative error")
    label_axes(axes, "Error after each pass", "pass", "relative error")
    axes.xaxis.set_major_locator(matplotlib_part("ticker").MaxNLocator(integer=True, min_n_ticks=1))
    axes.yaxis.get_major_formatter().set_useOffset(False)
    return axes
