"""Outputs of commands: what came to their place meanwhile stays, and long names, links and pipes."""

import os
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from support.outputs import LONG, names, nothing, put, read

from dask_nmf import nmf, transform
from dask_nmf.errors import RunLocked
from dask_nmf.inference.cells import writing
from dask_nmf.inference.predict import predict_to
from dask_nmf.inference.recommend import ListOptions, recommend_to
from dask_nmf.inference.transform_output import transform_to
from dask_nmf.storage.locations import locate, locate_file


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with V and a run."""
    folder = tmp_path_factory.mktemp("fitted")
    v = np.random.default_rng(0).random((30, 8), np.float32)
    zarr.create_array(folder / "v.zarr", data=v, chunks=(10, 8))
    nmf(str(folder / "v.zarr"), 2, store=str(folder / "run.zarr"), max_iter=2)
    (folder / "cells.csv").write_text("0,0\n1,2\n")
    return folder


def outputs_of(fitted: Path) -> dict[str, Callable[[Path, bool, Callable[[], None]], Any]]:
    """What makes an output at a place, with something that happens while it is made."""
    run, v, cells = (str(fitted / name) for name in ("run.zarr", "v.zarr", "cells.csv"))

    def connect(act: Callable[[], None]) -> Any:
        return lambda matrix: nullcontext(act())

    def predict(path: Path, overwrite: bool, act: Callable[[], None]) -> None:
        with pytest.MonkeyPatch.context() as patch:
            write = writing.write
            patch.setattr(writing, "write", lambda *given: (act(), write(*given)))
            predict_to(locate(run), Path(cells), locate_file(path), overwrite)

    return {
        "transform": lambda path, over, act: transform_to(locate(run), v, locate(path), over, connect(act)),
        "recommend": lambda path, over, act: recommend_to(
            locate(run), v, ListOptions(2), locate_file(path), over, connect(act)
        ),
        "predict": predict,
    }


@pytest.mark.parametrize("maker", ["transform", "recommend", "predict"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_no_command_deletes_what_came_to_its_output_meanwhile(
    fitted: Path, tmp_path: Path, maker: str, overwrite: bool
) -> None:
    make_output, path = outputs_of(fitted)[maker], tmp_path / "out"
    with pytest.raises(FileExistsError, match="meanwhile"):
        make_output(path, overwrite, lambda: put(path, "folder"))
    assert read(path) == "theirs"
    with pytest.raises(FileExistsError, match="exists; give another" if not overwrite else "not an output"):
        make_output(path, overwrite, nothing)
    shutil.rmtree(path)
    make_output(path, overwrite, nothing)
    before = path.stat().st_ino
    if overwrite:
        make_output(path, overwrite, lambda: None)
        assert path.stat().st_ino != before
    with pytest.raises(RunLocked, match="another process works on"):
        make_output(path, True, lambda: make_output(path, True, nothing))
    assert names(tmp_path) == ["out"]


@pytest.mark.parametrize("maker", ["transform", "recommend", "predict"])
def test_every_command_writes_to_long_names_and_through_links(
    fitted: Path, tmp_path: Path, maker: str
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "link").symlink_to("data/out")
    for place in (tmp_path / LONG[0], tmp_path / LONG[1], tmp_path / "link"):
        for overwrite in (False, True):
            outputs_of(fitted)[maker](place, overwrite, nothing)
    assert os.readlink(tmp_path / "link") == "data/out"
    assert names(tmp_path) == sorted(["data", "link", *LONG[:2]])
    assert names(tmp_path / "data") == ["out"]


def test_who_reads_an_old_w_while_it_is_replaced_gets_no_numbers_of_another(
    fitted: Path, tmp_path: Path
) -> None:
    make_output, path = outputs_of(fitted)["transform"], tmp_path / "w.zarr"
    v, H = str(fitted / "v.zarr"), zarr.open_array(fitted / "run.zarr", path="H", mode="r")[:]
    for _ in range(5):  # however often
        readers = [zarr.open_group(path, mode="r")["W"]] if path.exists() else []
        make_output(path, True, nothing)
        for old in readers:
            assert isinstance(old, zarr.Array)
            assert np.isnan(old[:]).all()
        np.testing.assert_array_equal(zarr.open_group(path, mode="r")["W"][:], transform(v, H).compute())


def test_a_pipe_is_no_output(fitted: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "out.csv")
    with pytest.raises(FileExistsError, match="not an output of predict"):
        outputs_of(fitted)["predict"](tmp_path / "out.csv", True, nothing)
