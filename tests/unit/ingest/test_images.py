"""Images of one size become rows: the values of Pillow, with the shape that shows rows as images again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from PIL import Image
from support.converted import matrix_of, names_of

from dask_nmf.errors import DataError
from dask_nmf.ingest import convert
from dask_nmf.ingest.formats import images
from dask_nmf.sources.registry import open_matrix

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (5, 6, 4), np.uint8)
COLOUR = RNG.integers(0, 256, (5, 6, 4, 3), np.uint8)
DEEP = RNG.integers(0, 2**16, (5, 6, 4), np.uint16)


def image_shape(place: Path) -> Any:
    """Return the shape of images that is recorded with V."""
    return zarr.open_group(place).attrs["dask_nmf_convert"]["image_shape"]


@pytest.mark.parametrize(
    ("values", "suffix"),
    [(GREY, "png"), (GREY, "pgm"), (GREY > 99, "png"), (DEEP, "png"), (COLOUR, "tif"), (COLOUR, "png")],
    ids=["grey", "pgm", "bits", "16 bits", "colour", "colour png"],
)
def test_each_image_is_a_row(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    values: np.ndarray,
    suffix: str,
) -> None:
    monkeypatch.setattr(images, "BATCH", 200)
    (tmp_path / "in").mkdir()
    for number, value in enumerate(values):
        Image.fromarray(value).save(tmp_path / "in" / f"{number}.{suffix}")
    convert(tmp_path / "in", tmp_path / "v.zarr")
    np.testing.assert_array_equal(matrix_of(tmp_path / "v.zarr"), values.reshape(5, -1))
    assert names_of(tmp_path / "v.zarr", "obs") == [f"{number}.{suffix}" for number in range(5)]
    assert image_shape(tmp_path / "v.zarr") == list(values.shape[1:])
    assert open_matrix(tmp_path / "v.zarr").image_shape == values.shape[1:]


def test_each_frame_of_a_stack_is_a_row(tmp_path: Path) -> None:
    stack = np.stack([np.full((3, 2), number / 4, np.float32) for number in range(3)])
    first, *others = map(Image.fromarray, stack)
    first.save(tmp_path / "stack.tif", save_all=True, append_images=others)
    convert(tmp_path / "*.tif", tmp_path / "v.zarr", scale_columns="max")
    np.testing.assert_array_equal(matrix_of(tmp_path / "v.zarr"), stack.reshape(3, -1) * 2)
    assert names_of(tmp_path / "v.zarr", "obs") == [f"stack.tif[{number}]" for number in range(3)]
    Image.fromarray(stack[1].T.copy()).save(tmp_path / "turned.png.tif")
    with pytest.raises(DataError, match="is of 3 x 2 pixels, grey, and the images of V of 2 x 3 pixels"):
        convert(tmp_path / "turned.png.tif", tmp_path / "new.zarr", like=tmp_path / "v.zarr")


def test_palettes_and_what_is_opaque_are_colours(tmp_path: Path) -> None:
    opaque = np.concatenate([COLOUR[0], np.full((6, 4, 1), 255, np.uint8)], axis=2)
    Image.fromarray(opaque).save(tmp_path / "a.png")
    Image.fromarray(COLOUR[0] // 128 * 255).quantize(8).save(tmp_path / "b.png")
    convert(tmp_path / "*.png", tmp_path / "v.zarr")
    expected = [COLOUR[0].ravel(), (COLOUR[0] // 128 * 255).ravel()]
    np.testing.assert_array_equal(matrix_of(tmp_path / "v.zarr"), expected)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (GREY[0].T.copy(), r"b\.png is of 6 x 4 pixels, grey, and .*a\.png of 4 x 6 pixels, grey; bring all"),
        (COLOUR[0], r"b\.png is of 4 x 6 pixels, RGB, and .*a\.png of 4 x 6 pixels, grey"),
        (np.zeros((6, 4, 4), np.uint8), r"b\.png is transparent in places"),
        (None, r"b\.png cannot be read as an image; save it anew"),
    ],
    ids=["size", "channels", "transparent", "damaged"],
)
def test_images_that_do_not_fit_are_refused(tmp_path: Path, values: np.ndarray | None, message: str) -> None:
    Image.fromarray(GREY[0]).save(tmp_path / "a.png")
    if values is None:
        (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes()[:40])
    else:
        Image.fromarray(values).save(tmp_path / "b.png")
    with pytest.raises(DataError, match=message):
        convert(tmp_path / "*.png", tmp_path / "v.zarr")
    assert not (tmp_path / "v.zarr").exists()


def test_images_stand_alone(tmp_path: Path) -> None:
    Image.fromarray(GREY[0]).save(tmp_path / "a.png")
    np.save(tmp_path / "v.npy", GREY[0])
    with pytest.raises(ValueError, match="images and files of other kinds are given together"):
        convert([tmp_path / "a.png", tmp_path / "v.npy"], tmp_path / "v.zarr")
