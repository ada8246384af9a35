"""The view of one component: a picture, bars of its top columns, or a spectrum, as V's columns ask for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from math import prod
from typing import Any, NamedTuple

import numpy as np

from dask_nmf.plots.drawing import short_name
from dask_nmf.report.drawing.charts import Words, bar_chart, picture, spectrum
from dask_nmf.report.facts.columns import column
from dask_nmf.report.facts.fit import TOP_COLUMNS, FitFacts
from dask_nmf.report.facts.words import number
from dask_nmf.report.pages.page import Figure, Table
from dask_nmf.wording import counted

ImageShape = tuple[int, int]  # height, width


class View(StrEnum):
    """The way in which components are shown."""

    IMAGE = "image"
    BARS = "bars"
    SPECTRUM = "spectrum"


class Look(NamedTuple):
    """The way in which components are to be shown; None: as the columns of V, or its images, ask for it."""

    image_shape: ImageShape | None = None
    view: View | None = None

    @classmethod
    def of(cls, image_shape: str | ImageShape | None, view: str | None) -> Look:
        """Return the look that options ask for; raise `ValueError` if one of them is none."""
        if view is not None and view not in set(View):
            names = ", ".join(repr(str(one)) for one in View)
            raise ValueError(f"view is {view!r}; give one of {names}")
        shape = parse_image_shape(image_shape) if isinstance(image_shape, str) else image_shape
        return cls(shape, None if view is None else View(view))

    def of_matrix(self, matrix: Mapping[str, Any]) -> Look:
        """Return the look for the V of a record, with the shape of its images unless another is asked for.

        A shape that the record notes, and that the columns of V do not have, does not count.

        Raises
        ------
        ValueError
            If images are asked for and their shape is not known, or they have not as many pixels as V has
            columns.
        """
        columns, noted = matrix["shape"][1], matrix.get("image_shape", [])
        if self.image_shape is None and len(noted) == 2 and are_pixels(columns, noted):
            return self._replace(image_shape=(noted[0], noted[1]))
        if self.image_shape is None and self.view == View.IMAGE:
            raise ValueError("images are asked for, and their shape is unknown; give --image-shape too")
        if self.image_shape is None:
            return self
        height, width = self.image_shape
        if not are_pixels(columns, self.image_shape):
            raise ValueError(
                f"images of {height} x {width} have {counted(height * width, 'pixel')}, and V has "
                f"{counted(columns, 'column')}; give the height and the width of the images in the rows of V"
            )
        return self


def are_pixels(columns: int, shape: Sequence[int]) -> bool:
    """Return whether images of this shape have as many values as V has columns."""
    return min(shape) > 0 and prod(shape) == columns


def parse_image_shape(text: str) -> ImageShape:
    """Return the height and the width that a text such as "112x92" says.

    Raises
    ------
    ValueError
        If it is something else.
    """
    parts = text.lower().replace("×", "x").split("x")
    if len(parts) != 2 or not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
        raise ValueError(f"the shape of images is {text!r}; give HEIGHTxWIDTH in pixels, such as 112x92")
    height, width = (int(part) for part in parts)
    return height, width


def choose_view(facts: FitFacts, look: Look) -> View:
    """Return how components are shown: as asked for, or else as the columns of V ask for it."""
    if look.view is not None:
        return look.view
    if look.image_shape is not None:
        return View.IMAGE
    return View.BARS if facts.names.positions() is None else View.SPECTRUM


def component_figure(facts: FitFacts, component: int, view: View, shape: ImageShape | None) -> Figure:
    """Return the figure of a component."""
    if view is View.IMAGE:
        assert shape is not None
        return _image(facts, component, shape)
    return (_bars if view is View.BARS else _spectrum)(facts, component)


def _image(facts: FitFacts, component: int, shape: ImageShape) -> Figure:
    row = facts.h[component]
    words = Words(
        f"{shape[0]} x {shape[1]} pixels of component {component}",
        f"Grey image; white is {number(float(row.max()))}, black is 0.",
    )
    return picture(row.reshape(shape), words, float(row.max()))


def _bars(facts: FitFacts, component: int) -> Figure:
    columns = facts.top_columns(component, TOP_COLUMNS)
    names = [facts.names.column(column) for column in columns]
    values = facts.h[component, columns].astype(np.float64)
    errors = None if facts.stderr is None else facts.stderr[component, columns].astype(np.float64)
    listed = ", ".join(short_name(name) for name in names[:6])
    words = Words(
        f"Largest entries of component {component}",
        f"Bars, the largest first: {listed}." if names else "No bars: the component is zero.",
    )
    figure = bar_chart(names, values, words, errors=errors)
    return Figure(words.title, words.description, figure.svg, top_table(facts, component, columns))


def top_table(facts: FitFacts, component: int, columns: Sequence[int]) -> Table:
    """Return the largest entries of a component as a table, with standard errors if they are known."""
    errors = facts.stderr
    head = ["column", "entry of H", *([] if errors is None else ["standard error"])]
    numbers = [facts.h] if errors is None else [facts.h, errors]
    texts = [column(each[component, list(columns)]) for each in numbers]
    rows = list(zip(map(facts.names.column, columns), *texts, strict=True))
    return Table(f"largest entries of component {component}", head, rows)


def _spectrum(facts: FitFacts, component: int) -> Figure:
    row = facts.h[component].astype(np.float64)
    x = facts.names.positions()
    x = np.arange(len(row)) if x is None else x
    errors = None if facts.stderr is None else facts.stderr[component].astype(np.float64)
    columns = facts.top_columns(component, TOP_COLUMNS)
    peak = facts.names.column(int(row.argmax()))
    words = Words(
        f"Component {component} along the columns of V",
        f"Line over {counted(len(row), 'column', ',')}; it is highest at {short_name(peak)}.",
    )
    figure = spectrum(x, row, words, errors)
    return Figure(words.title, words.description, figure.svg, top_table(facts, component, columns))
