"""Figures as files: SVG with a title and a description for who cannot see it, and PNG."""

from __future__ import annotations

from html import escape
from io import StringIO
from pathlib import Path
from typing import Any

from dask_nmf.plots.consensus import plot_consensus
from dask_nmf.plots.drawing import matplotlib_part
from dask_nmf.plots.ranks import plot_errors, plot_stability
from dask_nmf.plots.subjects import Selection

RANKS, CONSENSUS = "ranks", "consensus"  # names of files
SIZES = {RANKS: (10.0, 4.2), CONSENSUS: (6.4, 5.4)}  # inches
MARGIN = 0.08  # inches
DPI = 160
SETTINGS = {"svg.fonttype": "none", "svg.hashsalt": "dask_nmf", "font.size": 10.0, "axes.titlesize": 11.0}


def check_folder(folder: str | Path) -> None:
    """Check, before any work, that figures can be drawn and that a path is or may become their folder.

    Raises
    ------
    ValueError
        If Matplotlib is not installed, or the path is a URL.
    NotADirectoryError
        If something else is there.
    """
    if "://" in str(folder):
        raise ValueError(
            f"figures are written to a folder of this machine, and {folder} is a URL; give a path"
        )
    path = Path(folder).absolute()
    first = next(place for place in (path, *path.parents) if place.exists())
    if not first.is_dir():
        raise NotADirectoryError(f"{first} is not a folder; give another path for the figures")
    matplotlib_part("figure")


def save_figures(selection: Selection, folder: str | Path) -> list[Path]:
    """Write the figures of a selection to a folder, which is made if there is none, and return their paths.

    ``ranks`` has the error and the stability against the rank, ``consensus`` the heat map of the recommended
    one, each as SVG and as PNG. Files of these names are replaced. The same selection gives the same bytes.

    Raises
    ------
    ValueError
        If Matplotlib is not installed.
    NotADirectoryError
        If the path is not a folder.
    """
    check_folder(folder)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    with matplotlib_part("style").context(["default", SETTINGS]):
        for name, description in descriptions(selection).items():
            figure = matplotlib_part("figure").Figure(figsize=SIZES[name], layout="constrained")
            if name == RANKS:
                left, right = figure.subplots(1, 2)
                plot_errors(selection, left)
                plot_stability(selection, right)
            else:
                plot_consensus(selection, figure.subplots())
            figure.get_layout_engine().set(w_pad=MARGIN, h_pad=MARGIN)
            written += _save(figure, folder / name, description)
    return written


def descriptions(selection: Selection) -> dict[str, str]:
    """Return the text that stands for each figure, by its name."""
    ranks = [row["n_components"] for row in selection.ranks]
    rank = selection.n_components
    return {
        RANKS: f"Held-out error and stability of ranks {ranks[0]} to {ranks[-1]}. "
        f"Rank {rank} is recommended: {selection.reason}.",
        CONSENSUS: f"Heat map of the consensus of the models of rank {rank} on {selection.clusters.shape[1]} "
        "rows of V, ordered so that clusters are blocks on the diagonal.",
    }


def _save(figure: Any, path: Path, description: str) -> list[Path]:
    """Write a figure as SVG and PNG, and return the paths."""
    title = description.partition(".")[0]
    text = StringIO()
    figure.savefig(text, format="svg", dpi=DPI, metadata={"Title": title, "Date": None})
    drawing = text.getvalue().replace("</title>", f"</title>\n <desc>{escape(description)}</desc>", 1)
    svg, png = path.with_suffix(".svg"), path.with_suffix(".png")
    svg.write_text(drawing.replace("<svg ", '<svg role="img" ', 1), "utf-8")
    figure.savefig(png, dpi=DPI, metadata={"Title": title, "Description": description, "Software": None})
    return [svg, png]
