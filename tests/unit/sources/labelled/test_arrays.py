"""Arrays of xarray give arrays with coordinates, and components of images are images."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pandas as pd
import pytest
import xarray
from hypothesis import given
from hypothesis import strategies as st
from support.matrices import low_rank

from dask_nmf import NMF, nmf, predict, transform
from dask_nmf.quality import feature_score, quality, rss
from dask_nmf.sources.decoding.stacking import stack_dims
from dask_nmf.sources.labelled.arrays import factor_form
from dask_nmf.sources.registry import open_matrix

DAYS, ROWS, COLUMNS, K = 20, 3, 4, 2
ASKED: dict[str, Any] = {"max_iter": 4, "tol": 0}
V = low_rank(DAYS, ROWS * COLUMNS, K)
MOVIE = xarray.DataArray(
    V.reshape(DAYS, ROWS, COLUMNS),
    {
        "time": pd.date_range("2020", periods=DAYS),
        "season": ("time", np.arange(DAYS) % 4),
        "y": [50.0, 51.0, 52.0],
        "x": list("abcd"),
        "height": (("y", "x"), np.arange(12.0).reshape(ROWS, COLUMNS)),
        "station": 7,
    },
    ("time", "y", "x"),
    name="rain",
    attrs={"units": "mm"},
)


def stored(array: xarray.DataArray, folder: Path) -> xarray.DataArray:
    """Return an array that xarray reads lazily from a file, without Dask."""
    array.drop_encoding().to_dataset(name="rain").to_zarr(folder, zarr_format=2, consolidated=False)
    return xarray.open_zarr(folder, chunks=None, consolidated=False)["rain"]


KINDS: dict[str, Callable[[xarray.DataArray, Path], xarray.DataArray]] = {
    "memory": lambda array, path: array,
    "dask": lambda array, path: array.chunk(time=7, x=3),
    "stored": stored,
}


@pytest.mark.parametrize("kind", KINDS)
def test_components_are_images_and_w_has_the_times(kind: str, tmp_path: Path) -> None:
    array = KINDS[kind](MOVIE, tmp_path / "V.zarr")
    W, H = nmf(array, K, **ASKED)
    plain = nmf(V, K, **ASKED)
    assert W.dims == ("time", "component")
    assert H.dims == ("component", "y", "x")
    assert set(W.coords) == {"time", "season", "station", "component"}
    assert set(H.coords) == {"y", "x", "height", "station", "component"}
    for factor in (W, H):
        for name in set(factor.coords) - {"component"}:
            xarray.testing.assert_equal(
                factor[name].reset_coords(drop=True), MOVIE[name].reset_coords(drop=True)
            )
    np.testing.assert_allclose(W, plain.W, rtol=1e-6)
    np.testing.assert_allclose(H.stack(pixel=("y", "x")), plain.H, rtol=1e-6)
    assert isinstance(W.data, np.ndarray if kind == "memory" else da.Array)
    np.testing.assert_allclose(predict(W, H, [0, 1], [2, 3]), np.asarray(plain.W @ plain.H)[[0, 1], [2, 3]])
    np.testing.assert_allclose(transform(array, H), transform(V, np.asarray(plain.H)), rtol=1e-6)
    product = (W.values @ H.values.reshape(K, -1)).reshape(MOVIE.shape)
    np.testing.assert_allclose(xarray.dot(W, H, dim="component"), product)


@given(st.permutations(["time", "y", "x", "band"]), st.integers(1, 3), st.data())
def test_dimensions_are_stacked_as_xarray_does(order: list[str], rows: int, data: st.DataObject) -> None:
    shape = {"time": 2, "y": 3, "x": 1, "band": 4}
    array = xarray.DataArray(np.arange(24.0).reshape(2, 3, 1, 4), dims=list(shape)).transpose(*order)
    samples = data.draw(st.permutations(order))[:rows]
    chunks = {dim: data.draw(st.integers(1, size), dim) for dim, size in shape.items()}
    features = [dim for dim in order if dim not in samples]
    expected = array.stack(sample=samples, feature=features).transpose("sample", "feature")
    for one in (array, array.chunk(chunks)):
        matrix, form = stack_dims(one, samples), factor_form(one, samples)
        np.testing.assert_array_equal(matrix, expected)
        xarray.testing.assert_equal(
            form.unstacked(matrix.data, form.features), array.transpose(*samples, *features)
        )


@pytest.mark.parametrize("kind", KINDS)
def test_an_estimator_keeps_dimensions(kind: str, tmp_path: Path) -> None:
    array = KINDS[kind](MOVIE, tmp_path / "V.zarr")
    model = NMF(K, random_state=0, **ASKED)
    W = model.fit_transform(array)
    plain = NMF(K, random_state=0, **ASKED).fit(V)
    assert model.components_.dims == ("component", "y", "x")
    np.testing.assert_allclose(model.components_.values.reshape(K, -1), plain.components_, rtol=1e-6)
    xarray.testing.assert_allclose(pickle.loads(pickle.dumps(model)).transform(array), W, rtol=1e-4)
    back = model.inverse_transform(W)
    assert back.dims == MOVIE.dims
    xarray.testing.assert_equal(back.time, MOVIE.time)
    np.testing.assert_allclose(back, xarray.dot(W, model.components_, dim="component"))
    assert np.shape(model.inverse_transform(W.values)) == V.shape
    assert np.shape(model.transform(V)) == (DAYS, K)
    frame = model.set_output(transform="pandas").transform(MOVIE)
    pd.testing.assert_index_equal(frame.index, MOVIE.indexes["time"])


def test_batches_of_images_are_learned() -> None:
    learned = NMF(K, random_state=0, **ASKED).partial_fit(MOVIE[:10]).partial_fit(MOVIE[10:].chunk(time=4))
    assert learned.components_.dims == ("component", "y", "x")
    theirs = NMF(K, random_state=0, **ASKED).partial_fit(V[:10]).partial_fit(V[10:])
    np.testing.assert_allclose(learned.components_.values.reshape(K, -1), theirs.components_, rtol=1e-5)


def test_other_features_are_refused() -> None:
    model = NMF(K, random_state=0, **ASKED).fit(MOVIE)
    for wrong, words in (
        (MOVIE.assign_coords(x=list("abdc")), "coordinates of x should match .* number 2 is d and was c"),
        (MOVIE.transpose("time", "x", "y"), "features along x, y, and those .* are along y, x; transpose"),
        (MOVIE[:, :2], "X has 8 features, but NMF is expecting 12"),
    ):
        with pytest.raises(ValueError, match=words):
            model.transform(wrong)


def test_texts_along_the_only_other_dimension_are_names_of_features() -> None:
    table = xarray.DataArray(V[:, :4], {"gene": list("abcd")}, ("cell", "gene"))
    model = NMF(K, random_state=0, **ASKED).fit(table)
    assert list(model.feature_names_in_) == list("abcd")
    frame = pd.DataFrame(V[:, :4], columns=list("abcd"))
    np.testing.assert_allclose(model.transform(frame), model.transform(table))
    with pytest.raises(ValueError, match="feature names should match"):
        model.transform(table[:, ::-1])


def test_pixels_are_rows_and_weights_are_aligned() -> None:
    weights = xarray.DataArray(np.random.default_rng(0).random(V.shape).reshape(MOVIE.shape), dims=MOVIE.dims)
    W, H = nmf(MOVIE, K, sample_dims=("y", "x"), weights=weights.transpose("x", "time", "y"), **ASKED)
    assert W.dims == ("y", "x", "component")
    assert H.dims == ("component", "time")
    expected = nmf(V.T, K, weights=weights.values.reshape(V.shape).T, **ASKED)
    np.testing.assert_allclose(W.values.reshape(-1, K), expected.W)
    model = NMF(K, sample_dims=("y", "x"), random_state=0, **ASKED).fit(MOVIE)
    assert model.transform(MOVIE).dims == ("y", "x", "component")
    assert model.inverse_transform(model.transform(MOVIE)).dims == ("y", "x", "time")


@pytest.mark.parametrize(
    ("make", "options", "words"),
    [
        (
            lambda: MOVIE,
            {"sample_dims": "day"},
            r"sample_dims is 'day' and V has the dimensions time, y, x; name",
        ),
        (lambda: MOVIE, {"sample_dims": ("time", "y", "x")}, "but not all"),
        (lambda: MOVIE, {"sample_dims": ()}, "name some of them"),
        (
            lambda: MOVIE,
            {"weights": MOVIE[:, 0]},
            "weights has the dimensions time, x and V .*broadcast_like",
        ),
        (
            lambda: MOVIE,
            {"weights": (MOVIE * 0 + 1).isel(y=slice(None, None, -1))},
            r"other coordinates of y than V: number 0 is 52.0 in place of 50.0; give weights.reindex_like",
        ),
        (
            lambda: MOVIE,
            {"weights": (MOVIE * 0 + 1)[:, :2]},
            "other coordinates of y than V: 2 in place of 3; give",
        ),
        (lambda: V, {"sample_dims": "time"}, "V is ndarray; it is for a DataArray"),
        (lambda: MOVIE.rename(x="component"), {}, r"give V.rename\(component='...'\)"),
        (lambda: MOVIE[:, 0, 0], {}, "1 dimension"),
    ],
)
def test_dimensions_that_do_not_fit_are_refused(
    make: Callable[[], Any], options: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        nmf(make(), K, **options)


def test_a_stored_array_is_stacked_lazily(tmp_path: Path) -> None:
    array = stored(MOVIE.chunk(time=5), tmp_path / "V.zarr")
    opened = open_matrix(array)
    assert not opened.in_memory
    assert opened.reader.dask_array is not None
    assert not array.variable._in_memory


def test_measures_of_quality_take_images() -> None:
    result, plain = nmf(MOVIE, K, **ASKED), nmf(V, K, **ASKED)
    assert quality(result) == quality(plain)
    assert rss(MOVIE, *result) == rss(V, *plain)
    np.testing.assert_array_equal(feature_score(result.H), feature_score(plain.H))


def test_a_coordinate_along_rows_and_columns_is_left_out_of_both_factors() -> None:
    forecast = MOVIE.assign_coords(valid=(("time", "y"), np.arange(DAYS * ROWS).reshape(DAYS, ROWS)))
    W, H = nmf(forecast, K, **ASKED)
    assert "valid" not in {*W.coords, *H.coords}
    assert {"season", "station"} <= {*W.coords}
    assert {"height", "station"} <= {*H.coords}
