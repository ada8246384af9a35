"""The consensus of the models of the recommended rank on a sample of the rows of V, as a heat map."""

from __future__ import annotations

from math import nan
from typing import Any

import numpy as np

from dask_nmf.plots.drawing import SHADES, axes_or_new
from dask_nmf.plots.subjects import Selection
from dask_nmf.quality.consensus import MOST_ROWS, Consensus, agreement
from dask_nmf.quality.recommend import Trial, compared_trials


def consensus_of(selection: Selection) -> Consensus:
    """Return the agreement of the models of the recommended rank on all rows of V, or on a sample of 2000.

    Starts that failed are left out, as they are in the table of ranks.
    """
    rank = selection.n_components
    kept = compared_trials(_trial(row) for row in selection.models)[rank]
    models = zip(map(_trial, selection.models), selection.clusters, strict=True)
    return agreement(
        [labels for trial, labels in models if trial.n_components == rank and trial[1:3] in kept]
    )


def _trial(row: dict[str, Any]) -> Trial:
    errors = (nan if row[name] is None else row[name] for name in ("held_out_error", "training_error"))
    return Trial(row["n_components"], row["start"], row["fold"], *errors)


def plot_consensus(selection: Selection, axes: Any = None) -> Any:
    """Draw in how many models of the recommended rank two rows of V belong together, and return the axes.

    Rows belong together if they have the same largest component. They are ordered by a tree of average
    linkage, so that blocks on the diagonal are clusters. A V of more than 2000 rows is sampled.

    Parameters
    ----------
    axes : axes of Matplotlib; None for those of a new figure. A colour bar takes a part of their space.

    Raises
    ------
    ValueError
        If Matplotlib is not installed.
    """
    axes = axes_or_new(axes)
    found = consensus_of(selection)
    ordered = found.matrix[np.ix_(found.order, found.order)]
    image = axes.imshow(ordered, cmap=SHADES, vmin=0, vmax=1, interpolation_stage="data")
    bar = axes.figure.colorbar(image, ax=axes, shrink=0.85, format="{x:.0%}")
    bar.set_label("models that put two rows together")
    known = "" if np.isnan(found.cophenetic) else f" (cophenetic {found.cophenetic:.3f})"
    axes.set_title(f"Consensus at rank {selection.n_components}{known}")
    count = f"{len(ordered)} {'sampled ' if len(ordered) == MOST_ROWS else ''}rows of V"
    axes.set(xlabel=f"{count}, ordered by cluster", ylabel="the same rows")
    return axes
