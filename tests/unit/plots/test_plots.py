"""Figures of a selection: what is on their axes, and the files that they are written to."""

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib import colors, pyplot
from matplotlib.figure import Figure

from dask_nmf import RankSelection, select_rank
from dask_nmf.plots import plot_consensus, plot_errors, plot_stability, save_figures
from dask_nmf.plots.consensus import consensus_of
from dask_nmf.quality import agreement

CLUSTERS = np.array([[0, 1, 0, 1, 2], [1, 0, 1, 0, 0], [0, 0, 1, 1, 1], [1, 1, 0, 0, 0], [0, 0, 1, 1, 0]])
SVG = "{http://www.w3.org/2000/svg}"


def row(rank: int, error: float, stability: float | None, components: list[float] | None) -> dict[str, Any]:
    return {
        "n_components": rank,
        "held_out_error": error,
        "standard_error": 0.01,
        "stability": stability,
        "component_stability": components,
        "cophenetic": stability,
        "dispersion": stability,
    }


@pytest.fixture
def selection() -> RankSelection:
    models = [(2, 0.5), (2, 0.7), (3, 0.4), (3, 0.6), (3, 0.5)]
    return RankSelection(
        3,
        "it is <the> lowest",
        [row(2, 0.6, 0.9, [0.8, 1.0]), row(3, 0.5, 0.95, [0.9, 1.0, 0.95])],
        [
            {"n_components": rank, "start": start, "fold": 0, "held_out_error": error, "training_error": 0.1}
            for start, (rank, error) in enumerate(models)
        ],
        CLUSTERS,
        None,
        np.full(3, 0.95),
        None,
    )


@pytest.fixture
def axes() -> Iterator[Any]:
    yield Figure().subplots()
    pyplot.close("all")


def line(axes: Any, label: str) -> Any:
    """Return the line of a label."""
    return next(one for one in axes.get_lines() if one.get_label() == label)


def test_errors_are_drawn_with_their_spread_and_the_recommended_rank(
    selection: RankSelection, axes: Any
) -> None:
    assert plot_errors(selection, axes) is axes
    mean = axes.containers[0]
    np.testing.assert_array_equal(mean.lines[0].get_xydata(), [[2, 0.6], [3, 0.5]])
    assert mean.has_yerr
    np.testing.assert_array_equal(line(axes, "single models").get_ydata(), [0.5, 0.7, 0.4, 0.6, 0.5])
    assert list(line(axes, "recommended: rank 3").get_xdata()) == [3, 3]
    assert list(line(axes, "lowest mean").get_ydata()) == [0.5, 0.5]
    assert axes.get_xlabel() == "rank (number of components)"
    assert axes.get_ylabel() == "root mean squared error (units of V)"
    assert axes.get_title()


def test_the_errors_of_a_divergence_are_named_before_there_is_a_fit_too() -> None:
    V = np.random.default_rng(0).random((30, 8))
    options: dict[str, Any] = {"n_init": 1, "holdout": 0.1, "time_limit": 0}
    for beta_loss, label in (
        ("kullback-leibler", "root of the mean of twice the divergence"),
        ("frobenius", "root mean squared error (units of V)"),
    ):
        stopped = select_rank(V, "1:2", beta_loss=beta_loss, **options)
        assert stopped.result is None
        assert plot_errors(stopped, Figure().subplots()).get_ylabel() == label


def test_stability_is_drawn_with_that_of_each_component(selection: RankSelection, axes: Any) -> None:
    assert plot_stability(selection, axes) is axes
    means = line(axes, "mean cosine of matched components")
    np.testing.assert_array_equal(means.get_xydata(), [[2, 0.9], [3, 0.95]])
    dots = np.concatenate([one.get_xydata() for one in axes.get_lines() if one.get_marker() == "."])
    np.testing.assert_array_equal(dots, [[2, 0.8], [2, 1.0], [3, 0.9], [3, 1.0], [3, 0.95]])
    lines = [one for one in axes.get_lines() if one.get_marker() in "os^"]
    assert len({(one.get_marker(), one.get_linestyle()) for one in lines}) == 3  # not by colour alone
    alone = replace(selection, ranks=[row(3, 0.5, None, None)])
    text = plot_stability(alone, Figure().subplots()).texts[0].get_text()
    assert "With more starts or folds there is a stability" in text


def test_the_consensus_is_that_of_the_recommended_rank(selection: RankSelection, axes: Any) -> None:
    assert plot_consensus(selection, axes) is axes
    found = agreement(list(CLUSTERS[2:]))
    (image,) = axes.get_images()
    np.testing.assert_array_equal(image.get_array(), found.matrix[np.ix_(found.order, found.order)])
    assert image.get_clim() == (0, 1)
    assert axes.get_xlabel() == "5 rows of V, ordered by cluster"
    shades = image.get_cmap()(np.linspace(0, 1, 20))[:, :3]
    rows = [{**row, "training_error": 0.1 + 0.1 * (row["start"] == 4)} for row in selection.models]
    (one, other) = consensus_of(replace(selection, models=rows)).matrix, agreement(list(CLUSTERS[2:4])).matrix
    np.testing.assert_array_equal(one, other)  # without the start that failed
    luminance = shades @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(luminance) < 0).all()  # it can be read in print
    assert colors.to_hex(shades[0]) > "#f0"


def test_new_axes_are_made_where_none_are_given(selection: RankSelection, axes: Any) -> None:
    drawn = plot_errors(selection)
    assert drawn.figure in [pyplot.figure(number) for number in pyplot.get_fignums()]


def test_files_are_the_same_each_time_and_say_what_they_show(
    selection: RankSelection, tmp_path: Path
) -> None:
    written = save_figures(selection, tmp_path / "new" / "folder")
    assert [path.name for path in written] == ["ranks.svg", "ranks.png", "consensus.svg", "consensus.png"]
    first = [path.read_bytes() for path in written]
    assert all(content.startswith(b"\x89PNG") for content in first[1::2])
    for content in first[::2]:
        root = ElementTree.fromstring(content)
        assert root.get("role") == "img"
        assert root.findtext(f"{SVG}title")
        assert root.findtext(f"{SVG}desc")
        assert root.findall(f".//{SVG}text")  # words are words, not outlines
    assert "Rank 3 is recommended: it is <the> lowest" in str(
        ElementTree.fromstring(first[0]).findtext(f"{SVG}desc")
    )
    save_figures(selection, tmp_path / "new" / "folder")
    assert [path.read_bytes() for path in written] == first


def test_figures_without_matplotlib_are_refused_with_the_cure(
    selection: RankSelection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("figure", "pyplot"):
        monkeypatch.setitem(sys.modules, f"matplotlib.{name}", None)
    with pytest.raises(ValueError, match=r"not installed: pip install 'dask_nmf\[figures\]'"):
        save_figures(selection, tmp_path / "figures")
    with pytest.raises(ValueError, match=r"pip install 'dask_nmf\[figures\]'"):
        plot_errors(selection)
    assert not list(tmp_path.iterdir())
