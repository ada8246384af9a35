"""Where W H differs from V, as a heat map of blocks of rows and columns."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from dask_nmf.kernels.summary.residual_sums import Residuals, Side
from dask_nmf.plots.drawing import SHADES, axes_or_new
from dask_nmf.types import Array

TICKS = 6  # of a side
SHADED = 0.98  # share of the blocks whose values the shades tell apart; the others have the darkest one


def plot_residuals(
    residuals: Residuals | None, squared: bool, axes: Any = None, error: float = math.nan
) -> Any:
    """Draw the loss of each block of V by its size, and return the axes.

    Parameters
    ----------
    squared : whether the loss is the squared error.
    axes : axes of Matplotlib; None for those of a new figure. A colour bar takes a part of their space.
    error : the root of the loss; NaN if it is not known.

    Raises
    ------
    ValueError
        If the residuals are not known, or Matplotlib is not installed.
    """
    if residuals is None:
        raise ValueError(f"where W H differs from V is not known for this result: {_why_unknown(error)}")
    axes = axes_or_new(axes)
    values = residuals.relative(squared)
    most = darkest(values)
    image = axes.imshow(values, cmap=SHADES, vmin=0, vmax=most, aspect="auto", interpolation_stage="data")
    beyond = "max" if (values[np.isfinite(values)] > most).any() else "neither"  # an arrow: some are larger
    bar = axes.figure.colorbar(image, ax=axes, shrink=0.85, extend=beyond)
    bar.set_label("unexplained part" if squared else "mean divergence, in units of that of V")
    axes.set(title="Where the model fails", xlabel="columns of V", ylabel="rows of V")
    for axis, side in ((axes.yaxis, residuals.rows), (axes.xaxis, residuals.columns)):
        ticks = ticks_of(side)
        axis.set_ticks(list(ticks), list(ticks.values()))
    return axes


def _why_unknown(error: float) -> str:
    """Return why residuals are not known, and the cure, by the root of the loss."""
    if error * error in (math.inf, 0.0) and error:
        return "losses of entries of V are beyond float64; factorise V times a number"
    return (
        "rows were changed since the fit, or an earlier version fitted it; dask-nmf report --residuals V "
        "reads V to find out"
    )


def darkest(values: Array) -> float:
    """Return the value of the darkest shade of a map of residuals; a few blocks may have larger ones.

    A block in which V is almost zero may have a hundred times the value of all others, which would be white.
    """
    finite = values[np.isfinite(values)]
    return float(np.quantile(finite, SHADED)) or float(finite.max()) or 1.0 if finite.size else 1.0


def ticks_of(side: Side) -> dict[float, str]:
    """Return the first row or column of some blocks, by the place of its edge in a heat map."""
    blocks = len(side.edges) - 1
    places = np.arange(0, blocks, -(-blocks // TICKS))
    return {float(place) - 0.5: f"{side.edges[place]:,}" for place in places}
