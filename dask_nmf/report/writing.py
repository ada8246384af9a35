"""Reports of runs and selections as HTML files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from dask_nmf.plots.drawing import matplotlib_part
from dask_nmf.report.drawing.svg import report_style
from dask_nmf.report.facts.fit import facts_of
from dask_nmf.report.pages.fit_page import fit_page
from dask_nmf.report.pages.page import Page, render
from dask_nmf.report.pages.selection_page import selection_page
from dask_nmf.report.sections.models.other_run import comparison_section
from dask_nmf.report.sections.views import Look
from dask_nmf.results.comparison import compare
from dask_nmf.results.residuals import residuals as residuals_of
from dask_nmf.runs.commits import fit_of, is_selection
from dask_nmf.runs.run import Run
from dask_nmf.selection.stored.loading import load_selection
from dask_nmf.storage.locations import (
    Location,
    check_apart,
    check_replaceable,
    is_location,
    locate_file,
    located,
)

MARK = b'<meta name="generator" content="dask_nmf report">'
HEAD = 1000  # bytes of a report in which its mark is


def write(
    run: str | Path | Location,
    path: str | Path,
    *,
    image_shape: str | tuple[int, int] | None = None,
    view: str | None = None,
    residuals: Any = None,
    against: str | Path | Location | None = None,
    overwrite: bool = False,
) -> None:
    """Write the report of a run or a selection to one HTML file, which needs no other file and no network.

    H is read whole, W in parts. V is read only for ``residuals``.

    Parameters
    ----------
    run : the path or URL of a run, or of a selection of ranks.
    path : of the file, which appears once it is whole.
    image_shape : the height and width of the images in the rows of V, as numbers or as a text ("112x92").
        Without it, that of the grey images of which `convert` made V.
    view : how components are shown: "image", "bars" of their largest columns, or "spectrum", a line over the
        columns; by default as the names of the columns ask for it.
    residuals : the V that was fitted, whatever `nmf` takes: it is read once, and the report shows where W H
        differs from it.
    against : another run of a matrix with the same columns, to be compared with this one.
    overwrite : whether an older report at the path is replaced.

    Raises
    ------
    FileNotFoundError
        If there is nothing at ``run``.
    InvalidRunError
        If there is something else, or it is damaged.
    FileExistsError
        If there is a file at the path already, and it may not be replaced.
    ValueError
        If there is no result yet, an option does not fit the run, or Matplotlib is not installed.

    Examples
    --------
    >>> from dask_nmf import nmf
    >>> from dask_nmf.report import write
    >>> result = nmf([[1.0, 3.0], [2.0, 6.0]], 1, store="shown.zarr")
    >>> write("shown.zarr", "shown.html")
    """
    matplotlib_part("figure")
    source: Location = located(run, verbatim=True)
    output = locate_file(path)
    V = located(residuals)
    check_apart(output, run=source, V=V if is_location(V) else None)
    look = Look.of(image_shape, view)

    def check() -> None:
        check_replaceable(output, overwrite, _is_report, "dask-nmf report")

    check()
    with report_style():
        html = render(_with_comparison(_page(source, V, look), source, located(against, verbatim=True)))
    with output.atomic_output(check) as new:
        Path(new).write_text(html, "utf-8")


def _page(source: Location, V: Any, look: Look) -> Page:
    """Return the page of a run or a selection."""
    selection = load_selection(source) if is_selection(source) else None
    stored = Run.load_result(source)
    look = look.of_matrix(stored.record["matrix"])
    found = stored.residuals if V is None else residuals_of(stored, V)
    bars = (None, None) if selection is None else (selection.components_stderr, selection.bootstrap_stability)
    facts = replace(facts_of(stored, *bars), residuals=found, environments=_environments(source))
    if selection is None:
        return fit_page(facts, source.name, look)
    return selection_page(selection, facts, source.name, look)


def _environments(source: Location) -> list[dict[str, Any]]:
    """Return the environments of the fit of a run; none if another fit has begun in its place."""
    record = Run.load(fit_of(source)).record
    return list(record.get("environments", [])) if record["finished"] else []


def _with_comparison(page: Page, source: Location, other: Location | None) -> Page:
    """Return a page with the section that compares its run with another one, if there is one."""
    if other is None:
        return page
    compared = compare(source, other)
    section = comparison_section(compared, *(Run.load_result(place).read("H") for place in (source, other)))
    return replace(page, sections=[page.sections[0], section, *page.sections[1:]])


def default_output(run: str) -> str:
    """Return the path of the report of a run: beside the run, or in this folder if the run is at a URL."""
    path = Path(run.rstrip("/").rpartition("/")[2]) if "://" in run else Path(run)
    return str(path.with_suffix(".html"))


def _is_report(location: Location) -> bool:
    return MARK in location.read()[:HEAD]
