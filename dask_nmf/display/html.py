"""HTML that notebooks show: a table of a few values, and a small curve of the errors. It needs no library."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from itertools import groupby
from math import isfinite

WIDTH, HEIGHT, MARGIN = 240, 60, 4  # of the curve, in pixels
MOST_POINTS = 240  # of the curve


def html_table(rows: Iterable[tuple[str, object]]) -> str:
    """Return a table of names and values, both as text."""
    lines = (f"<tr><th>{escape(name)}</th><td>{escape(str(value))}</td></tr>" for name, value in rows)
    return f"<table>{''.join(lines)}</table>"


def html_curve(errors: Sequence[float | None], name: str = "relative error") -> str:
    """Return a small curve of the errors after each pass as SVG; empty for fewer than two known errors.

    Errors that are not known leave gaps. The curve has the colour of the text of the page, and a title for
    who cannot see it.
    """
    step = max(1, -(-len(errors) // MOST_POINTS))
    places = sorted({*range(0, len(errors), step), len(errors) - 1} - {-1})
    values = [float("nan") if (error := errors[place]) is None else float(error) for place in places]
    known = [value for value in values if isfinite(value)]
    if len(known) < 2:
        return ""
    low, high = min(known), max(known)
    wide, tall = (WIDTH - 2 * MARGIN) / places[-1], (HEIGHT - 2 * MARGIN) / ((high - low) or 1.0)
    points = [
        (isfinite(value), f"{MARGIN + place * wide:.1f},{MARGIN + (high - value) * tall:.1f}")
        for place, value in zip(places, values, strict=True)
    ]
    runs = [
        " ".join(point for _, point in run) for drawn, run in groupby(points, lambda point: point[0]) if drawn
    ]
    lines = "".join(f'<polyline points="{run}"/>' for run in runs)
    title = f"{name} after each of {len(errors)} passes: from {known[0]:.6g} to {known[-1]:.6g}"
    return (
        f'<svg role="img" width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}" fill="none" '
        f'stroke="currentColor" stroke-width="1.5"><title>{escape(title)}</title>{lines}</svg>'
    )
