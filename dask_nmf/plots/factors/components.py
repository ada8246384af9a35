"""Components, one on each axes: images, spectra, or bars of their largest columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dask_nmf.plots.drawing import BLUE, axes_grid, matplotlib_part, plain_ticks, short_name
from dask_nmf.plots.factors.reading import Components
from dask_nmf.types import Array
from dask_nmf.wording import counted

MOST, TOP = 16, 10  # components that are drawn unless some are named, and columns of one that are bars


def plot_components(
    components: Components,
    axes: Any = None,
    *,
    numbers: Sequence[int] | None = None,
    top: int = TOP,
    image_shape: tuple[int, int] | None = None,
) -> Array:
    """Draw components, and return an array of their axes.

    Columns that are pixels make images, from 0 (black) to the largest value; columns whose labels are numbers
    in order make a line; of all others the largest are bars, with their names or numbers.

    Parameters
    ----------
    axes : axes of Matplotlib, whose space is divided, or one for each component; None for a new figure.
    numbers : of the components, from 0; None for the first 16.
    top : the number of bars.
    image_shape : height and width of an image; None for that of H, if it has one.

    Raises
    ------
    ValueError
        If Matplotlib is not installed, there is no such component, or images or axes do not fit.
    """
    known, count = components.values.shape
    chosen = list(range(min(known, MOST)) if numbers is None else numbers)
    _check(chosen, known, top)
    shape = components.image_shape if image_shape is None else image_shape
    if shape is not None and shape[0] * shape[1] != count:
        raise ValueError(
            f"image_shape is {shape[0]} x {shape[1]}, and H has {counted(count, 'column')}; give their shape"
        )
    drawn = axes_grid(axes, len(chosen), (1.8, 1.9) if shape is not None else (3.2, 0.6 + 0.17 * top))
    for one, number in zip(drawn, chosen, strict=True):
        one.set_title(f"component {number}", fontsize="small")
        values = components.values[number]
        if shape is not None:
            _draw_image(one, values.reshape(shape))
        elif components.places is not None:
            one.plot(components.places, values, color=BLUE, linewidth=1)
            one.set_ylim(bottom=0)
        else:
            _draw_bars(one, values, components.names, top)
    return drawn


def _check(numbers: Sequence[int], known: int, top: int) -> None:
    if not numbers:
        raise ValueError("components is empty; name at least one")
    for number in numbers:
        if not 0 <= number < known:
            raise ValueError(f"there is no component {number}; give numbers from 0 to {known - 1}")
    if top < 1:
        raise ValueError(f"top is {top}; give at least 1")


def _draw_image(axes: Any, pixels: Array) -> None:
    axes.imshow(pixels, cmap="gray", vmin=0, vmax=pixels.max() or 1.0)
    axes.set_axis_off()


def _draw_bars(axes: Any, values: Array, names: Sequence[str] | None, top: int) -> None:
    largest = np.argsort(-values, kind="stable")[:top]
    axes.barh(np.arange(len(largest)), values[largest], height=0.72, color=BLUE)
    shown = [str(number) if names is None else short_name(names[number]) for number in largest.tolist()]
    plain_ticks(axes.yaxis, range(len(largest)), shown)
    axes.invert_yaxis()
    axes.xaxis.set_major_locator(matplotlib_part("ticker").MaxNLocator(4))
    axes.spines[["top", "right"]].set_visible(False)
    if names is None:
        axes.set_ylabel("column", fontsize="small")
