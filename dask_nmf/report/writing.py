"""Reports of runs and selections as HTML files."""

from __future__ import annotations

from pathlib import Path

from dask_nmf.plots.drawing import matplotlib_part
from dask_nmf.report.drawing.svg import report_style
from dask_nmf.report.facts.fit import facts_of
from dask_nmf.report.pages.fit_page import fit_page
from dask_nmf.report.pages.page import Page, render
from dask_nmf.report.pages.selection_page import selection_page
from dask_nmf.report.sections.views import Look
from dask_nmf.runs.commits import is_selection
from dask_nmf.runs.run import Run
from dask_nmf.selection.stored.loading import load_selection
from dask_nmf.storage.locations import Location, check_apart, check_replaceable, locate_file, located

MARK = b"<!DOCTYPE html>"


def write(
    run: str | Path | Location,
    path: str | Path,
    *,
    image_shape: str | tuple[int, int] | None = None,
    view: str | None = None,
    overwrite: bool = False,
) -> None:
    """Write the report of a run or a selection to one HTML file, which needs no other file and no network.

    H is read whole, W in parts; V is not read.

    Parameters
    ----------
    run : the path or URL of a run, or of a selection of ranks.
    path : of the file, which appears once it is whole.
    image_shape : the height and width of the images in the rows of V, as numbers or as a text ("112x92").
    view : how components are shown: "image", "bars" of their largest columns, or "spectrum", a line over the
        columns; by default as the names of the columns ask for it.
    overwrite : whether an older HTML file at the path is replaced.

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
    """
    matplotlib_part("figure")
    source: Location = located(run, verbatim=True)
    output = locate_file(path)
    check_apart(output, run=source)
    look = Look.of(image_shape, view)

    def check() -> None:
        check_replaceable(output, overwrite, _is_html, "dask-nmf report")

    check()
    with report_style():
        html = render(_page(source, look))
    with output.atomic_output(check) as new:
        Path(new).write_text(html, "utf-8")


def _page(source: Location, look: Look) -> Page:
    """Return the page of a run or a selection."""
    selection = load_selection(source) if is_selection(source) else None
    stored = Run.load_result(source)
    look.check(stored.record["matrix"]["shape"][1])
    if selection is None:
        return fit_page(facts_of(stored), source.name, look)
    bars = selection.components_stderr, selection.bootstrap_stability
    return selection_page(selection, facts_of(stored, *bars), source.name, look)


def default_output(run: str) -> str:
    """Return the path of the report of a run: beside the run, or in this folder if the run is at a URL."""
    path = Path(run.rstrip("/").rpartition("/")[2]) if "://" in run else Path(run)
    return str(path.with_suffix(".html"))


def _is_html(location: Location) -> bool:
    return location.read().startswith(MARK)
