"""The held-out error and the stability of ranks, with their spread and the recommended rank."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dask_nmf.plots.drawing import (
    BLACK,
    BLUE,
    FIRST,
    GREY,
    SECOND,
    THIRD,
    axes_or_new,
    draw_line,
    label_axes,
    matplotlib_part,
)
from dask_nmf.plots.subjects import Selection
from dask_nmf.types import Array

RANK = "rank (number of components)"
FAINT = 0.35  # opacity of single models and components
SMALLEST, ROOM = 0.2, 1.5  # least range of agreement, and how much more leaves room for a legend
MEASURES = {
    "stability": ("mean cosine of matched components", FIRST),
    "cophenetic": ("cophenetic correlation", SECOND),
    "dispersion": ("dispersion of the consensus", THIRD),
}


def plot_errors(selection: Selection, axes: Any = None) -> Any:
    """Draw the held-out error of each rank, and return the axes.

    Dots are models. The bar of a rank is the standard error of its difference to the lowest error: ranks
    whose bar reaches the dashed line are within it, and the least of them is recommended.

    Parameters
    ----------
    axes : axes of Matplotlib; None for those of a new figure.

    Raises
    ------
    ValueError
        If Matplotlib is not installed.
    """
    axes = axes_or_new(axes)
    rows = [row for row in selection.ranks if row["held_out_error"] is not None]
    ranks, means = (_column(rows, name) for name in ("n_components", "held_out_error"))
    known = [row for row in selection.models if row["held_out_error"] is not None]
    places, errors = (_column(known, name) for name in ("n_components", "held_out_error"))
    axes.plot(places, errors, ".", color=GREY, alpha=FAINT, markersize=6, label="single models")
    bars = np.nan_to_num(_column(rows, "standard_error"))
    axes.errorbar(ranks, means, bars, color=BLUE, marker="o", markersize=5, capsize=3, label="mean of a rank")
    axes.axhline(means.min(), color=GREY, linestyle="--", linewidth=0.8, label="lowest mean")
    squared = selection.beta_loss == 2
    unit = "root mean squared error (units of V)" if squared else "root of the mean of twice the divergence"
    label_axes(axes, "Error of held-out entries", RANK, unit)
    _mark(axes, selection)
    return axes


def plot_stability(selection: Selection, axes: Any = None) -> Any:
    """Draw how far the models of each rank agree, and return the axes.

    Dots are components: the mean cosine of each with its matches in the other models. Ranks of a single model
    have no stability.

    Parameters
    ----------
    axes : axes of Matplotlib; None for those of a new figure.

    Raises
    ------
    ValueError
        If Matplotlib is not installed.
    """
    axes = axes_or_new(axes)
    several = [row for row in selection.ranks if row["stability"] is not None]
    for row in several:
        components = np.asarray(row["component_stability"])
        label = "single components" if row is several[0] else None
        places = np.full(len(components), row["n_components"])
        axes.plot(places, components, ".", color=BLUE, alpha=FAINT, markersize=6, label=label)
    for name, (label, line) in MEASURES.items():
        rows = [row for row in several if row[name] is not None]
        if rows:
            draw_line(axes, _column(rows, "n_components"), _column(rows, name), line, label)
    if not several:
        text = "Each rank has one model.\nWith more starts or folds there is a stability."
        axes.text(0.5, 0.5, text, ha="center", transform=axes.transAxes, backgroundcolor="white")
    least = min(axes.dataLim.y0, 1 - SMALLEST) if several else 0.0
    axes.set_ylim(max(0, 1 - ROOM * (1 - least)), 1.02)
    label_axes(axes, "Agreement of the models of a rank", RANK, "agreement (1: all models agree)")
    _mark(axes, selection)
    return axes


def _mark(axes: Any, selection: Selection) -> None:
    """Mark the recommended rank, and let ticks be whole numbers."""
    rank, ranks = selection.n_components, [row["n_components"] for row in selection.ranks]
    axes.axvline(rank, color=BLACK, linestyle="-.", linewidth=1, zorder=0, label=f"recommended: rank {rank}")
    axes.set_xlim(min(ranks) - 0.5, max(ranks) + 0.5)
    axes.xaxis.set_major_locator(matplotlib_part("ticker").MaxNLocator(integer=True, min_n_ticks=1))
    axes.legend(fontsize="small", framealpha=0.8, edgecolor="none")


def _column(rows: Sequence[Mapping[str, Any]], name: str) -> Array:
    return np.array([row[name] for row in rows], np.float64)
