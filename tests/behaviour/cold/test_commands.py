"""Commands give means for cold rows and columns, and say so."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import zarr
from support.cold import COLD_COLUMN, COLD_ROWS, OPTIONS, best_of, ratings
from support.command import Forks, assert_refused

from dask_nmf import Means, nmf, predict, transform
from dask_nmf.errors import DataError, InvalidRunError
from dask_nmf.inference.predict import predict_to
from dask_nmf.inference.recommend import ListOptions, recommend_to
from dask_nmf.inference.transform_output import transform_to
from dask_nmf.kernels.summary.means import SOURCES
from dask_nmf.runs.run import Run
from dask_nmf.storage.locations import locate, locate_file

pytestmark = pytest.mark.usefixtures("several_panels")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with v.zarr, its run, and pairs.csv."""
    given_v = ratings((60, 25))
    stored = zarr.create_array(tmp_path / "v.zarr", shape=(60, 25), chunks=(20, 25), dtype=np.float32)
    stored[:] = given_v.v
    nmf(str(tmp_path / "v.zarr"), store=tmp_path / "run.zarr", **OPTIONS)
    (tmp_path / "pairs.csv").write_text(f"column,row\n0,0\n0,5\n{COLD_COLUMN},0\n{COLD_COLUMN},5\n")
    return tmp_path


def lines(path: Path) -> list[tuple[int, int, float, str]]:
    head, *rest = (line.split(",") for line in path.read_text().splitlines())
    assert head == ["row", "column", "value", "source"]
    return [(int(row), int(column), float(value), source) for row, column, value, source in rest]


def test_the_command_predicts_and_recommends_marked_means(folder: Path, forks: Forks, scheduler: str) -> None:
    done = forks.call(["predict", "run.zarr", "pairs.csv", "--output", "out.csv", "--clip", 1, 3], folder)
    assert done.returncode == 0, done.stderr
    given_v = ratings((60, 25))
    run = zarr.open_group(folder / "run.zarr", mode="r")
    wh = run["W"][:] @ run["H"][:]
    expected = np.clip(given_v.predicted(wh, given_v.known), 1, 3)
    found = lines(folder / "out.csv")
    cells = [(0, 0), (5, 0), (0, COLD_COLUMN), (5, COLD_COLUMN)]
    assert [line[:2] for line in found] == cells
    assert [line[2] for line in found] == pytest.approx([expected[cell] for cell in cells], rel=1e-5)
    assert (
        [line[3] for line in found]
        == ["model", "column_mean", "row_mean", "overall_mean"]
        == [SOURCES[number] for number in (0, 2, 1, 3)]
    )

    (folder / "rows.csv").write_text("name\tROW\nx\t9\ny\t3\nz\t9\n")
    words = ["recommend", "run.zarr", "v.zarr", "--top", 4, "--output", "out.csv", "--overwrite", "--rows"]
    done = forks.call((*words, "rows.csv"), folder, DASK_SCHEDULER_ADDRESS=scheduler)
    assert (done.returncode, done.stdout) == (0, "out.csv: 8 values\n"), done.stderr
    columns, values = best_of(given_v, wh, 4)
    found = lines(folder / "out.csv")
    assert [line[0] for line in found] == [3] * 4 + [9] * 4
    assert [line[1] for line in found] == [*columns[3], *columns[9]]
    assert [line[2] for line in found] == pytest.approx([*values[3], *values[9]], rel=1e-5)
    assert [line[3] for line in found] == ["model"] * 4 + ["column_mean"] * 4

    left = {path.name for path in folder.iterdir()}
    for text, told in (
        ("3\n60\n", "line 2: row 60 is outside"),
        ("user\n3\n", "line 1: 'user' does not name row"),
    ):
        (folder / "rows.csv").write_text(text)
        refused = forks.call((*words, "rows.csv"), folder, DASK_SCHEDULER_ADDRESS=scheduler)
        assert_refused(refused, 3, told, folder=folder, left=left)
    refused = forks.call((*words[:-1], "--clip", 5, 1), folder)
    assert_refused(refused, 2, "clip is 5 to 1", folder=folder, left=left)


def test_lost_means_are_missed(folder: Path) -> None:
    (lost,) = (folder / "run.zarr" / "data").glob("result-*/row_mean/c.0")
    lost.unlink()
    with pytest.raises(InvalidRunError, match=r"damaged: .*row_mean"):
        predict_to(locate(folder / "run.zarr"), folder / "pairs.csv", locate_file(folder / "out.csv"), False)


@pytest.mark.parametrize("by_columns", [False, True])
def test_transform_tells_which_new_rows_are_cold(by_columns: bool, folder: Path) -> None:
    given_v = ratings((40, 25))
    v: Any = np.asfortranarray(given_v.v) if by_columns else given_v.v
    if by_columns:
        v = da.from_array(given_v.v, chunks=(40, 5))
    transform_to(locate(folder / "run.zarr"), v, locate(folder / "w.zarr"), False, lambda _: nullcontext())
    group = zarr.open_group(folder / "w.zarr", mode="r")
    means = np.asarray(group["row_mean"])
    np.testing.assert_allclose(means, given_v.means(given_v.known)[0], rtol=1e-6)
    assert np.flatnonzero(np.isnan(means)).tolist() == COLD_ROWS
    run = Run.load_result(folder / "run.zarr")
    np.testing.assert_allclose(
        group["W"], transform(v, run.read("H"), missing="nan", alpha_W=0.05), atol=1e-6
    )
    assert run.means is not None
    known = Means(means, run.means.columns, run.means.overall)
    value = predict(group["W"], run.factors[1], [COLD_ROWS[0]], [0], means=known)
    np.testing.assert_allclose(value, run.means.columns[:1])


def test_a_table_of_rows_has_one_number_a_line(folder: Path) -> None:
    (folder / "rows.csv").write_text("1,2\n")
    with pytest.raises(DataError, match="'1,2' is no integer; write row, counted from 0"):
        recommend_to(
            locate(folder / "run.zarr"), str(folder / "v.zarr"),
            ListOptions(2, rows=folder / "rows.csv"), locate_file(folder / "out.csv"), False,
            lambda _: nullcontext(),
        )  # fmt: skip
