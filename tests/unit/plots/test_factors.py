"""Figures of a fit: what is on their axes, against the numbers, and what names and forms make of it."""

import sys
from collections.abc import Iterator
from typing import Any

import dask.array as da
import numpy as np
import pandas as pd
import polars
import pyarrow as pa
import pytest
import sklearn.decomposition
import xarray as xr
from matplotlib import pyplot
from matplotlib.figure import Figure
from sklearn.exceptions import NotFittedError

from dask_nmf import NMF, NMFComponentsDisplay, Result, nmf
from dask_nmf.iteration.outcome import Outcome

W = np.array([[0.0, 2], [3, 1], [1, 0], [0, 8], [6, 0], [0, 0]])
H = np.array([[0.1, 0.5, 0.3, 0.0], [4, 0, 1, 2]])
NAMES = ["an $a$", "tab\there", "c", "a name that is far too long for a figure"]


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    pyplot.close("all")


def result_with(w: Any = W, h: Any = H, history: Any = (0.5, 0.25, 0.2), rows: int = len(W)) -> Result:
    outcome = Outcome.CONVERGED
    return Result(w, h, 0.2, 1.0, np.array(history), len(history), outcome, "it <converged>", shape=(rows, 4))


def bars(axes: Any) -> tuple[list[str], list[float]]:
    return [tick.get_text() for tick in axes.get_yticklabels()], [bar.get_width() for bar in axes.patches]


def test_the_error_is_drawn_after_each_pass() -> None:
    axes = Figure().subplots()
    assert result_with(history=(0.5, np.nan, 0.2)).plot.error(ax=axes) is axes
    np.testing.assert_array_equal(axes.lines[0].get_xydata(), [[1, 0.5], [2, np.nan], [3, 0.2]])
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("pass", "relative error")
    assert result_with(history=()).plot.error().figure is pyplot.gcf()


@pytest.mark.parametrize(
    "h",
    [
        pd.DataFrame(H, ["nmf0", "nmf1"], NAMES),
        polars.DataFrame(H, schema=NAMES, orient="row"),
        pa.table(list(map(pa.array, H.T)), names=NAMES),
        xr.DataArray(H, {"word": NAMES}, ("component", "word")),
    ],
    ids=["pandas", "polars", "pyarrow", "xarray"],
)
def test_components_are_bars_of_their_largest_columns_by_name(h: Any) -> None:
    first, second = result_with(h=h).plot.components(top=3)
    names, widths = bars(first)
    assert names == ["tab\\there", "c", "an $a$"]
    assert widths == [0.5, 0.3, 0.1]
    assert bars(second)[0] == ["an $a$", "a name that is fa…a figure", "c"]
    assert not any(label.get_parse_math() for label in first.get_yticklabels())
    first.figure.canvas.draw()


@pytest.mark.parametrize("h", [H, da.from_array(H), pd.DataFrame(H)], ids=["numpy", "dask", "counted"])
def test_columns_without_names_have_their_numbers(h: Any) -> None:
    (only,) = result_with(h=h).plot.components(numbers=[1], top=2)
    assert bars(only) == (["0", "3"], [4.0, 2.0])
    assert only.get_title() == "component 1"


def test_components_over_pixels_are_images_and_over_numbers_are_lines() -> None:
    pixels = xr.DataArray(H.reshape(2, 2, 2), dims=("component", "y", "x"))
    for drawn in (
        result_with(h=pixels).plot.components(),
        result_with().plot.components(image_shape=(2, 2)),
    ):
        images = [axes.get_images()[0] for axes in drawn]
        np.testing.assert_array_equal([image.get_array() for image in images], pixels)
        assert [image.get_clim() for image in images] == [(0, 0.5), (0, 4)]
    spectra = xr.DataArray(H, {"nm": [400.0, 410, 430, 460]}, ("component", "nm"))
    first, _ = result_with(h=spectra).plot.components()
    np.testing.assert_array_equal(first.lines[0].get_xydata(), np.c_[[400, 410, 430, 460], H[0]])


def test_components_go_to_axes_that_are_given() -> None:
    figure = Figure()
    pair = figure.subplots(1, 2)
    assert list(result_with().plot.components(ax=pair)) == list(pair)
    whole = Figure().subplots()
    drawn = result_with().plot.components(ax=whole)
    assert {axes.figure for axes in drawn} == {whole.figure}
    assert not whole.axison
    assert result_with().plot.components(ax=whole, numbers=[1])[0] is whole
    with pytest.raises(ValueError, match="3 axes for 2 components"):
        result_with().plot.components(ax=figure.subplots(1, 3))
    with pytest.raises(ValueError, match="in no grid of subplots"):
        result_with().plot.components(ax=figure.add_axes((0, 0, 1, 1)))
    with pytest.raises(ValueError, match="no component 2; give numbers from 0 to 1"):
        result_with().plot.components(numbers=[2])
    with pytest.raises(ValueError, match="image_shape is 3 x 2, and H has 4 columns"):
        result_with().plot.components(image_shape=(3, 2))
    many = result_with(h=np.ones((20, 4))).plot.components()
    assert len(many) == 16


ORDERED = np.array([[6, 0], [3, 1], [1, 0], [0, 0], [0, 8], [0, 2]]) / [6, 8]
ROW_NAMES = ["e", "b", "c", "f", "d", "a"]


def test_weights_are_ordered_by_their_largest_component() -> None:
    index = pd.Index(list("abcdef"))
    kinds = [
        (W, "410", False),
        (da.from_array(W, chunks=(2, 2)), "410", False),
        (pd.DataFrame(W, index), "e", True),
        (xr.DataArray(W, {"row": index}, ("row", "component")), "e", True),
    ]
    for w, _, named in kinds:
        axes = result_with(w).plot.weights(ax=Figure().subplots())
        np.testing.assert_allclose(axes.get_images()[0].get_array(), ORDERED)
        labels = [tick.get_text() for tick in axes.get_yticklabels()]
        assert labels == (ROW_NAMES if named else ["4", "1", "2", "5", "3", "0"])
    pixels = xr.DataArray(da.from_array(W.reshape(3, 2, 2)), dims=("y", "x", "component"))
    axes = result_with(pixels).plot.weights()
    np.testing.assert_allclose(axes.get_images()[0].get_array(), ORDERED)


def test_a_long_w_is_sampled() -> None:
    long = da.random.default_rng(0).random((50_000, 3), chunks=(5000, 3))
    axes = result_with(long, rows=50_000).plot.weights()
    assert axes.get_images()[0].get_array().shape == (2000, 3)
    assert axes.get_ylabel().startswith("2000 of 50000 rows")


def test_a_fit_has_its_figures() -> None:
    V = xr.DataArray(np.random.default_rng(0).random((12, 3, 4)), dims=("image", "y", "x"))
    result = nmf(V, 2, max_iter=3, tol=0, random_state=0)
    images = [axes.get_images()[0].get_array() for axes in result.plot.components()]
    np.testing.assert_array_equal(images, result.H)
    np.testing.assert_array_equal(result.plot.error().lines[0].get_ydata(), result.error_history)
    assert result.plot.weights().get_images()[0].get_array().shape == (12, 2)


def test_the_display_of_an_estimator_follows_scikit_learn() -> None:
    X = pd.DataFrame(np.random.default_rng(0).random((20, 3)), columns=["a", "b", "c"])
    ours = NMF(2, max_iter=3, tol=0, random_state=0).fit(X)
    theirs = sklearn.decomposition.NMF(2, max_iter=500, random_state=0).fit(X)
    for model in (ours, theirs):
        axes = Figure().subplots()
        display = NMFComponentsDisplay.from_estimator(model, ax=axes, top=2)
        assert display.figure_ is axes.figure
        order = np.argsort(-model.components_[0])[:2]
        assert bars(display.ax_[0]) == (["abc"[o] for o in order], model.components_[0][order].tolist())
        assert display.plot(numbers=[1]) is display
        assert [one.get_title() for one in display.ax_] == ["component 1"]
    with pytest.raises(NotFittedError):
        NMFComponentsDisplay.from_estimator(NMF(2))


def test_a_map_of_residuals_shades_all_blocks_though_one_fits_far_worse() -> None:
    rng = np.random.default_rng(0)
    V = rng.random((64, 1)) @ rng.random((1, 64)) + 0.1 * rng.random((64, 64))
    V[:, 7], V[5, 7] = 0, 1e-3  # almost nothing, so that W H is much larger
    result = nmf(V, 1, max_iter=2, random_state=0)
    residuals = result.residuals
    assert residuals is not None
    axes = result.plot.residuals(ax=Figure().subplots())
    (image,) = axes.images
    values, largest = residuals.relative(True), image.get_clim()[1]
    np.testing.assert_array_equal(image.get_array(), values)
    np.testing.assert_allclose(
        residuals.losses.sum(), np.square(V - result.W.compute() @ result.H.compute()).sum(), rtol=1e-4
    )
    assert np.nanmax(values) > 100 * largest
    assert np.nanmean(values[:, :7]) > largest / 20


def test_figures_of_a_fit_need_matplotlib_only_when_they_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    plot = result_with().plot
    for draw in (plot.error, plot.components, plot.weights):
        with pytest.raises(ValueError, match=r"pip install 'dask_nmf\[figures\]'"):
            draw()
