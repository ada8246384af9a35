"""HTML that notebooks show: a table of a few values, and a small curve of the errors. It needs no library."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from itertools import groupby
from math import isfinite, nan

WIDTH, HEIGHT, MARGIN = 240, 60, 4  # of the curve, in pixels
MOST_POINTS = 240  # of the curve
AFTER_PASSES = "relative error after each pass"  # what the curve of a fit has
LEFT = 'style="text-align: left"'  # Jupyter puts cells to the right, as numbers are


def html_table(rows: Iterable[tuple[str, object]]) -> str:
    """Return a table of names and values, both as text."""
    lines = (
        f"<tr><th {LEFT}>{escape(name)}</th><td {LEFT}>{escape(str(value))}</td></tr>" for name, value in rows
    )
    return f"<table>{''.join(lines)}</table>"


def html_curve(errors: Sequence[float | None], name: str, places: Sequence[float] | None = None) -> str:
    """Return a small curve of errors as SVG; empty for fewer than two known errors.

    Errors that are not known leave gaps. The curve has the colour of the text of the page. A line above says
    what it shows, and so does its title, for readers who cannot see it.

    Parameters
    ----------
    name : the kind of the errors, for the line and the title.
    places : of the errors along the curve, in order; None: they are evenly spaced.
    """
    step = max(1, -(-len(errors) // MOST_POINTS))
    drawn = sorted({*range(0, len(errors), step), len(errors) - 1} - {-1})
    x = [float(number if places is None else places[number]) for number in drawn]
    y = [nan if (error := errors[number]) is None else float(error) for number in drawn]
    known = [value for value in y if isfinite(value)]
    if len(known) < 2:
        return ""
    wide = (WIDTH - 2 * MARGIN) / (x[-1] - x[0])
    tall = (HEIGHT - 2 * MARGIN) / ((max(known) - min(known)) or 1.0)
    points = [
        f"{MARGIN + (across - x[0]) * wide:.1f},{MARGIN + (max(known) - value) * tall:.1f}"
        if isfinite(value)
        else ""
        for across, value in zip(x, y, strict=True)
    ]
    runs = [" ".join(run) for is_known, run in groupby(points, bool) if is_known]
    lines = "".join(f'<polyline points="{run}"/>' for run in runs)
    text = f"{escape(name)}: from {known[0]:.6g} to {known[-1]:.6g}"
    return (
        f'<div aria-hidden="true">{text}</div>'
        f'<svg role="img" width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}" fill="none" '
        f'stroke="currentColor" stroke-width="1.5"><title>{text}</title>{lines}</svg>'
    )
