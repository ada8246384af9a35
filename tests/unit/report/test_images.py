"""Components as images in reports: where their shape is known, and where it is asked for."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import zarr
from support.reports import report_of

from dask_nmf import nmf
from dask_nmf.report import write
from dask_nmf.report.sections.views import parse_image_shape
from dask_nmf.sources.formats.stored.conversions import IMAGE_SHAPE


@pytest.mark.usefixtures("undrawn")
def test_the_shape_of_images_that_a_conversion_noted_is_known(tmp_path: Path) -> None:
    v = zarr.create_array(tmp_path / "v.zarr", data=np.random.default_rng(0).random((9, 12)))
    v.attrs[IMAGE_SHAPE] = [3, 4]
    nmf(tmp_path / "v.zarr", 2, max_iter=2, store=tmp_path / "faces.zarr")
    noted = report_of(tmp_path / "faces.zarr", tmp_path, overwrite=True)
    assert "3 x 4 pixels of component 1" in noted
    assert "3 x 4 pixels" not in report_of(tmp_path / "faces.zarr", tmp_path, view="bars", overwrite=True)
    asked = report_of(tmp_path / "faces.zarr", tmp_path, image_shape=(2, 6), overwrite=True)
    assert "2 x 6 pixels of component 1" in asked


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("noted", [[3, 5], [-3, -4], [2, 2, 4]])
def test_a_noted_shape_of_images_that_columns_do_not_have_is_ignored(
    run: Path, tmp_path: Path, noted: list[int]
) -> None:
    place = tmp_path / "faces.zarr"
    shutil.copytree(run, place)
    group = zarr.open_group(place)
    record = group.attrs["dask_nmf"]
    record["result"]["matrix"]["image_shape"] = noted
    group.attrs["dask_nmf"] = record
    html = report_of(place, tmp_path)
    ignored = f"Images of {' x '.join(map(str, noted))} are noted with V, which has 12 columns"
    assert ignored in html
    assert "pixels of component" not in html
    assert ignored not in report_of(place, tmp_path, image_shape="3x4", overwrite=True)


@pytest.mark.usefixtures("undrawn")
def test_components_are_shown_as_images_where_their_shape_is_known(run: Path, tmp_path: Path) -> None:
    html = report_of(run, tmp_path, image_shape="3x4")
    assert html.count('<figure class="image">') == 3
    assert "3 x 4 pixels of component 2" in html
    with pytest.raises(ValueError, match=r"images of 5 x 3 have 15 pixels, and V has 12 columns"):
        write(run, tmp_path / "other.html", image_shape=(5, 3))
    for text in ("5", "3x", "x", "0x4", "3x4x5", "-3x4", "axb"):
        with pytest.raises(ValueError, match="give HEIGHTxWIDTH"):
            parse_image_shape(text)
    assert parse_image_shape("112×92") == parse_image_shape("112X92") == (112, 92)
    with pytest.raises(ValueError, match="give --image-shape too"):
        write(run, tmp_path / "other.html", view="image")
    with pytest.raises(ValueError, match="view is 'words'; give one of 'image', 'bars', 'spectrum'"):
        write(run, tmp_path / "other.html", view="words")
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
