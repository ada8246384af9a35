"""W as a heat map of its rows, or of a sample of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from dask_nmf.plots.drawing import SHADES, axes_or_new, matplotlib_part, plain_ticks, short_name
from dask_nmf.plots.factors.reading import Rows
from dask_nmf.types import Array

MOST_ROWS, MOST_NAMED = 2000, 40  # rows that are drawn, and that are named


def plot_weights(rows: Rows, total: int, axes: Any = None) -> Any:
    """Draw rows of W as a heat map, ordered by their largest component, and return the axes.

    Each component is divided by its largest weight in these rows, because its scale means nothing.

    Parameters
    ----------
    total : the number of rows of W.

    Raises
    ------
    ValueError
        If Matplotlib is not installed.
    """
    axes = axes_or_new(axes)
    largest = rows.values.max(axis=0, initial=0)
    shares = rows.values / np.where(largest > 0, largest, 1)
    order = by_leader(shares)
    image = axes.imshow(shares[order], cmap=SHADES, vmin=0, vmax=1, aspect="auto", interpolation_stage="data")
    axes.figure.colorbar(image, ax=axes).set_label("share of the largest weight of the component")
    axes.xaxis.set_major_locator(matplotlib_part("ticker").MaxNLocator(integer=True, min_n_ticks=1))
    sampled = f"{len(order)} of {total}" if len(order) < total else str(len(order))
    axes.set(title="Weights", xlabel="component", ylabel=f"{sampled} rows of V, by their largest component")
    if len(order) <= MOST_NAMED:
        names = rows.names or [str(number) for number in rows.numbers.tolist()]
        plain_ticks(axes.yaxis, range(len(order)), [short_name(names[place]) for place in order.tolist()])
    return axes


def by_leader(shares: Array) -> Array:
    """Return the order of rows by their largest component, and from the largest to the least within it."""
    leaders = shares.argmax(axis=1)
    return np.lexsort((-shares[np.arange(len(shares)), leaders], leaders))
